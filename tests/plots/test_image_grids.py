from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from convae.plots import image_grids as plots
from convae.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D
    from numpy.typing import NDArray

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
    epochs = np.arange(1, 6)
    history: dict[str, Any] = {
        "epoch": epochs,
        "loss": 0.06 + 0.2 / epochs,
        "val_loss": 0.059 + 0.2 / epochs,
    }
    codes = np.random.default_rng(0).random((3, 22, 22, 8), np.float32)
    return {
        "grid": plots.reconstruction_grid(
            rows(images, reconstructions), DATA, labels=labels, classes=DIGITS, note=note
        ),
        "best": plots.best_and_worst(
            rows(images, reconstructions), np.arange(40) / 1e3, DATA, note=note
        ),
        "curves": plots.training_curves(history, DATA, floor=0.0586, note=note),
        "maps": plots.feature_maps(images[:3], codes, reconstructions[:3], DATA, note=note),
    }


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


def test_every_figure_says_what_it_shows_and_of_which_data(noted: dict[str, Figure]) -> None:
    for name, figure in noted.items():
        title, subtitle, note = texts(figure)[:3]
        assert len(title) > 10, name
        assert subtitle.startswith(DATA), name
        assert note == NOTE, name
    assert all(NOTE not in texts(figure) for figure in figures().values())


def test_every_figure_is_whole_and_readable(noted: dict[str, Figure], tmp_path: Path) -> None:
    for name, figure in noted.items():
        assert_readable(name, figure, tmp_path)


def test_the_grid_has_a_column_for_each_class() -> None:
    images, reconstructions, labels = arrays()
    labels = labels[::-1]
    both = rows(images, reconstructions)
    figure = plots.reconstruction_grid(both, DATA, labels=labels, classes=DIGITS)
    shown = pictures(figure)
    assert len(shown) == 30
    for digit in range(10):
        first = int(np.argmax(labels == digit))
        original, reconstruction = images[first] / 255, reconstructions[first]
        np.testing.assert_allclose(shown[digit], original[..., 0])
        np.testing.assert_allclose(shown[10 + digit], reconstruction[..., 0])
        np.testing.assert_allclose(shown[20 + digit], abs(original - reconstruction)[..., 0])
    assert {"original", "reconstruction", "absolute error", *DIGITS} <= set(texts(figure))
    (scale,) = panels(figure)
    largest = max(float(picture.max()) for picture in shown[20:])
    assert scale.get_xlim() == pytest.approx((0, largest))
    assert figure.axes[0].images[-1].get_clim() == pytest.approx((0, largest))


def test_the_grid_of_color_images_without_labels() -> None:
    images, reconstructions, _ = arrays(3, 32, 3)
    shown = pictures(plots.reconstruction_grid(rows(images, reconstructions), DATA))
    assert [picture.shape for picture in shown] == [(32, 32, 3)] * 6 + [(32, 32)] * 3
    error = np.abs(images[2] / 255 - reconstructions[2])
    np.testing.assert_allclose(shown[-1], error.mean(axis=-1))


def test_a_grid_of_rows_of_different_sizes() -> None:
    images, outputs, labels = arrays()
    small = images[:, ::2, ::2]
    figure = plots.reconstruction_grid(
        {"input": small, "bicubic": outputs, "output": outputs * 0.5, "target": images},
        DATA,
        compared=("target", "output"),
        title="Upscaling",
        labels=labels,
        classes=DIGITS,
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
    figure = plots.bands_of_images(
        rows(images, outputs),
        bands,
        np.arange(40) / 100,
        DATA,
        "Title",
        says,
        indices=range(100, 140),
    )
    assert len(pictures(figure)) == 2 * (2 + 3)
    assert {"first", "second", "103", "0.0300", "109", "0.0900"} <= set(texts(figure))


def test_the_grid_leaves_out_classes_without_an_image() -> None:
    images, reconstructions, labels = arrays(30)
    classes = [f"class {i}" for i in range(25)]
    figure = plots.reconstruction_grid(
        rows(images, reconstructions), DATA, labels=2 * labels, classes=classes
    )
    named = [text for text in texts(figure) if text.startswith("class ")]
    assert named == [f"class {i}" for i in range(0, 20, 2)]


@pytest.mark.parametrize(("score", "best"), [("excess", 0), ("psnr", 39)])
def test_best_and_worst_by_their_scores(score: str, best: int) -> None:
    images, reconstructions, _ = arrays()
    values = np.arange(40) / 1000
    figure = plots.best_and_worst(rows(images, reconstructions), values, DATA, score=score)
    shown = pictures(figure)
    assert len(shown) == 40
    np.testing.assert_allclose(shown[0], images[best, ..., 0] / 255)
    np.testing.assert_allclose(shown[10], reconstructions[best, ..., 0])
    np.testing.assert_allclose(shown[20], images[39 - best, ..., 0] / 255)
    words = texts(figure)
    assert words.index("best") < words.index("worst")
    assert words.count("0.0390") == words.count("39") == 1
    assert plots.UNITS[score] in words[1]


def test_training_curves_show_the_floor_and_the_excess() -> None:
    epochs = list(range(1, 26))
    losses = [0.06 + 0.2 / epoch for epoch in epochs]
    rates = [1e-3] * 25
    history: dict[str, Any] = {
        "epoch": epochs,
        "loss": losses,
        "val_loss": losses,
        "learning_rate": rates,
    }
    left, right = panels(plots.training_curves(history, DATA, floor=0.0586))
    lines = {line.get_label(): line for line in left.lines}
    assert set(lines) == {"loss", "val_loss", "floor 0.0586"}
    assert heights(lines["loss"]) == losses
    assert lines["floor 0.0586"].get_linestyle() == "--"
    assert heights(right.lines[0]) == [loss - 0.0586 for loss in losses]
    assert right.get_yscale() == "log"
    assert "nats per pixel" in left.get_title(loc="left")
    assert all(axes.get_xlabel() == "epoch" for axes in (left, right))

    history["learning_rate"] = [1e-3 / epoch for epoch in epochs]
    third = panels(plots.training_curves(history, DATA, floor=0.0586))[2]
    assert third.get_title(loc="left") == "learning rate"
    assert heights(third.lines[0]) == history["learning_rate"]


def test_training_curves_of_one_epoch_without_a_floor() -> None:
    history: dict[str, Any] = {"epoch": [1], "loss": [0.07], "val_loss": [0.0651]}
    left, right = panels(plots.training_curves(history, DATA, loss="mean squared error", unit=""))
    assert {line.get_label() for line in left.lines} == {"loss", "val_loss"}
    assert all(line.get_marker() == "o" for line in (*left.lines, *right.lines))
    assert [label.get_text() for label in right.get_yticklabels()] == ["0.05", "0.1"]
    assert right.get_title(loc="left") == "val_loss (log scale)"
    assert left.get_title(loc="left") == "mean squared error"


def test_training_curves_survive_a_loss_that_is_no_number() -> None:
    history: dict[str, Any] = {"epoch": [1, 2], "loss": [math.nan] * 2, "val_loss": [math.nan] * 2}
    plots.training_curves(history, DATA, floor=0.05).canvas.draw()


def test_feature_maps_state_the_size_of_the_code() -> None:
    images, reconstructions, _ = arrays(2)
    codes = np.zeros((2, 22, 22, 8), np.float32)
    codes[..., 1] = 3.5
    figure = plots.feature_maps(images, codes, reconstructions, DATA)
    assert "code 22x22x8 = 3,872 numbers for 784 pixels (4.94 times more)" in texts(figure)[1]
    assert len(pictures(figure)) == 2 * (1 + 8 + 1)
    assert "3.5" in texts(figure)

    color, same, _ = arrays(1, 32, 3)
    code = np.random.default_rng(0).normal(size=(1, 4, 4, 48)).astype(np.float32)
    figure = plots.feature_maps(color, code, same, DATA)
    said = " ".join(texts(figure)[1:3])
    assert "code 4x4x48 = 768 numbers for 3,072 pixel values (4 times fewer)" in said
    assert "16 of 48 channels shown" in said
    assert len(pictures(figure)) == 18


def test_files_are_whole_small_and_the_same_twice(noted: dict[str, Figure], tmp_path: Path) -> None:
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


def test_the_users_own_settings_change_nothing_and_are_kept(tmp_path: Path) -> None:
    images, reconstructions, _ = arrays(3)
    codes = np.ones((3, 5, 5, 2), np.float32)

    def draw() -> Figure:
        return plots.feature_maps(images, codes, reconstructions, "5$ and 6$")

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
