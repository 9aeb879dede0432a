"""Read an image file as the images of a run: upright, gray or RGB, 8 bits, without transparency.

Training, evaluation, `predict`, the demo and the Python API all use one class, so that a model gets
the pixels that it was trained on.
"""

from __future__ import annotations

import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from convae.arrays import Images, Shape
from convae.config.schema import Data
from convae.console import logger
from convae.data.transforms import crop_center, resize_image
from convae.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
MAX_PIXELS = 50_000_000  # of one image: a small file can hold an image that fills the memory
MAX_WORK = 1_000_000_000  # pixels times scans: each scan of a progressive JPEG decodes all pixels

PHOTOMETRIC, SAMPLE_FORMAT = 262, 339  # TIFF tags


class ImageReader:
    """Reads image files as a config's section `data` says, and counts what their pixels lose.

    Args:
        data: The section `data`.
        shape: Height, width and channels of the model's images; 1 channel is gray, 3 are RGB.
    """

    def __init__(self, data: Data, shape: Shape) -> None:
        self.data = data
        self.shape = shape
        self._losses: Counter[str] = Counter()
        self._lock = threading.Lock()  # folders are read in threads

    def read(self, file: Path | BinaryIO, *, as_is: Shape | None = None) -> Images:
        """Return an image of `shape`, with the pixels that validation and test images have.

        Files that training would refuse for their size are resized to `shape`, except with
        `data.crop`, which takes the center.

        Args:
            file: A file, or its name, in one of `FORMATS`.
            as_is: A further shape of the result: an image that has it is not resized.

        Raises:
            Exception: As `decode`; or the image is smaller than the crop.
        """
        keeps_size = self.data.crop and not self.data.resize
        size = None if keeps_size else self.data.resize or self.shape[:2]
        image = self._decode(file, size, as_is)
        if image.shape == as_is:
            return image
        return np.asarray(crop_center(image[None], self.shape)[0])

    def decode(self, file: Path | BinaryIO, *, resize: bool = True) -> Images:
        """Return the image of a file, before a crop; of several frames or pages, the first.

        Args:
            file: A file, or its name, in one of `FORMATS`.
            resize: Whether to resize the image to `data.resize`.

        Returns:
            uint8 (H, W, C).

        Raises:
            Exception: The file is damaged, or the range of its values is not known; Pillow's
                decoders raise almost any class.
        """
        return self._decode(file, self.data.resize if resize else None)

    def log_losses(self, total: int) -> None:
        """Log how many of `total` images lost something since the last call."""
        for text, count in self._losses.items():
            logger.warning(f"{count:,} of {total:,} images {text}")
        self._losses.clear()

    def _decode(
        self, file: Path | BinaryIO, size: tuple[int, int] | None, as_is: Shape | None = None
    ) -> Images:
        with Image.open(file, formats=FORMATS) as opened:
            _check_cost(opened)
            if size:  # a JPEG can be decoded at a half, a quarter or an eighth of its size
                opened.draft(None, (2 * max(size), 2 * max(size)))
            raw_mode = _raw_mode(opened)
            levels = _gray_levels(opened, raw_mode)
            opened.load()
            image = ImageOps.exif_transpose(opened)
            several = _has_more_frames(opened)
        composed = _composite(image, raw_mode, levels, self.data.background)
        if composed:
            color = list(self.data.background)
            self._count(f"have transparent pixels: they are drawn on data.background, {color}")
        if several:
            self._count("have more than one frame or page: only the first is used")
        channels = self.shape[2]
        plain = composed or _to_8_bits(image, levels)
        result = plain.convert("L" if channels == 1 else "RGB")
        if size and (result.height, result.width, channels) != as_is:
            result = resize_image(result, size, self.data.resize_mode)
        return np.asarray(result).reshape(result.height, result.width, channels)

    def _count(self, loss: str) -> None:
        with self._lock:
            self._losses[loss] += 1


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what is raised for an image file into a DataError; Pillow's warnings are hidden."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # below the limits of `ImageReader`
            yield
    except Exception as error:  # Pillow's decoders raise almost any class at damaged bytes
        raise DataError(f"{path}: this image cannot be read: {error}") from None


def _check_cost(image: ImageFile) -> None:
    """Raise ValueError for an image that would take too much memory or time."""
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} is more than {MAX_PIXELS:,} pixels")
    if image.format in {"JPEG", "MPO"} and image.fp:
        image.fp.seek(0)
        scans = image.fp.read().count(b"\xff\xda")  # these bytes never occur in coded pixels
        if scans * image.width * image.height > MAX_WORK:
            raise ValueError(f"{scans:,} scans of {image.width} x {image.height} pixels")


def _has_more_frames(image: ImageFile) -> bool:
    """Return whether a loaded image is the first of several frames or pages of its file."""
    if image.format == "MPO":  # its other images are previews and depth maps
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # GIF: the second frame is damaged
        return True


def _raw_mode(image: ImageFile) -> str:
    """Return Pillow's name for the file's pixels, such as "L;4"; the image is not yet loaded."""
    arguments = image.tile[0].args if image.tile else None
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return str(first)


def _gray_levels(image: ImageFile, raw_mode: str) -> NDArray[np.uint8] | None:
    """Return the gray level, 0 to 255, of each value of an image of 12 or 16 bits.

    Args:
        image: An image that is not yet loaded.
        raw_mode: See `_raw_mode`.

    Returns:
        The levels, or None for an image of 8 bits or fewer, which Pillow converts correctly.

    Raises:
        ValueError: The range of the values is not known.
    """
    tags: Any = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    kind = None
    if image.mode == "F":
        kind = "floats"
    elif 2 in np.ravel(tags.get(SAMPLE_FORMAT, 1)):
        kind = "signed integers"
    elif image.mode == "I" and image.format != "PNG":  # PNG has at most 16 bits
        kind = "integers of 32 bits"
    if kind:
        raise ValueError(f"its pixels are {kind}, whose range is not known; save 8 or 16 bits")
    if not image.mode.startswith("I"):
        return None
    highest = 4095 if raw_mode == "I;12" else 65535
    levels = (np.arange(highest + 1) * 255 // highest).astype(np.uint8)
    return levels[::-1] if tags.get(PHOTOMETRIC) == 0 else levels  # 0: the lowest value is white


def _to_8_bits(image: Image.Image, levels: NDArray[np.uint8] | None) -> Image.Image:
    """Return an image in a mode that Pillow converts to gray and to RGB."""
    if levels is not None:
        return Image.fromarray(levels[np.asarray(image)])
    return image.convert("RGB") if image.mode == "LAB" else image


def _composite(
    image: Image.Image,
    raw_mode: str,
    levels: NDArray[np.uint8] | None,
    background: tuple[int, int, int],
) -> Image.Image | None:
    """Return an image on a background, in RGB; None if it has no transparent pixel."""
    if not image.has_transparency_data:
        return None
    if image.mode in {"1", "L", "RGB"} or levels is not None:
        opacity = _opacity(image, raw_mode)
        del image.info["transparency"]  # Pillow would convert it, too
        layer = _to_8_bits(image, levels).convert("RGB")
        layer.putalpha(opacity)
    else:
        layer = image.convert("RGBA")
    lowest, _ = layer.getchannel("A").getextrema()
    if lowest == 255:
        return None
    ground = Image.new("RGBA", layer.size, (*background, 255))
    ground.alpha_composite(layer)
    return ground.convert("RGB")


def _opacity(image: Image.Image, raw_mode: str) -> Image.Image:
    """Return the opacity of an image that has one transparent value.

    Pillow gives this value in the bits of the file, and the pixels of gray and RGB in 8 bits.
    """
    value: Any = image.info["transparency"]
    if image.mode == "1":
        image, value = image.convert("L"), 255 * bool(value)
    elif raw_mode in {"L;2", "L;4"}:
        value *= 85 if raw_mode == "L;2" else 17
    elif raw_mode == "RGB;16B":
        value = [number >> 8 for number in value]
    different = np.asarray(image) != np.array(value)
    if image.mode == "RGB":
        different = different.any(axis=2)
    return Image.fromarray(different.astype(np.uint8) * np.uint8(255))
