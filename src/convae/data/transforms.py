"""Decode, resize, crop and encode images."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageOps

from convae.arrays import Images

ResizeMode = Literal["crop", "stretch"]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
MAX_PIXELS = 50_000_000  # of one image: a small file can hold an image that fills the memory
MAX_WORK = 1_000_000_000  # pixels times scans: each scan of a progressive JPEG decodes all pixels

_RESIZE: dict[ResizeMode, Callable[..., Image.Image]] = {
    "crop": ImageOps.fit,
    "stretch": Image.Image.resize,
}


def decode(
    path: Path | BinaryIO, channels: int, resize: tuple[int, int] | None, resize_mode: ResizeMode
) -> Images:
    """Return the image of a file, upright; of an animation, its first frame.

    Args:
        path: A file, or its name, in one of `FORMATS`.
        channels: 1 for grayscale or 3 for RGB.
        resize: Height and width of the result, or None for those of the file.
        resize_mode: As in `resize_images`.

    Returns:
        uint8 (H, W, C).

    Raises:
        Exception: The file is damaged; Pillow's decoders raise almost any class.
    """
    with Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} is more than {MAX_PIXELS:,} pixels")
        if image.format == "JPEG" and image.fp:
            image.fp.seek(0)
            scans = image.fp.read().count(b"\xff\xda")  # these bytes never occur in coded pixels
            if scans * image.width * image.height > MAX_WORK:
                raise ValueError(f"{scans:,} scans of {image.width} x {image.height} pixels")
        if resize:  # a JPEG can be decoded at a half, a quarter or an eighth of its size
            image.draft(None, (2 * max(resize), 2 * max(resize)))
        image.load()
        upright = ImageOps.exif_transpose(image)
        if upright.mode == "F":
            raise ValueError("its pixels are floats, whose range is not known")
        if upright.mode.startswith("I"):  # 16 bits, which convert() clips instead of scaling
            upright = Image.fromarray((np.asarray(upright) // 257).clip(0, 255).astype(np.uint8))
        result = upright.convert("L" if channels == 1 else "RGB")
        if resize:
            result = _RESIZE[resize_mode](result, resize[::-1], Image.Resampling.BILINEAR)
        return np.asarray(result).reshape(result.height, result.width, channels)


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
        resized = _RESIZE[resize_mode](source, size[::-1], Image.Resampling.BILINEAR)
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
