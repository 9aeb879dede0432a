from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from convae.plots import segmentation, style
from convae.tasks.segment import color_classes
from tests.plots.test_image_grids import (
    DATA,
    DIGITS,
    NOTE,
    assert_readable,
    panels,
    pictures,
    texts,
)

NAMES = [*DIGITS, "background"]


def scenes(count: int = 9, classes: int = 11) -> tuple[Any, Any, Any]:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (count, 64, 64, 3), np.uint8)
    truth = generator.integers(0, classes, (count, 64, 64), np.uint8)
    found = truth.copy()
    found[:, :32] = classes - 1
    return pixels, truth, found


def test_classes_have_different_colors_and_the_background_is_dark() -> None:
    colors = color_classes(np.arange(11).reshape(1, 1, 11), 11)
    assert colors.shape == (1, 1, 11, 3)
    assert len(np.unique(colors.reshape(-1, 3), axis=0)) == 11
    np.testing.assert_allclose(colors[0, 0, -1] / 255, to_rgb(style.INK))
    many = color_classes(np.arange(30).reshape(1, 1, 30), 30)
    assert len(np.unique(many.reshape(-1, 3), axis=0)) == 30


def test_the_grid_has_scene_truth_prediction_and_wrong_pixels(tmp_path: Path) -> None:
    pixels, truth, found = scenes()
    figure = segmentation.segmentation_grid(pixels, truth, found, NAMES, DATA, NOTE)
    shown = pictures(figure)
    assert len(shown) == 4 * segmentation.COLUMNS
    np.testing.assert_allclose(shown[0], pixels[0] / 255)
    np.testing.assert_allclose(shown[7], color_classes(truth[0], 11) / 255)
    np.testing.assert_allclose(shown[14], color_classes(found[0], 11) / 255)
    wrong = (shown[21] == to_rgb(style.VERMILION)).all(axis=-1)
    np.testing.assert_array_equal(wrong, truth[0] != found[0])
    words = texts(figure)
    assert set(NAMES) <= set(words)
    assert f"{(truth[0] != found[0]).mean():.1%}" in words
    assert words[1].startswith(DATA)
    assert NOTE in words
    assert_readable("segmentations", figure, tmp_path)
    one = segmentation.segmentation_grid(pixels[:1], truth[:1], found[:1], NAMES, DATA)
    assert_readable("one scene", one, tmp_path)


@pytest.mark.parametrize("names", [NAMES, [f"class {i}" for i in range(11)]], ids=["short", "long"])
def test_confusion_is_in_percent_of_the_true_class(names: list[str], tmp_path: Path) -> None:
    counts = np.full((11, 11), 5.0)
    np.fill_diagonal(counts, 950)
    counts[3] = 0  # never seen
    figure = segmentation.confusion_matrix(counts, names, DATA, NOTE)
    (axes,) = panels(figure)
    shares = np.asarray(axes.images[0].get_array())
    assert shares[0, 0] == pytest.approx(95)
    assert shares[0].sum() == pytest.approx(100)
    assert shares[3].sum() == 0
    assert "95.0" in texts(figure)
    assert_readable("confusion", figure, tmp_path)
