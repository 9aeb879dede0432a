"""Folders of image files, their sizes, and crops. What is decoded is kept by pack.py."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageOps

from convae.data.readers import SplitName, empty
from convae.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

Shape = tuple[int, int, int]  # height, width, channels
ResizeMode = Literal["crop", "stretch"]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
MAX_PIXELS = 50_000_000  # of one image; above it a small file may be made to fill the memory
MAX_WORK = 1_000_000_000  # pixels times scans: a progressive JPEG may go over them again and again
_IGNORED = re.compile(
    r"(\..*|thumbs\.db|desktop\.ini|__macosx|(readme|license|licence)(\..*)?)", re.IGNORECASE
)


@dataclass(frozen=True)
class Listing:
    """The image files of one side in their order; none of them has been opened."""

    folder: Path
    root: Path  # the folder itself, or train/ or test/ in it
    names: list[str]  # relative to `root`
    labels: NDArray[np.int64] | None  # (N,), each an index into `classes`
    classes: tuple[str, ...] | None
    whole: bool  # True: there is no test split, so these serve both sides
    stamp: str  # another one if a file was added, removed, renamed or written to


def list_folder(folder: Path, side: SplitName) -> Listing:
    """What `folder` holds for one side.

    Where there are folders train/ and test/, each is one side; otherwise both sides get all images.
    The next folder level names the classes; with an image outside such folders there are none.
    The order is that of the paths' SHA-256, so that any cut through it finds every class on both
    sides. Raises DataError for no image, a file of another kind, and links that lead out of the
    folder.
    """
    parts = {p.name for p in folder.iterdir() if p.is_dir() and not _IGNORED.fullmatch(p.name)}
    split = "train" in parts and ("test" in parts or len(parts) == 1)
    whole = "test" not in parts if split else True
    root = folder / ("train" if whole else side) if split else folder
    names, stamp = list_files(root, folder)
    if not all("/" in name for name in names):
        return Listing(folder, root, names, None, None, whole, stamp)
    # Both sides number the classes alike, even if one of them lacks some.
    roots = [folder / part for part in ("train", "test") if part in parts] if split else [root]
    found = {name.split("/", 1)[0] for name in names} | {
        p.name for r in roots for p in r.iterdir() if p.is_dir() and not _IGNORED.fullmatch(p.name)
    }
    classes = sorted(found, key=lambda n: (not n.isdecimal(), int(n) if n.isdecimal() else 0, n))
    index = {name: i for i, name in enumerate(classes)}
    labels = np.array([index[name.split("/", 1)[0]] for name in names], np.int64)
    return Listing(folder, root, names, labels, tuple(classes), whole, stamp)


def list_files(root: Path, folder: Path) -> tuple[list[str], str]:
    """The image files below `root` and their stamp; every other file that matters is an error."""
    found: list[tuple[bytes, str, str]] = []
    others: list[str] = []
    _refuse_outside(root, folder)
    for entry in _walk(root, folder):
        name = entry.path[len(str(root)) + 1 :]
        if entry.name.lower().endswith(SUFFIXES) and entry.is_file():
            state = entry.stat()
            stamp = f"{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns}"
            found.append((hashlib.sha256(os.fsencode(name)).digest(), name, stamp))
        else:
            others.append(name)
    if not found:
        has = f" Received: {len(others):,} other files, such as {others[0]}" if others else ""
        kinds = ", ".join(SUFFIXES)
        raise DataError(f"{root}: holds no images ({kinds}) and no IDX files.{has}")
    if others:
        raise DataError(
            no_images(root, others, len(found), f"only {', '.join(SUFFIXES[:-1])} and .tiff are")
        )
    found.sort()
    digest = hashlib.sha256()
    for hashed, _, stamp in found:
        digest.update(hashed + stamp.encode() + b"\n")
    return [name for _, name, _ in found], digest.hexdigest()


def _walk(folder: Path, top: Path) -> Iterator[os.DirEntry[str]]:
    """All files below `folder`, links to files of it included."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if _IGNORED.fullmatch(entry.name):
                continue
            if entry.is_symlink():
                _refuse_outside(Path(entry.path), top)
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), top)
            elif not entry.is_dir():
                yield entry


def _refuse_outside(path: Path, folder: Path) -> None:
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(
            f"{path}: a link that leads out of the folder, to {path.resolve()}, is refused. "
            "Copy what it points to"
        )


def no_images(root: Path, bad: Sequence[str], good: int, reason: str) -> str:
    """The message about files that are no images."""
    more = f", and neither are {len(bad) - 1:,} other files" if len(bad) > 1 else ""
    return (
        f"{root / min(bad)}: is no image ({reason}){more}; {good:,} files here are images. "
        "Move what is none elsewhere"
    )


def decode(
    path: Path | BinaryIO, channels: int, resize: tuple[int, int] | None, resize_mode: ResizeMode
) -> NDArray[np.uint8]:
    """One image file as (H, W, C), upright, of the size `resize` (height, width) if that is set.

    Of an animation it is the first frame. Raises nearly anything at damaged bytes, as Pillow does.
    """
    mode = "L" if channels == 1 else "RGB"
    with Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} is more than {MAX_PIXELS:,} pixels")
        if image.format == "JPEG":
            whole = path.read_bytes() if isinstance(path, Path) else _whole(path)
            scans = whole.count(b"\xff\xda")  # never inside the coded pixels
            if scans * image.width * image.height > MAX_WORK:
                raise ValueError(f"{scans:,} scans of {image.width} x {image.height} pixels")
        if resize:  # a JPEG can be decoded at half, a quarter or an eighth of its size
            image.draft(None, (2 * max(resize), 2 * max(resize)))
        image.load()
        upright = ImageOps.exif_transpose(image)  # as a viewer shows it
        if upright.mode == "F":
            raise ValueError("its pixels are floats, whose range is not known")
        if upright.mode.startswith("I"):  # 16 bits, which convert() would clip instead of scale
            upright = Image.fromarray((np.asarray(upright) // 257).clip(0, 255).astype(np.uint8))
        picture = upright.convert(mode)
        if resize:
            picture = _fitted(picture, resize, resize_mode)
        return np.asarray(picture).reshape(picture.height, picture.width, channels)


def png(picture: NDArray[np.uint8], compress_level: int = 6) -> bytes:
    """A picture (H, W, C), C 1 to 4, as a PNG file; a second or fourth channel is opacity."""
    data = io.BytesIO()
    image = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
    image.save(data, "PNG", compress_level=compress_level)
    return data.getvalue()


def _whole(file: BinaryIO) -> bytes:
    """All bytes of an open file, which stays where it was."""
    place = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(place)
    return content


def check_sizes(
    listing: Listing,
    sizes: Mapping[tuple[int, int], Sequence[str]],
    shape: Shape,
    *,
    crop: bool = False,
) -> None:
    """Raise DataError unless every one of `sizes`, which name their files, is that of `shape`."""
    height, width, channels = shape
    folder = listing.folder
    mend = f"set data.resize to [{height},{width}]"
    if len(sizes) > 1:
        common = sorted(sizes, key=lambda size: -len(sizes[size]))
        named = " and ".join(
            f"{len(sizes[s]):,} of {s[0]} x {s[1]}, such as {sizes[s][0]}," for s in common[:2]
        )
        more = f" and {len(sizes) - 2:,} further sizes," if len(sizes) > 2 else ""
        if crop:
            mend = "set data.resize to one, at least that of model.input_shape"
        raise DataError(
            f"{folder}: images of different sizes (height x width): {named}{more} "
            f"where one is needed; {mend}"
        )
    ((high, wide),) = sizes
    if (high, wide) != (height, width):
        raise DataError(
            f"{folder}: the images are {high} x {wide} (height x width), but model.input_shape is "
            f"{list(shape)}; {mend} or "
            f"model.input_shape to [{high},{wide},{channels}]"
        )


def resized(
    images: NDArray[np.uint8], size: tuple[int, int], resize_mode: ResizeMode = "crop"
) -> NDArray[np.uint8]:
    """Images (N, H, W, C) at another `size` (height, width), antialiased, in memory.

    `crop` keeps the aspect: the largest middle part of that shape. `stretch` takes all.
    """
    result = empty((len(images), *size, images.shape[3]), "data.resize")
    for index, target in enumerate(result):
        image = images[index]
        picture = Image.fromarray(image.squeeze(-1) if image.shape[2] == 1 else image)
        target[:] = np.asarray(_fitted(picture, size, resize_mode)).reshape(target.shape)
    return result


def _fitted(picture: Image.Image, size: tuple[int, int], resize_mode: ResizeMode) -> Image.Image:
    if resize_mode == "crop":
        return ImageOps.fit(picture, size[::-1], Image.Resampling.BILINEAR)
    return picture.resize(size[::-1], Image.Resampling.BILINEAR)


def crop_random(
    images: NDArray[np.uint8], shape: Sequence[int], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """A part of `shape` (height, width, ...) of each image (N, H, W, C), at a place of its own.

    Every place is as likely as any other. Two draws of N numbers each are taken from `rng`, also
    where there is only one place. Raises ValueError where the images are smaller.
    """
    height, width = _check_crop(images, shape)
    tops = rng.integers(0, images.shape[1] - height + 1, len(images))
    lefts = rng.integers(0, images.shape[2] - width + 1, len(images))
    windows = sliding_window_view(images, (height, width, images.shape[3]), axis=(1, 2, 3))
    return np.asarray(windows[np.arange(len(images)), tops, lefts, 0])


def crop_center(images: NDArray[np.uint8], shape: Sequence[int]) -> NDArray[np.uint8]:
    """The middle of each image (N, H, W, C) in `shape` (height, width, ...), as a view.

    Where no pixel is the middle it lies half a pixel above and left of it. Raises ValueError where
    the images are smaller.
    """
    height, width = _check_crop(images, shape)
    top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
    return images[:, top : top + height, left : left + width]


def _check_crop(images: NDArray[np.uint8], shape: Sequence[int]) -> tuple[int, int]:
    height, width = shape[:2]
    if not (1 <= height <= images.shape[1] and 1 <= width <= images.shape[2]):
        raise ValueError(
            f"a crop of {height} x {width} does not fit into images of {images.shape[1]} x "
            f"{images.shape[2]} (height x width)"
        )
    return height, width
