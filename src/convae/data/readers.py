"""Arrays from files: NumPy's npz and npy, MNIST's IDX. A file is checked before it is believed.

A header comes before its data, and memory is taken only for what the file can really hold.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import re
import struct
import zipfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.lib import format as npy
from tqdm import tqdm

from convae.archive import BROKEN
from convae.console import no_bar
from convae.data.memmap import Mapped
from convae.errors import DataError

if TYPE_CHECKING:
    import io
    from pathlib import Path

    from numpy.typing import NDArray

SplitName = Literal["train", "test"]

CHUNK = 1 << 20
MAX_RATIO = 1032  # what DEFLATE, in zip and gzip, can make of one byte
BOMB_BYTES, BOMB_RATIO = 2**28, 100  # what unpacks to more than both is no set of images
MAX_CLASSES = 10_000


@dataclass(frozen=True)
class Arrays:
    """What a source holds for one side, unsplit and uncut."""

    images: NDArray[np.uint8]  # (N, H, W, C)
    labels: NDArray[np.int64] | None  # (N,), each an index into `classes`
    classes: tuple[str, ...] | None
    whole: bool  # True: the source has no test split, so these serve both sides
    # SHA-256 of the images, and of images and labels, where they have been taken already.
    digests: tuple[str, str] | None = None


def read_npz(path: Path, side: SplitName) -> Arrays:
    """The images and labels of one side from keys x_train, y_train, x_test and y_test.

    Opens no other member: the test images stay unread while training, and the other way round.
    Without x_test, both sides get x_train. Raises DataError naming file, key and what was received.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            keys = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
            whole = "x_test" not in keys
            name = "train" if whole else side
            if f"x_{name}" not in keys:
                there = ", ".join(keys[:8]) or "no array"
                raise DataError(f"{path}: needs the key x_{name}. Received: {there}")
            images = _member(archive, path, f"x_{name}")
            labels = _member(archive, path, f"y_{name}") if f"y_{name}" in keys else None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    except BROKEN as error:
        raise DataError(
            f"{path}: is no whole .npz file but damaged, cut off or of another kind: {error}"
        ) from None
    if labels is not None:
        labels = check_labels(labels, len(images), f"{path}, y_{name}")
    return Arrays(images, labels, _numbered(labels), whole)


def _member(archive: zipfile.ZipFile, path: Path, key: str) -> NDArray[Any]:
    """One array: x_... as uint8 (N, H, W, C), y_... as whole numbers of any shape."""
    where = f"{path}, {key}"
    info = archive.getinfo(f"{key}.npy")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise DataError(f"{where}: compressed in another way than np.savez_compressed does")
    with archive.open(info) as stream:
        shape, fortran, dtype = _npy_header(stream, where)
        if key.startswith("x_"):
            _check_images(shape, dtype, where)
        elif dtype.kind not in "iu":
            raise DataError(f"{where}: labels must be whole numbers. Received: dtype {dtype}")
        size = math.prod(shape) * dtype.itemsize
        there = min(info.file_size, path.stat().st_size * MAX_RATIO) - stream.tell()
        if key.startswith("y_"):
            _refuse_bomb(path, math.prod(shape) * np.dtype(np.int64).itemsize, where)
        elif info.compress_type == zipfile.ZIP_DEFLATED:
            _refuse_bomb(path, size, where)
        if size != info.file_size - stream.tell() or size > there:
            raise DataError(
                f"{where}: its header promises {size:,} bytes {shape}, the file holds {there:,}"
            )
        data = _fill(stream, size, where)
    array = data.view(dtype).reshape(shape, order="F" if fortran else "C")
    if key.startswith("x_") and array.ndim == 3:
        array = array[..., None]
    return np.ascontiguousarray(array)


def read_npy(path: Path) -> Arrays:
    """The images of one .npy file, mapped and not read, and NAME_labels.npy if it stands beside it.

    Both sides get all of them. Raises DataError naming the file and what was received.
    """
    images = map_npy(path)
    labels_path = path.with_name(f"{path.stem}_labels.npy")
    if not labels_path.is_file():
        return Arrays(images, None, None, True)
    try:
        read: NDArray[Any] = np.load(labels_path, allow_pickle=False)
    except BROKEN as error:
        raise DataError(f"{labels_path}: cannot be read whole: {error}") from None
    if read.dtype.kind not in "iu":
        raise DataError(f"{labels_path}: must hold whole numbers. Received: dtype {read.dtype}")
    labels = check_labels(read, len(images), str(labels_path))
    return Arrays(images, labels, _numbered(labels), True)


def map_npy(path: Path) -> Mapped:
    """The images of an .npy file, uint8 (N, H, W, C), of which only the header is read.

    Raises DataError if the file is of another kind, or longer or shorter than its header says.
    """
    try:
        with path.open("rb") as file:
            shape, fortran, dtype = _npy_header(file, str(path))
            _check_images(shape, dtype, str(path))
            if fortran:
                raise DataError(
                    f"{path}: in Fortran's order, in which no image lies in one piece; save "
                    "np.ascontiguousarray(x)"
                )
            offset, size, there = file.tell(), math.prod(shape), path.stat().st_size
            if offset + size != there:
                raise DataError(
                    f"{path}: damaged or cut off: its header promises {offset + size:,} bytes, "
                    f"the file holds {there:,}"
                )
            return Mapped.open(file, offset, shape if len(shape) == 4 else (*shape, 1))
    except BROKEN as error:
        raise DataError(f"{path}: is no whole .npy file: {error}") from None


def sha256(images: NDArray[np.uint8]) -> hashlib._Hash:
    """The hash object of the images' bytes, taken in pieces, so that memory stays flat."""
    digest = hashlib.sha256()
    step = max(1, 16 * CHUNK // max(1, images[:1].nbytes))
    with tqdm(total=len(images), desc="checksum", delay=2, leave=False, disable=no_bar()) as bar:
        for start in range(0, len(images), step):
            part = images[start : start + step]
            digest.update(np.ascontiguousarray(part).data)
            bar.update(len(part))
    return digest


def digests(arrays: Arrays) -> tuple[str, str]:
    """The SHA-256 of the images, and that of images and labels."""
    digest = sha256(arrays.images)
    hashed = digest.hexdigest()
    if arrays.labels is not None:
        digest.update(arrays.labels.data)
    return hashed, digest.hexdigest()


def _npy_header(stream: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran's order, and dtype; pickled objects are refused."""
    major = npy.read_magic(stream)[0]
    read_header = npy.read_array_header_1_0 if major == 1 else npy.read_array_header_2_0
    shape, fortran, dtype = read_header(stream)
    if dtype.hasobject:
        raise DataError(
            f"{where}: holds pickled Python objects, which can run code when loaded and are "
            "refused. Save a plain array of dtype uint8"
        )
    return shape, fortran, dtype


def _refuse_bomb(path: Path, size: int, where: object) -> None:
    """Stop where a small file asks for much memory."""
    packed = path.stat().st_size
    if size > max(BOMB_BYTES, BOMB_RATIO * packed):
        raise DataError(
            f"{where}: would take {size / 2**20:,.0f} MiB of memory from a file of {packed:,} "
            f"bytes; what unpacks to more than {BOMB_RATIO} times its size is refused"
        )


def _check_images(shape: tuple[int, ...], dtype: np.dtype[Any], where: str) -> None:
    if dtype != np.uint8:
        mend = (
            "; floats from 0 to 1 become that by (x * 255).round().astype(np.uint8)"
            if dtype.kind == "f"
            else ""
        )
        raise DataError(
            f"{where}: images must be of dtype uint8, from 0 to 255{mend}. Received: dtype {dtype}"
        )
    if len(shape) not in {3, 4}:
        raise DataError(
            f"{where}: images must have the shape (images, height, width) or "
            f"(images, height, width, channels). Received: {shape}"
        )
    if min(shape) < 1:
        raise DataError(f"{where}: holds no images. Received: the shape {shape}")
    if len(shape) == 4 and shape[3] not in {1, 3}:
        mend = "; np.moveaxis(x, 1, -1) puts them last" if shape[1] in {1, 3} else ""
        raise DataError(
            f"{where}: there must be 1 or 3 channels, on the last axis{mend}. Received: {shape}"
        )


def check_labels(labels: NDArray[Any], images: int, where: str) -> NDArray[np.int64]:
    """Labels as int64 (N,), from 0; (N, 1) is taken too. Raises DataError where they do not fit."""
    if labels.shape not in {(images,), (images, 1)}:
        raise DataError(
            f"{where}: there must be one label for each of the {images:,} images, so the shape "
            f"({images},). Received: {labels.shape}"
        )
    low, high = labels.min(), labels.max()
    if low < 0 or high >= MAX_CLASSES:
        raise DataError(
            f"{where}: labels must lie between 0 and {MAX_CLASSES - 1}. Received: {low} to {high}"
        )
    return labels.reshape(-1).astype(np.int64)


def _numbered(labels: NDArray[np.int64] | None) -> tuple[str, ...] | None:
    return None if labels is None else tuple(str(i) for i in range(int(labels.max()) + 1))


def empty(shape: tuple[int, ...], where: object) -> NDArray[np.uint8]:
    """Room for images; DataError instead of MemoryError."""
    try:
        return np.empty(shape, np.uint8)
    except (MemoryError, ValueError):  # ValueError: more than an address can count
        size = math.prod(shape) / 2**30
        raise DataError(f"{where}: {size:,.1f} GiB of images do not fit into memory") from None


def _fill(stream: IO[bytes] | io.BufferedIOBase, size: int, where: str) -> NDArray[np.uint8]:
    """The `size` bytes that must be left in the stream, no fewer and no more."""
    data = empty((size,), where)
    view = data.data
    at = 0
    while at < size and (chunk := stream.read(min(CHUNK, size - at))):
        view[at : at + len(chunk)] = chunk
        at += len(chunk)
    if at < size:
        raise DataError(f"{where}: cut off after {at:,} of {size:,} bytes")
    if stream.read(1):  # reading on to the end is also what makes zip and gzip check their sums
        raise DataError(f"{where}: longer than the {size:,} bytes that its header promises")
    return data


_IDX_NAME = re.compile(r"(train|t10k)-(images|labels)[-.]idx[13]-ubyte(\.gz)?")


def is_idx_folder(folder: Path) -> bool:
    """Whether a file in the folder bears a name of MNIST's four, in any of their spellings."""
    return any(_IDX_NAME.fullmatch(path.name) for path in folder.iterdir())


def read_idx(folder: Path, side: SplitName) -> Arrays:
    """The images and labels of one side from train-images-idx3-ubyte and its three siblings.

    Takes .gz files, and names with a dot (train-images.idx3-ubyte). Without a file of test images,
    both sides get the training images. Raises DataError naming the file and what was received.
    """
    whole = _idx_file(folder, "t10k-images-idx3-ubyte") is None
    name = "t10k" if side == "test" and not whole else "train"
    images_path = _idx_file(folder, f"{name}-images-idx3-ubyte")
    if images_path is None:
        raise DataError(f"{folder}: {name}-images-idx3-ubyte (or that with .gz) is missing")
    images = _read_idx(images_path, 3)[..., None]
    labels = None
    if labels_path := _idx_file(folder, f"{name}-labels-idx1-ubyte"):
        labels = check_labels(_read_idx(labels_path, 1), len(images), str(labels_path))
    return Arrays(images, labels, _numbered(labels), whole)


def _idx_file(folder: Path, name: str) -> Path | None:
    dotted = name.replace("-idx", ".idx")
    paths = (folder / n for n in (name, dotted, f"{name}.gz", f"{dotted}.gz"))
    return next((path for path in paths if path.is_file()), None)


def _read_idx(path: Path, ndim: int) -> NDArray[np.uint8]:
    """The array of one IDX file of bytes: magic number 0x0803 for images, 0x0801 for labels."""
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"  # some browsers unpack a file and keep its .gz
        held = path.stat().st_size * (MAX_RATIO if zipped else 1)
        with gzip.open(path) if zipped else path.open("rb") as stream:
            head = stream.read(4 + 4 * ndim)
            magic = bytes((0, 0, 8, ndim))
            if head[:4] != magic:
                raise DataError(
                    f"{path}: an IDX file of {ndim}-dimensional bytes starts with the magic number "
                    f"0x{magic.hex()}. Received: 0x{head[:4].hex()}"
                )
            if len(head) < 4 + 4 * ndim:
                raise DataError(f"{path}: cut off in its header, after {len(head)} bytes")
            shape = struct.unpack(f">{ndim}I", head[4:])
            if min(shape) < 1:
                raise DataError(f"{path}: holds nothing. Received: the shape {shape}")
            size = math.prod(shape)
            if size > held - len(head):
                raise DataError(
                    f"{path}: cut off: its header promises {size:,} bytes {shape}, "
                    f"the file holds at most {held - len(head):,}"
                )
            if zipped:
                _refuse_bomb(path, size * (8 if ndim == 1 else 1), path)  # labels become int64
            return _fill(stream, size, str(path)).reshape(shape)
    except BROKEN as error:
        raise DataError(f"{path}: cannot be read whole: {error}") from None
