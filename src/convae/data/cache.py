"""Cache a folder of images: decoded once, as one memory-mapped .npy file.

An entry is two files in the cache folder: KEY.npy with the images, and KEY.json, written last, with
all else. KEY is a hash of the image files' names and bytes and of the size and background of the
images. A later start compares only the names, sizes and times of the image files with those in
KEY.json.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.lib import format as npy

from convae import files
from convae.arrays import Images, Shape
from convae.config.schema import Data
from convae.console import logger, printable, progress_bar
from convae.data.image_file import ImageReader
from convae.data.image_folder import Listing, check_sizes, list_folder, not_images
from convae.data.memmap import Mapped
from convae.data.readers import Arrays, images_digest, map_npy
from convae.data.split_names import SplitName
from convae.errors import ConvaeError, DataError
from convae.runtime.hardware import core_count

T = TypeVar("T")

VERSION = 2  # changes where the same files give other bytes
SPARE = 64 << 20  # bytes that must stay free on the disk


@dataclass(frozen=True)
class CacheEntry:
    """One split of a folder of images; the content of KEY.json."""

    version: int
    key: str
    folder: str  # of the image files
    stamp: str  # of the image files, see `Listing`
    settings: list[int | str]  # height, width, channels, background, `resize_mode` if resized
    count: int
    labels: list[int] | None
    classes: list[str] | None
    images_sha256: str
    sha256: str  # of the images and their labels
    bytes: int  # of the .npy file

    def path(self, cache: Path) -> Path:
        """Return the file of the images."""
        return cache / f"{self.key}.npy"

    @property
    def is_outdated(self) -> bool:
        """Whether another version of convae made the entry, so that this one does not use it."""
        return self.version != VERSION

    def is_current(self, listing: Listing) -> bool:
        """Return whether the images and classes are those of `listing`."""
        # The classes of the other splits number those of this one.
        return not self.is_outdated and (self.stamp, self.classes) == (
            listing.stamp,
            listing.classes and [*listing.classes],
        )

    def open(self, cache: Path) -> Mapped:
        """Map the images, or raise DataError if the size or the header of the file is wrong."""
        path = self.path(cache)
        images = map_npy(path)
        if images.shape != (self.count, *self.settings[:3]) or path.stat().st_size != self.bytes:
            raise DataError(f"{path}: not the images that were cached")
        return images

    def is_complete(self, cache: Path) -> bool:
        """Return whether the images are there, by size and header."""
        try:
            self.open(cache)
        except ConvaeError:
            return False
        return True

    def verify(self, cache: Path) -> bool:
        """Return whether every byte of the images is as it was written."""
        if not self.is_complete(cache):
            return False
        return images_digest(self.open(cache)).hexdigest() == self.images_sha256

    def remove(self, cache: Path) -> bool:
        """Delete the files, and return whether they could be deleted.

        A process that has them open can read on; on Windows it keeps them from being deleted.
        """
        try:
            for name in (f"{self.key}.npy", f"{self.key}.json", f".{self.key}.lock"):
                (cache / name).unlink(missing_ok=True)
        except PermissionError as error:
            logger.warning(f"{self.path(cache)}: cannot be removed now: {error.strerror}")
            return False
        return True


def cache_folder(data: Data) -> Path:
    """Return `data.cache`, by default convae/ in $XDG_CACHE_HOME or ~/.cache."""
    folder = data.cache or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "convae"
    try:
        return Path(folder).expanduser().absolute()
    except RuntimeError:
        reason = "this user has no home folder to cache images in"
        raise DataError(f"{reason}; data.cache can name another") from None


def list_entries(cache: Path) -> list[CacheEntry]:
    """Return all entries in the folder `cache` whose KEY.json can be read, also outdated ones."""
    return [entry for path in sorted(cache.glob("*.json")) if (entry := _read_entry(path))]


def read_folder(folder: Path, split: SplitName, shape: Shape, data: Data) -> Arrays:
    """Return one split of a folder of images from its cache entry, which is built if it is missing.

    Args and errors are those of `get_entry`. What is odd in the folder is logged with train.
    """
    entry, listing = get_entry(folder, split, shape, data)
    for warning in listing.warnings if split == "train" else ():
        logger.warning(f"warning: {printable(warning)}")
    return Arrays(
        entry.open(cache_folder(data)),
        None if entry.labels is None else np.array(entry.labels, np.int64),
        None if entry.classes is None else tuple(entry.classes),
        listing.splits,
        (entry.images_sha256, entry.sha256),
    )


def get_entry(
    folder: Path, split: SplitName, shape: Shape, data: Data
) -> tuple[CacheEntry, Listing]:
    """Return the cache entry of one split of a folder; build it if it is missing.

    Entries of the same folder and settings with other images are removed.

    Args:
        folder: A folder of images, see `list_folder`.
        split: The split to read.
        shape: Height, width and channels that the model needs. The images get this size, that of
            `data.resize`, or with `data.crop` keep their own.
        data: The section `data` of a config.

    Returns:
        The entry, and the list of its image files.

    Raises:
        DataError: Images are damaged or do not fit, or the cache cannot be written.
    """
    listing = list_folder(folder, split)
    cache = cache_folder(data)
    if cache.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"data.cache: {cache}: cannot be in the folder of images, {folder}")
    height, width = data.resize or shape[:2]
    if data.crop and not data.resize:
        try:
            image = ImageReader(data, shape).decode(listing.root / listing.names[0])
        except Exception as error:  # Pillow's decoders raise almost any class at damaged bytes
            raise not_images(listing.root, listing.names[:1], 0, str(error)) from None
        height, width, _ = image.shape
    size = (height, width, shape[2])
    settings: list[int | str] = [*size, bytes(data.background).hex()]
    settings += [data.resize_mode] if data.resize else []
    root = str(listing.root.resolve())
    known = [e for e in list_entries(cache) if (e.folder, e.settings) == (root, settings)]
    for entry in known:
        if entry.is_current(listing) and entry.is_complete(cache):
            return entry, listing
    key = _key(listing, settings)
    path = cache / f"{key}.npy"
    waiting = f"{cache}: waiting for another process that caches the same images"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with files.locked(cache / f".{key}.lock", lambda _: logger.info(waiting)):
            # It may have been built meanwhile, or from a copy of the folder.
            found = _read_entry(path.with_suffix(".json"))
            if found is None or not found.is_complete(cache):
                if found or path.exists():
                    logger.info(f"{path}: damaged or not complete; building it again")
                found = _build(listing, path, settings, size, data)
            found = replace(found, folder=root, stamp=listing.stamp)
            files.write_atomic(path.with_suffix(".json"), json.dumps(asdict(found)).encode())
        for entry in known:
            if entry.key != key:
                entry.remove(cache)
    except OSError as error:
        raise DataError(f"data.cache: {cache}: cannot be written: {error}") from None
    return found, listing


def _read_entry(path: Path) -> CacheEntry | None:
    try:
        entry = CacheEntry(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return entry if entry.key == path.stem else None  # files of another name are not its own


def _key(listing: Listing, settings: Sequence[int | str]) -> str:
    """Return 32 hexadecimal digits that depend on names, contents and settings."""

    def hashed(name: str) -> bytes:
        with (listing.root / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()

    digest = hashlib.sha256(json.dumps([VERSION, settings, listing.classes]).encode())
    contents = _map_in_threads(hashed, listing.names, 1024, "reading")
    for name, content in zip(listing.names, contents, strict=True):
        digest.update(hashlib.sha256(os.fsencode(name)).digest() + content)
    return digest.hexdigest()[:32]


def _map_in_threads(
    function: Callable[[str], T], names: Sequence[str], size: int, description: str
) -> Iterator[T]:
    """Yield the results of `function`; at most `size` of them are in memory at a time."""
    with (
        ThreadPoolExecutor(core_count()) as pool,
        progress_bar(total=len(names), desc=description, unit=" images") as bar,
    ):
        for start in range(0, len(names), size):
            for result in pool.map(function, names[start : start + size]):
                yield result
                bar.update()


def _build(
    listing: Listing, path: Path, settings: list[int | str], shape: Shape, data: Data
) -> CacheEntry:
    """Decode all images into KEY.npy, which appears when it is complete."""
    count, cache = len(listing.names), path.parent
    for leftover in cache.glob(f".{path.stem}.*.partial.npy"):  # of a process that was killed
        leftover.unlink()
    needed, free = count * math.prod(shape), shutil.disk_usage(cache).free
    if needed + SPARE > free:
        raise DataError(
            f"data.cache: {cache}: {needed / 2**30:.2f} GiB of images do not fit on the disk, "
            f"where {free / 2**30:.2f} GiB are free; data.cache can name another folder"
        )
    images, amount = f"{count:,} images of {printable(listing.root)}", f"{needed / 2**30:.2f} GiB"
    logger.info(f"caching {images} in {path} ({amount})")
    digest = hashlib.sha256()
    with files.whole(path) as temporary:
        with temporary.open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
            npy.write_array_header_1_0(file, header)
            for image in _decode_all(listing, shape, data):
                file.write(image.data)
                digest.update(image.data)
        if not listing.is_current():
            raise DataError(f"{listing.root}: the files changed while they were read: run again")
        written = temporary.stat().st_size
    images_sha256 = digest.hexdigest()
    if listing.labels is not None:
        digest.update(listing.labels.data)
    return CacheEntry(
        version=VERSION,
        key=path.stem,
        folder=str(listing.root.resolve()),
        stamp=listing.stamp,
        settings=settings,
        count=count,
        labels=None if listing.labels is None else listing.labels.tolist(),
        classes=None if listing.classes is None else list(listing.classes),
        images_sha256=images_sha256,
        sha256=digest.hexdigest(),
        bytes=written,
    )


def _decode_all(listing: Listing, shape: Shape, data: Data) -> Iterator[Images]:
    """Yield the images (H, W, C) in their order; raise DataError after all if one does not fit."""
    broken: dict[str, str] = {}
    sizes: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
    reader = ImageReader(data, shape)

    def decode_file(name: str) -> Images | None:
        path = listing.root / name
        try:
            image = reader.decode(path)
        except Exception as error:  # Pillow's decoders raise almost any class at damaged bytes
            broken[name] = str(error).replace(f" {str(path)!r}", "")
            return None
        sizes[image.shape[0], image.shape[1]].append(name)
        return image if image.shape == shape else None

    size = max(1, (16 << 20) // math.prod(shape))  # 16 MiB of decoded images in memory
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, below the limits of the reader
        images = _map_in_threads(decode_file, listing.names, size, "decoding")
        yield from (image for image in images if image is not None)
    if broken:
        good = len(listing.names) - len(broken)
        raise not_images(listing.root, sorted(broken), good, broken[min(broken)])
    check_sizes(listing.folder, sizes, shape, crop=bool(data.crop))
    reader.log_losses(len(listing.names))
