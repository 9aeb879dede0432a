"""A folder of images, decoded once and kept as one memory-mapped .npy file.

A pack is two files in the cache folder, named by the hash of what they were made from: KEY.npy, the
images, and KEY.json, which tells the rest and is written last. The key follows from the files'
names and bytes and from the size that they were given, so another content is another pack. A later
start compares only the stamp of the folder, which is made of its files' names, sizes and times.
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
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.lib import format as npy
from tqdm import tqdm

from convae import files as atomic
from convae.console import logger, no_bar
from convae.data import image_folder as images
from convae.data.memmap import Mapped
from convae.data.readers import Arrays, SplitName, map_npy, sha256
from convae.errors import ConvaeError, DataError
from convae.runtime.hardware import core_count

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from convae.config.schema import Data

T = TypeVar("T")

VERSION = 1  # another one where the same files would give other bytes
BLOCK = 16 << 20  # bytes of decoded images that are in memory at a time
SPARE = 64 << 20  # bytes that a disk must have left


@dataclass(frozen=True)
class Pack:
    """One side of a folder, packed; what KEY.json holds."""

    key: str
    folder: str  # what it was made from,
    stamp: str  # and how that looked then
    settings: list[
        Any
    ]  # height, width and channels, and `resize_mode` where the images were resized
    count: int
    labels: list[int] | None
    classes: list[str] | None
    images_sha256: str
    sha256: str  # of the images and their labels
    bytes: int  # of the .npy file

    def path(self, cache: Path) -> Path:
        """The file of images."""
        return cache / f"{self.key}.npy"

    def open(self, cache: Path) -> Mapped:
        """The images, mapped. Raises DataError where size or header are not those packed."""
        path = self.path(cache)
        found = map_npy(path)
        if found.shape != (self.count, *self.settings[:3]) or path.stat().st_size != self.bytes:
            raise DataError(f"{path}: not the images that were packed")
        return found

    def is_whole(self, cache: Path) -> bool:
        """Whether the images are there, as far as size and header tell."""
        try:
            self.open(cache)
        except ConvaeError:
            return False
        return True

    def verify(self, cache: Path) -> bool:
        """Whether every byte of the images is as it was packed."""
        return self.is_whole(cache) and sha256(self.open(cache)).hexdigest() == self.images_sha256


def cache_folder(data: Data) -> Path:
    """`data.cache`, or convae/ in $XDG_CACHE_HOME, which is ~/.cache where it is not set."""
    given = data.cache or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "convae"
    try:
        return Path(given).expanduser().absolute()
    except RuntimeError:
        raise DataError(
            "this user has no home folder to cache images in; data.cache can name another"
        ) from None


def read_folder(folder: Path, side: SplitName, shape: images.Shape, data: Data) -> Arrays:
    """The images of one side of `folder`, from its pack, which is made if there is none yet.

    `shape` is the model's (height, width, channels). The images are of that size, of `data.resize`,
    or with `data.crop` of their own. Raises DataError for images that are broken or do not fit.
    """
    packed, whole = pack(folder, side, shape, data)
    return Arrays(
        packed.open(cache_folder(data)),
        None if packed.labels is None else np.array(packed.labels, np.int64),
        None if packed.classes is None else tuple(packed.classes),
        whole,
        (packed.images_sha256, packed.sha256),
    )


def pack(folder: Path, side: SplitName, shape: images.Shape, data: Data) -> tuple[Pack, bool]:
    """The pack of one side of `folder`, and whether it serves both sides; made if need be.

    Packs of the same folder and settings with another content are removed. Raises DataError as
    read_folder does, and where the cache cannot be written or the disk is too full.
    """
    listing = images.list_folder(folder, side)
    cache = cache_folder(data)
    if cache.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"data.cache: {cache}: cannot lie in the folder of images, {folder}")
    height, width = data.resize or shape[:2]
    if data.crop and not data.resize:
        height, width = _size_of_first(listing, shape[2])
    settings = [height, width, shape[2], *([data.resize_mode] if data.resize else [])]
    root = str(listing.root.resolve())
    known = [p for p in packs(cache) if (p.folder, p.settings) == (root, settings)]
    for old in known:
        if old.stamp == listing.stamp and old.is_whole(cache):
            return old, listing.whole
    key = _key(listing, settings)
    waiting = f"{cache}: waiting for another process that caches the same images"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with atomic.locked(cache / f".{key}.lock", lambda _: logger.info(waiting)):
            packed = _read(cache / f"{key}.json")  # by another process, or from another place
            if packed is None or not packed.is_whole(cache):
                if packed is not None or (cache / f"{key}.npy").exists():
                    logger.info(
                        f"{cache / key}.npy: damaged, or not finished; packing {root} again"
                    )
                packed = _build(listing, key, settings, data, cache)
            packed = replace(packed, folder=root, stamp=listing.stamp)
            text = json.dumps({"version": VERSION, **asdict(packed)})
            atomic.write_atomic(cache / f"{key}.json", text.encode())
        for old in known:
            if old.key != key:
                remove(old, cache)
    except OSError as error:
        raise DataError(f"data.cache: {cache}: cannot be written: {error}") from None
    return packed, listing.whole


def packs(cache: Path) -> list[Pack]:
    """All packs in `cache` whose description can be read."""
    return [found for path in sorted(cache.glob("*.json")) if (found := _read(path))]


def remove(packed: Pack, cache: Path) -> None:
    """Delete a pack; who has it open keeps what he has."""
    for name in (f"{packed.key}.json", f"{packed.key}.npy", f".{packed.key}.lock"):
        (cache / name).unlink(missing_ok=True)


def _read(path: Path) -> Pack | None:
    try:
        content = json.loads(path.read_bytes())
        return Pack(**content) if content.pop("version") == VERSION else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _size_of_first(listing: images.Listing, channels: int) -> tuple[int, int]:
    path = listing.root / listing.names[0]
    try:
        return images.decode(path, channels, None, "crop").shape[:2]
    except Exception as error:
        raise DataError(images.no_images(listing.root, listing.names[:1], 0, str(error))) from None


def _key(listing: images.Listing, settings: Sequence[Any]) -> str:
    """What tells a pack from all others: 32 hexadecimal digits."""

    def hashed(name: str) -> bytes:
        with (listing.root / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()

    digest = hashlib.sha256(json.dumps([VERSION, settings, listing.classes]).encode())
    for names, hashes in _in_threads(hashed, listing.names, 1024, "reading"):
        for name, content in zip(names, hashes, strict=True):
            digest.update(hashlib.sha256(os.fsencode(name)).digest() + content)
    return digest.hexdigest()[:32]


def _in_threads(
    function: Callable[[str], T], names: Sequence[str], size: int, what: str
) -> Iterator[tuple[Sequence[str], list[T]]]:
    """`function` of all names, `size` of them at a time, so that memory stays flat."""
    with (
        ThreadPoolExecutor(core_count()) as pool,
        tqdm(total=len(names), desc=what, unit=" images", delay=2, disable=no_bar()) as bar,
    ):
        for start in range(0, len(names), size):
            some = names[start : start + size]
            yield some, list(pool.map(function, some))
            bar.update(len(some))


def _build(
    listing: images.Listing, key: str, settings: Sequence[Any], data: Data, cache: Path
) -> Pack:
    """Decode all images into KEY.npy, which appears when it is whole."""
    shape: images.Shape = (settings[0], settings[1], settings[2])
    count, path = len(listing.names), cache / f"{key}.npy"
    for left in cache.glob(f".{key}.*.partial.npy"):  # of a process that was killed
        left.unlink()
    needed, free = count * math.prod(shape), shutil.disk_usage(cache).free
    if needed + SPARE > free:
        raise DataError(
            f"data.cache: {cache}: {needed / 2**30:.2f} GiB of images do not fit on the disk, "
            f"where {free / 2**30:.2f} GiB are free; data.cache can name another folder"
        )
    logger.info(
        f"packing {count:,} images of {listing.root} into {path} ({needed / 2**30:.2f} GiB)"
    )
    digest = hashlib.sha256()
    with atomic.whole(path) as temporary:
        with temporary.open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
            npy.write_array_header_1_0(file, header)
            for block in _decoded(listing, shape, data):
                file.write(block.data)
                digest.update(block.data)
        if images.list_files(listing.root, listing.folder)[1] != listing.stamp:
            raise DataError(f"{listing.root}: was changed while it was packed; once more, please")
        size = temporary.stat().st_size
    hashed = digest.hexdigest()
    if listing.labels is not None:
        digest.update(listing.labels.data)
    return Pack(
        key,
        str(listing.root.resolve()),
        listing.stamp,
        list(settings),
        count,
        None if listing.labels is None else listing.labels.tolist(),
        None if listing.classes is None else list(listing.classes),
        hashed,
        digest.hexdigest(),
        size,
    )


def _decoded(
    listing: images.Listing, shape: images.Shape, data: Data
) -> Iterator[NDArray[np.uint8]]:
    """The images in their order, in blocks; once one does not fit, none follow but the message."""
    broken: dict[str, str] = {}
    sizes: defaultdict[tuple[int, int], list[str]] = defaultdict(list)

    def decode(name: str) -> NDArray[np.uint8] | None:
        path = listing.root / name
        try:
            image = images.decode(path, shape[2], data.resize, data.resize_mode)
        except Exception as error:  # Pillow's decoders raise nearly anything at damaged bytes
            broken[name] = str(error).replace(f" {str(path)!r}", "")
            return None
        high, wide = image.shape[:2]
        sizes[high, wide].append(name)
        return image if image.shape == shape else None

    size = max(1, BLOCK // math.prod(shape))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's doubts; what matters is checked here
        for _, block in _in_threads(decode, listing.names, size, "packing"):
            good = [image for image in block if image is not None]
            if len(good) == len(block):
                yield np.stack(good)
    if broken:
        count = len(listing.names) - len(broken)
        bad = sorted(broken)
        raise DataError(images.no_images(listing.root, bad, count, broken[bad[0]]))
    images.check_sizes(listing, sizes, shape, crop=bool(data.crop))
