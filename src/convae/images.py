"""Arrays from a folder of PNG and JPEG files, and images of another size."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from convae.errors import UserError
from convae.formats import Arrays, Side, empty

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUFFIXES = {".png", ".jpg", ".jpeg"}
MAX_PIXELS = 50_000_000  # of one image; above it a small file may be made to fill the memory
_IGNORED = re.compile(
    r"(\..*|thumbs\.db|desktop\.ini|__macosx|(readme|license|licence)(\..*)?)", re.IGNORECASE
)


def read_folder(
    folder: Path, side: Side, shape: tuple[int, int, int], resize: tuple[int, int] | None
) -> Arrays:
    """The images of one side as `shape` (height, width, channels), resized if `resize` is set.

    Where there are folders train/ and test/, each is one side; otherwise both sides get all images.
    The next folder level names the classes; with an image outside such folders there are none.
    The order is that of the paths' SHA-256, so that any cut through it finds every class on both
    sides. Raises UserError for no image, a broken one, a file of another kind, sizes that differ
    or are not `shape`, and links that lead out of the folder.
    """
    parts = {p.name for p in folder.iterdir() if p.is_dir() and not _IGNORED.fullmatch(p.name)}
    split = "train" in parts and ("test" in parts or len(parts) == 1)
    whole = "test" not in parts if split else True
    root = folder / ("train" if whole else side) if split else folder
    paths = _files(root, folder)
    relative = [path.relative_to(root) for path in paths]
    images = _decode(paths, folder, shape, resize)
    if min(len(path.parts) for path in relative) == 1:
        return Arrays(images, None, None, whole)
    # Both sides number the classes alike, even if one of them lacks some.
    roots = [folder / part for part in ("train", "test") if part in parts] if split else [root]
    names = {path.parts[0] for path in relative} | {
        p.name for r in roots for p in r.iterdir() if p.is_dir() and not _IGNORED.fullmatch(p.name)
    }
    classes = sorted(names, key=lambda n: (not n.isdecimal(), int(n) if n.isdecimal() else 0, n))
    index = {name: i for i, name in enumerate(classes)}
    labels = np.array([index[path.parts[0]] for path in relative], np.int64)
    return Arrays(images, labels, tuple(classes), whole)


def _files(root: Path, folder: Path) -> list[Path]:
    """The image files below `root`, in their order; every other file that matters is an error."""
    found: list[Path] = []
    others: list[Path] = []
    _refuse_outside(root, folder)
    for parent, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not _IGNORED.fullmatch(name))
        for name in [*folders, *sorted(names)]:
            path = Path(parent, name)
            if _IGNORED.fullmatch(name):
                continue
            _refuse_outside(path, folder)
            if not path.is_dir():
                good = path.suffix.lower() in SUFFIXES and path.is_file()
                (found if good else others).append(path)
    if not found:
        has = f" Received: {len(others):,} other files, such as {others[0].name}" if others else ""
        raise UserError(f"{root}: holds no images (.png, .jpg, .jpeg) and no IDX files.{has}")
    if others:
        raise UserError(_no_images(others, len(found), "only .png, .jpg and .jpeg are"))
    order = {path: os.fsencode(path.relative_to(root).as_posix()) for path in found}
    return sorted(found, key=lambda path: hashlib.sha256(order[path]).digest())


def _refuse_outside(path: Path, folder: Path) -> None:
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{path}: a link that leads out of the folder, to {path.resolve()}, is refused. "
            "Copy what it points to"
        )


def _no_images(bad: list[Path], good: int, reason: str) -> str:
    more = f", and neither are {len(bad) - 1:,} other files" if len(bad) > 1 else ""
    return (
        f"{min(bad)}: is no image ({reason}){more}; {good:,} files here are images. "
        "Move what is none elsewhere"
    )


def _decode(
    paths: list[Path], folder: Path, shape: tuple[int, int, int], resize: tuple[int, int] | None
) -> NDArray[np.uint8]:
    height, width, channels = shape
    images = empty((len(paths), *shape), folder)
    broken: dict[Path, str] = {}
    sizes: dict[tuple[int, int], list[Path]] = defaultdict(list)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's doubts; what matters is checked here
        for i, path in enumerate(tqdm(paths, "images", delay=2, leave=False, disable=None)):
            try:
                image = _open(path, channels)
            except Exception as error:  # Pillow's decoders raise nearly anything at damaged bytes
                broken[path] = str(error).replace(f" {str(path)!r}", "")
                continue
            sizes[image.height, image.width].append(path)
            if resize:
                image = image.resize((width, height), Image.Resampling.BILINEAR)
            if image.size == (width, height):
                images[i] = np.asarray(image).reshape(shape)
    if broken:
        raise UserError(_no_images(list(broken), len(paths) - len(broken), broken[min(broken)]))
    _check_sizes(sizes, folder, shape, resize)
    return images


def _open(path: Path, channels: int) -> Image.Image:
    with Image.open(path, formats=("PNG", "JPEG")) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} is more than {MAX_PIXELS:,} pixels")
        image.load()
        upright = ImageOps.exif_transpose(image)  # as a viewer shows it
        if upright.mode.startswith("I"):  # 16 bits, which convert() would clip instead of scale
            upright = Image.fromarray((np.asarray(upright) // 257).clip(0, 255).astype(np.uint8))
        return upright.convert("L" if channels == 1 else "RGB")


def _check_sizes(
    sizes: dict[tuple[int, int], list[Path]],
    folder: Path,
    shape: tuple[int, int, int],
    resize: tuple[int, int] | None,
) -> None:
    if resize:
        return
    height, width, channels = shape
    mend = f"set data.resize to [{height},{width}]"
    if len(sizes) > 1:
        common = sorted(sizes, key=lambda size: -len(sizes[size]))
        named = " and ".join(
            f"{len(sizes[s]):,} of {s[0]} x {s[1]}, such as {sizes[s][0].relative_to(folder)},"
            for s in common[:2]
        )
        more = f" and {len(sizes) - 2:,} further sizes," if len(sizes) > 2 else ""
        raise UserError(
            f"{folder}: images of different sizes (height x width): {named}{more} "
            f"where one is needed; {mend}"
        )
    ((high, wide),) = sizes
    if (high, wide) != (height, width):
        raise UserError(
            f"{folder}: the images are {high} x {wide} (height x width), but model.input_shape is "
            f"{list(shape)}; {mend} or "
            f"model.input_shape to [{high},{wide},{channels}]"
        )


def resized(images: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Images (N, H, W, C) at another `size` (height, width), antialiased."""
    result = empty((len(images), *size, images.shape[3]), "data.resize")
    for image, target in zip(images, result, strict=True):
        picture = Image.fromarray(image.squeeze(-1) if image.shape[2] == 1 else image)
        small = picture.resize(size[::-1], Image.Resampling.BILINEAR)
        target[:] = np.asarray(small).reshape(target.shape)
    return result
