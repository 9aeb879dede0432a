from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from convae.plots import latent as latent_plots
from convae.plots import style
from convae.tasks.segment import CLASS_COLORS
from tests.plots.test_image_grids import (
    DATA,
    DIGITS,
    NOTE,
    arrays,
    assert_readable,
    panels,
    pictures,
    texts,
)


def test_a_map_has_a_point_for_each_code(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(200) % 10
    circle = np.stack([np.cos(labels * 0.63), np.sin(labels * 0.63)], axis=1)
    points = (10 * circle + generator.normal(0, 0.3, (200, 2))).astype(np.float32)
    maps = {"PCA of the codes: two of 32 axes, 28% of the variance": points, "UMAP": points}
    figure = latent_plots.code_maps(maps, labels, DIGITS, DATA, NOTE)
    left, _ = panels(figure)
    offsets = np.asarray(left.collections[0].get_offsets())
    np.testing.assert_allclose(offsets, points)
    colors = np.asarray(left.collections[0].get_facecolor())[:, :3]
    np.testing.assert_allclose(colors[3], to_rgb(CLASS_COLORS[3]))
    assert [text.get_text() for text in left.texts] == DIGITS
    assert NOTE in texts(figure)
    assert_readable("map", figure, tmp_path)
    plain = latent_plots.code_maps({"PCA": points}, None, (), DATA)
    assert not panels(plain)[0].texts
    assert_readable("plain", plain, tmp_path)


def test_interpolations_have_codes_above_pixels(tmp_path: Path) -> None:
    images, outputs, _ = arrays(11)
    strips = [("0 – 1", outputs, images), ("2 – 3", outputs, images)]
    figure = latent_plots.interpolations(strips, DATA, NOTE)
    shown = pictures(figure)
    assert len(shown) == 4 * 11
    np.testing.assert_allclose(shown[0], outputs[0, ..., 0])
    np.testing.assert_allclose(shown[11], images[0, ..., 0] / 255)
    assert {"0 – 1", "2 – 3", "code", "pixels", "0%", "50%", "100%"} <= set(texts(figure))
    assert_readable("strips", figure, tmp_path)


@pytest.mark.parametrize("channels", [1, 3])
def test_neighbors_are_beside_their_image(channels: int, tmp_path: Path) -> None:
    images, _, labels = arrays(40, 32, channels)
    queries = np.array([0, 1])
    near = {
        "nearest codes": np.array([[10, 20, 5], [11, 21, 31]]),
        "nearest pixels": queries[:, None] + [[2, 3, 4]],
    }
    figure = latent_plots.nearest_neighbors(images, queries, near, labels, DIGITS, DATA, NOTE)
    shown = pictures(figure)
    assert len(shown) == 2 * (1 + 2 * 3)
    np.testing.assert_allclose(shown[1].reshape(images[10].shape), images[10] / 255)
    other = [t for t in figure.axes[0].texts if t.get_color() == style.VERMILION]
    assert [t.get_text() for t in other] == ["5", "2", "3", "4", "3", "4", "5"]
    assert {"image", "nearest codes", "nearest pixels"} <= set(texts(figure))
    assert_readable("neighbors", figure, tmp_path)
    plain = latent_plots.nearest_neighbors(images, queries, near, None, (), DATA)
    assert "5" not in texts(plain)
    assert_readable("plain", plain, tmp_path)
