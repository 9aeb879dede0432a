"""The figures of explain: up to date in docs, reproducible, readable."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image, ImageChops, ImageSequence, ImageStat

from convae.errors import ConvaeError
from convae.explain import charts, effects
from convae.explain import step_figures as figures
from convae.explain.cell_grid import check_format, write
from convae.explain.operation import ConvOptions
from convae.explain.worked_example import EXAMPLES, Case

ROOT = Path(__file__).parents[2]


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "lab_figures", ROOT / "scripts/docs/lab_figures.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = _script()


def frames(path: Path) -> list[Image.Image]:
    with Image.open(path) as image:
        return [frame.convert("RGB") for frame in ImageSequence.Iterator(image)]


@pytest.mark.parametrize("name", SCRIPT.PICTURES)
def test_pictures_of_the_docs_are_fresh(name: str, tmp_path: Path) -> None:
    stored = SCRIPT.IMAGES / name
    assert stored.exists(), "draw it: python -m scripts.docs.lab_figures"
    fresh = write(SCRIPT.PICTURES[name](), tmp_path / name)
    if fresh.read_bytes() == stored.read_bytes():
        return
    # another version of matplotlib or Pillow may draw the edges of letters otherwise, but no more
    alike = (SCRIPT.IMAGES / "drawn-with.txt").read_text() == SCRIPT.drawn_with()
    old, new = frames(stored), frames(fresh)
    assert [f.size for f in old] == [f.size for f in new], (
        "stale: python -m scripts.docs.lab_figures"
    )
    for a, b in zip(old, new, strict=True):
        difference = ImageStat.Stat(ImageChops.difference(a, b))
        furthest = max(high for _, high in difference.extrema)
        fresh_enough = furthest <= 2 if alike else max(difference.mean) < 0.5
        assert fresh_enough, "stale: python -m scripts.docs.lab_figures"


def test_docs_show_every_picture() -> None:
    text = (ROOT / "docs" / "transposed-convolution.md").read_text(encoding="utf-8")
    assert all(f"images/{name}" in text for name in SCRIPT.PICTURES)
    assert {p.name for p in SCRIPT.IMAGES.glob("*")} >= set(SCRIPT.PICTURES)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".gif"])
def test_same_figure_same_bytes(suffix: str, tmp_path: Path) -> None:
    case = EXAMPLES["basic"][1]
    first, second = (
        write(
            figures.frames(case) if suffix == ".gif" else figures.panels(case),
            tmp_path / f"{n}{suffix}",
        ).read_bytes()
        for n in "ab"
    )
    assert first == second
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"a{suffix}", f"b{suffix}"]


@pytest.mark.parametrize("view", ["copies", "zeros"])
@pytest.mark.parametrize("extra", [None, (0, 0), (1, 1)])
def test_animation_has_one_frame_a_step_of_equal_size(
    view: figures.View, extra: tuple[int, int] | None, tmp_path: Path
) -> None:
    case = Case(
        np.arange(2).reshape(2, 1), np.ones((2, 2), int), ConvOptions((2, 2), "valid", extra)
    )
    drawn = figures.frames(case, None, view)
    assert len(drawn) == (3 if view == "copies" else case.result().size)
    assert len({tuple(f.get_size_inches()) for f in drawn}) == 1
    path = write(drawn, tmp_path / "steps.gif")
    stored = frames(path)
    assert len(stored) == len(drawn)
    assert stored[0].getpixel((1, 1)) == (255, 255, 255)


def words(figure: Figure) -> set[str]:
    return {text.get_text() for axes in figure.axes for text in axes.texts}


def test_panels_contain_every_number() -> None:
    case = EXAMPLES["4"][1]
    shown = words(figures.panels(case))
    assert {str(n) for n in case.canvas().ravel()} <= shown
    assert any("1 cropped on each side" in text for text in shown)
    assert any("no copies overlap" in text for text in shown)
    assert "9: 9 × kernel" in shown


def test_too_large_or_unknown_is_refused() -> None:
    large = Case(np.ones((20, 20)), np.ones((5, 5)), ConvOptions((2, 2)))
    with pytest.raises(ConvaeError, match="at most 24x24 cells"):
        figures.panels(large)
    with pytest.raises(ConvaeError, match="at most 100 steps"):
        figures.frames(Case(np.ones((11, 11)), np.ones((2, 2))))
    with pytest.raises(ConvaeError, match="must end in"):
        check_format("picture.bmp")


def test_adjoint_numbers() -> None:
    found = effects.adjoint(np.arange(9).reshape(3, 3), np.array([[1, 2], [2, 1]]))
    assert found.cx.tolist() == [[12, 18], [30, 36]]
    assert found.ctcx.tolist() == [[12, 42, 36], [54, 144, 90], [60, 102, 36]]
    assert found.products == (282, 282)
    assert (found.matrix_shape, found.rank) == ((4, 9), 4)
    again = effects.adjoint(found.pseudo, np.array([[1, 2], [2, 1]]))
    np.testing.assert_allclose(again.cx, found.cx)  # the same Cx, though another x


@pytest.mark.parametrize("factor", [2, 3, 4, 5])
def test_bilinear_kernel_is_bilinear_upsampling(factor: int) -> None:
    image = np.random.default_rng(factor).random((5, 7))
    np.testing.assert_allclose(
        effects.upsample_bilinear(image, factor), effects.interpolate(image, factor), atol=1e-12
    )


def test_contrast_of_checkerboards() -> None:
    found = {
        (c.name.split("\n")[0] + c.name.split("\n")[1][:8], c.weights): c.contrast
        for c in effects.checkerboards()
    }
    by_weights = [
        [v for (_, kind), v in found.items() if kind == k] for k in ("equal", "random", "trained")
    ]
    assert by_weights[0] == pytest.approx([0.436, 0, 0, 0], abs=1e-3)
    transposed, even, resized, rearranged = by_weights[1]
    assert resized < 1e-12
    assert min(transposed, even, rearranged) > 0.7
    assert max(by_weights[2]) < 0.01


def test_spectrum_shows_a_pattern() -> None:
    images = np.random.default_rng(0).random((40, 28, 28))
    assert effects.stride_peak(images, 2) == pytest.approx(1, abs=0.2)
    striped = images.copy()
    striped[:, ::2] += 0.3
    assert effects.stride_peak(striped, 2) > 2
    assert charts.spectra(images, striped, 2, "noise").axes
    with pytest.raises(ConvaeError, match="no pattern of period 1"):
        effects.stride_peak(images, 1)
