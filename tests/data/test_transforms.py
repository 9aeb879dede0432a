"""Images resized and cropped."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from convae.data import transforms


@given(
    hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 9)] * 3, st.sampled_from([1, 3]))),
    st.data(),
    st.integers(0, 2**32),
)
def test_a_crop_is_a_rectangle_of_its_own_image(
    x: NDArray[np.uint8], draw: st.DataObject, seed: int
) -> None:
    height, width = (draw.draw(st.integers(1, size)) for size in x.shape[1:3])
    shape = (height, width, x.shape[3])
    crops = transforms.crop_random(x, shape, np.random.default_rng(seed))
    assert crops.shape == (len(x), *shape)
    assert crops.flags.c_contiguous
    for crop, image in zip(crops, x, strict=True):
        places = [
            np.array_equal(crop, image[top : top + height, left : left + width])
            for top in range(x.shape[1] - height + 1)
            for left in range(x.shape[2] - width + 1)
        ]
        assert any(places)
    again = transforms.crop_random(x, shape, np.random.default_rng(seed))
    np.testing.assert_array_equal(crops, again)
    center = transforms.crop_center(x, shape)
    assert center.shape == crops.shape
    assert np.shares_memory(center, x)


def test_all_crop_positions_have_the_same_probability() -> None:
    x = np.broadcast_to(np.arange(30, dtype=np.uint8).reshape(1, 5, 6, 1), (30_000, 5, 6, 1))
    corners = transforms.crop_random(x, (3, 4), np.random.default_rng(0))[:, 0, 0, 0]
    counts = np.bincount(corners, minlength=30).reshape(5, 6)[:3, :3]
    assert counts.sum() == 30_000
    assert abs(counts / 30_000 * 9 - 1).max() < 0.06  # three standard deviations
    with pytest.raises(ValueError, match="a crop of 6 x 1 does not fit into images of 5 x 6"):
        transforms.crop_random(x, (6, 1), np.random.default_rng(0))
    with pytest.raises(ValueError, match="does not fit"):
        transforms.crop_center(x, (1, 7, 1))


def test_the_center_is_in_the_middle() -> None:
    x = np.arange(5 * 6, dtype=np.uint8).reshape(1, 5, 6, 1)
    np.testing.assert_array_equal(transforms.crop_center(x, (3, 2))[0, ..., 0], x[0, 1:4, 2:4, 0])
    np.testing.assert_array_equal(transforms.crop_center(x, (2, 3))[0, ..., 0], x[0, 1:3, 1:4, 0])


def test_an_unknown_resize_mode_is_refused() -> None:
    with pytest.raises(KeyError):
        transforms.resize_images(np.zeros((1, 4, 4, 1), np.uint8), (2, 2), "cover")  # type: ignore[arg-type]
