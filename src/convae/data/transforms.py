"""Resize, crop and encode images."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageOps

from convae.arrays import Images

ResizeMode = Literal["crop", "stretch"]

_RESIZE: dict[ResizeMode, Callable[..., Image.Image]] = {
    "crop": ImageOps.fit,
    "stretch": Image.Image.resize,
}


def resize_image(image: Image.Image, size: tuple[int, int], resize_mode: ResizeMode) -> Image.Image:
    """Return one image of Pillow at another size; see `resize_images`."""
    return _RESIZE[resize_mode](image, size[::-1], Image.Resampling.BILINEAR)


def resize_images(
    images: Images, size: tuple[int, int], resize_mode: ResizeMode = "crop"
) -> Images:
    """Return images at another size, antialiased, in memory.

    Args:
        images: uint8 (N, H, W, C).
        size: The new height and width.
        resize_mode: "crop" keeps the aspect ratio: it takes the largest centered rectangle with the
            ratio of `size`. "stretch" takes the complete image.

    Raises:
        MemoryError: The result does not fit into memory.
    """
    result = np.empty((len(images), *size, images.shape[3]), np.uint8)
    for index, target in enumerate(result):
        image = images[index]
        source = Image.fromarray(image.squeeze(-1) if image.shape[2] == 1 else image)
        resized = resize_image(source, size, resize_mode)
        target[:] = np.asarray(resized).reshape(target.shape)
    return result


def crop_random(images: Images, shape: Sequence[int], rng: np.random.Generator) -> Images:
    """Return a random crop of each image.

    All positions have the same probability. Two arrays of N numbers are drawn from `rng`, also
    where there is only one position.

    Args:
        images: uint8 (N, H, W, C).
        shape: Height and width of the crops; further elements are ignored.
        rng: The source of the positions.

    Raises:
        ValueError: The images are smaller than `shape`.
    """
    height, width = _check_crop(images, shape)
    tops = rng.integers(0, images.shape[1] - height + 1, len(images))
    lefts = rng.integers(0, images.shape[2] - width + 1, len(images))
    windows = sliding_window_view(images, (height, width, images.shape[3]), axis=(1, 2, 3))
    return np.asarray(windows[np.arange(len(images)), tops, lefts, 0])


def crop_center(images: Images, shape: Sequence[int]) -> Images:
    """Return a view of the center of each image; a remainder of one pixel is cut at the end.

    Args and errors are those of `crop_random`.
    """
    height, width = _check_crop(images, shape)
    top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
    return images[:, top : top + height, left : left + width]


def _check_crop(images: Images, shape: Sequence[int]) -> tuple[int, int]:
    height, width = shape[:2]
    if not (1 <= height <= images.shape[1] and 1 <= width <= images.shape[2]):
        raise ValueError(
            f"a crop of {height} x {width} does not fit into images of {images.shape[1]} x "
            f"{images.shape[2]} (height x width)"
        )
    return height, width


def png(image: Images, compress_level: int = 6) -> bytes:
    """Return a gray or RGB image (H, W, C), with or without an opacity channel, as a PNG file."""
    data = io.BytesIO()
    plain = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    plain.save(data, "PNG", compress_level=compress_level)
    return data.getvalue()
