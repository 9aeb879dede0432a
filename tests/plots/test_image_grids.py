import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from PIL import Image

from convae.plots import image_grids, style
from convae.plots.charts import training_curves
from convae.tasks.metrics import METRICS

DATA = "MNIST, 40 test images"
NOTE = "bundled sample of 5,000 digits, not the full MNIST"
DIGITS = [str(i) for i in range(10)]


def arrays(count: int = 40, size: int = 28, channels: int = 1) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, size, size, channels), np.uint8)
    reconstructions = (images / 255 * 0.8).astype(np.float32)
    return images, reconstructions, np.arange(count) % 10


def rows(images: Any, reconstructions: Any) -> dict[str, Any]:
    return {"original": images, "reconstruction": reconstructions}


def grid(rows: dict[str, Any], **options: Any) -> Figure:
    options = {"compared": ("original", "reconstruction"), "title": "Reconstructions"} | options
    return image_grids.reconstruction_grid(rows, DATA, classes=DIGITS, **options)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def pictures(figure: Figure) -> list[NDArray[Any]]:
    return [np.asarray(image.get_array()) for image in figure.axes[0].images]


def panels(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_label() != "canvas"]


def heights(line: Line2D) -> list[float]:
    return [float(y) for y in np.asarray(line.get_ydata())]


def figures(note: str | None = None) -> dict[str, Figure]:
    """One of each kind, as a run on MNIST makes them."""
    images, reconstructions, labels = arrays()
    history = [
        {"epoch": e, "loss": 0.06 + 0.2 / e, "val_loss": 0.0586 + 0.2 / e, "val_excess": 0.2 / e}
        for e in range(1, 6)
    ]
    codes = np.random.default_rng(0).random((3, 22, 22, 8), np.float32)
    return {
        "grid": grid(rows(images[:10], reconstructions[:10]), labels=labels[:10], note=note),
        "best": image_grids.best_and_worst(
            rows(images, reconstructions), np.arange(40) / 1e3, DATA,
            metric="excess", indices=range(40), note=note,
        ),
        "curves": training_curves(history, "binary_crossentropy", DATA, note),
        "maps": image_grids.feature_maps(images[:3], codes, reconstructions[:3], DATA, note=note),
    }  # fmt: skip


def assert_readable(name: str, figure: Figure, folder: Path) -> None:
    """Nothing is cut off at the edge, and no text lies on another."""
    with Image.open(style.save(figure, folder / "figure.png")) as image:
        pixels = np.asarray(image.convert("L")).copy()
    pixels[12:-12, 12:-12] = 255
    assert np.all(pixels == 255), name
    figure.canvas.draw()
    words = [text for axes in figure.axes for text in axes.texts]
    for axes in panels(figure):
        (left, right), (low, high) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
        words += [axes.xaxis.label, axes.yaxis.label, axes.title, axes._left_title]  # type: ignore[attr-defined]
        words += [t for t in axes.get_xticklabels() if left <= t.get_position()[0] <= right]
        words += [t for t in axes.get_yticklabels() if low <= t.get_position()[1] <= high]
        if legend := axes.get_legend():
            words += legend.get_texts()
    boxes = [(t.get_text(), t.get_window_extent().padded(-2)) for t in words if t.get_text()]
    for i, (word, box) in enumerate(boxes):
        assert not [other for other, second in boxes[:i] if box.overlaps(second)], (name, word)


@pytest.fixture(scope="module")
def noted() -> dict[str, Figure]:
    return figures(NOTE)


def test_every_figure_has_title_data_and_note(noted: dict[str, Figure]) -> None:
    for name, figure in noted.items():
        title, subtitle, note = texts(figure)[:3]
        assert len(title) > 10, name
        assert subtitle.startswith(DATA), name
        assert note == NOTE, name
    assert all(NOTE not in texts(figure) for figure in figures().values())


def test_every_figure_is_complete_and_readable(noted: dict[str, Figure], tmp_path: Path) -> None:
    for name, figure in noted.items():
        assert_readable(name, figure, tmp_path)


def test_the_grid_has_a_column_for_each_image() -> None:
    images, reconstructions, labels = arrays()
    figure = grid(rows(images, reconstructions), labels=labels[::-1])
    shown = pictures(figure)
    assert len(shown) == 30
    for column in range(10):
        original, reconstruction = images[column] / 255, reconstructions[column]
        np.testing.assert_allclose(shown[column], original[..., 0])
        np.testing.assert_allclose(shown[10 + column], reconstruction[..., 0])
        np.testing.assert_allclose(shown[20 + column], abs(original - reconstruction)[..., 0])
    names = [text for text in texts(figure) if text in DIGITS]
    assert names == DIGITS[::-1]
    assert {"original", "reconstruction", "absolute error"} <= set(texts(figure))
    (scale,) = panels(figure)
    largest = max(float(picture.max()) for picture in shown[20:])
    assert scale.get_xlim() == pytest.approx((0, largest))
    assert figure.axes[0].images[-1].get_clim() == pytest.approx((0, largest))


def test_the_grid_of_color_images_without_labels() -> None:
    images, reconstructions, _ = arrays(3, 32, 3)
    shown = pictures(grid(rows(images, reconstructions)))
    assert [picture.shape for picture in shown] == [(32, 32, 3)] * 6 + [(32, 32)] * 3
    error = np.abs(images[2] / 255 - reconstructions[2])
    np.testing.assert_allclose(shown[-1], error.mean(axis=-1))


def test_a_grid_of_rows_of_different_sizes() -> None:
    images, outputs, labels = arrays()
    small = images[:, ::2, ::2]
    figure = grid(
        {"input": small, "bicubic": outputs, "output": outputs * 0.5, "target": images},
        compared=("target", "output"),
        title="Upscaling",
        labels=labels,
    )
    shown = pictures(figure)
    assert len(shown) == 50
    np.testing.assert_allclose(shown[0], small[0, ..., 0] / 255)
    np.testing.assert_allclose(shown[40], abs(images[0] / 255 - outputs[0] * 0.5)[..., 0])
    drawn = figure.axes[0].images
    assert drawn[0].get_extent()[1] == pytest.approx(
        drawn[10].get_extent()[1]
    )  # as large as theirs
    assert texts(figure)[0] == "Upscaling"


def test_bands_of_different_lengths() -> None:
    images, outputs, _ = arrays()
    bands = {"first": np.array([3, 5]), "second": np.array([7, 8, 9])}
    says = f"{DATA}; scores"
    figure = image_grids.bands_of_images(
        rows(images, outputs),
        bands,
        np.arange(40) / 100,
        "Title",
        says,
        indices=range(100, 140),
    )
    assert len(pictures(figure)) == 2 * (2 + 3)
    assert {"first", "second", "103", "0.03000", "109", "0.09000"} <= set(texts(figure))


@pytest.mark.parametrize(("metric", "best"), [("excess", 0), ("psnr", 39)])
def test_best_and_worst_by_their_scores(metric: str, best: int) -> None:
    images, reconstructions, _ = arrays()
    values = np.arange(40) / 1000
    figure = image_grids.best_and_worst(
        rows(images, reconstructions), values, DATA, metric=metric, indices=range(40)
    )
    shown = pictures(figure)
    assert len(shown) == 40
    np.testing.assert_allclose(shown[0], images[best, ..., 0] / 255)
    np.testing.assert_allclose(shown[10], reconstructions[best, ..., 0])
    np.testing.assert_allclose(shown[20], images[39 - best, ..., 0] / 255)
    words = texts(figure)
    assert words.index("best") < words.index("worst")
    assert words.count("0.03900") == words.count("39") == 1
    assert METRICS[metric][0] in words[1]


def test_feature_maps_state_the_size_of_the_code() -> None:
    images, reconstructions, _ = arrays(2)
    codes = np.zeros((2, 22, 22, 8), np.float32)
    codes[..., 1] = 3.5
    figure = image_grids.feature_maps(images, codes, reconstructions, DATA)
    assert "code 22x22x8 = 3,872 numbers for 784 pixels (4.94 times more)" in texts(figure)[1]
    assert len(pictures(figure)) == 2 * (1 + 8 + 1)
    assert "3.5" in texts(figure)

    color, same, _ = arrays(1, 32, 3)
    code = np.random.default_rng(0).normal(size=(1, 4, 4, 48)).astype(np.float32)
    figure = image_grids.feature_maps(color, code, same, DATA)
    said = " ".join(texts(figure)[1:3])
    assert "code 4x4x48 = 768 numbers for 3,072 pixel values (4 times fewer)" in said
    assert "16 of 48 channels shown" in said
    assert len(pictures(figure)) == 18


def test_files_are_small_and_the_same_twice(noted: dict[str, Figure], tmp_path: Path) -> None:
    for name, figure in figures(NOTE).items():
        path = style.save(figure, tmp_path / f"{name}.png")
        again = style.save(noted[name], tmp_path / "again.png")
        assert path.read_bytes() == again.read_bytes(), name
        assert path.stat().st_size < 400_000  # noise images: digits take a fourth
        with Image.open(path) as image:
            assert "Software" not in image.info
            assert image.width <= 2 * 900
            assert len(np.unique(np.asarray(image.convert("L")))) > 50
    assert len(list(tmp_path.iterdir())) == 5


def test_a_file_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")
    figure = style.sheet(100, 100, "title", "subtitle").figure

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        style.save(figure, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def no_cache() -> Iterator[None]:
    for function in (style.font_families, style._warn_of_boxes):
        function.cache_clear()
    yield
    style.font_families.cache_clear()


@pytest.mark.usefixtures("no_cache")
def test_other_scripts_have_the_fonts_that_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = ["Arial", "Malgun Gothic", style.FONT, "Noto Sans CJK JP"]
    monkeypatch.setattr(font_manager, "get_font_names", lambda: installed)
    with style.applied():
        title = style.sheet(100, 100, "title", "subtitle").canvas.texts[0]
    assert title.get_fontfamily() == ["DejaVu Sans", "Noto Sans CJK JP", "Malgun Gothic"]


@pytest.mark.usefixtures("no_cache")
def test_characters_that_no_font_has_are_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(font_manager, "get_font_names", lambda: [style.FONT])
    for title, warnings in {"Crème Ωδή": 0, "猫": 1, "犬と猫": 1}.items():
        with style.applied():
            figure = style.sheet(100, 100, title, "subtitle").figure
        style.to_png(figure)
        assert len(caplog.records) == warnings
    assert "Install one of: Noto Sans CJK JP, " in caplog.text


def test_the_users_own_settings_change_nothing_and_are_kept(tmp_path: Path) -> None:
    images, reconstructions, _ = arrays(3)
    codes = np.ones((3, 5, 5, 2), np.float32)

    def draw() -> Figure:
        return image_grids.feature_maps(images, codes, reconstructions, "5$ and 6$")

    plain = style.save(draw(), tmp_path / "plain.png").read_bytes()
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "text.usetex": True}):
        styled = style.save(draw(), tmp_path / "styled.png").read_bytes()
        assert mpl.rcParams["font.size"] == 30
    assert styled == plain


@pytest.mark.parametrize(("height", "width"), [(28, 28), (1, 1), (40, 20), (300, 200)])
def test_images_are_enlarged_evenly(height: int, width: int) -> None:
    side = 70.0
    sheet = style.sheet(100, 100, "title", "subtitle")
    image = sheet.image(np.zeros((height, width)), 10, 20, side)
    left, right, bottom, top = image.get_extent()
    assert 10 <= left < right <= 10 + side
    assert 20 <= top < bottom <= 20 + side
    dots = style.DOTS * (right - left) / width
    assert dots == pytest.approx(style.DOTS * (bottom - top) / height)
    assert dots == int(dots) or dots < 1


def test_importing_the_figures_is_light() -> None:
    code = "import convae.plots.image_grids, sys; print([m for m in sys.modules if m in"
    code += " ('matplotlib.pyplot', 'tensorflow', 'keras')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
