"""Read images and labels from .npz, .npy and IDX files.

A file is checked before it is read: memory is allocated only for what the file can hold, and
pickled objects are refused.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from convae.archive import BROKEN, read_npy_header
from convae.arrays import Array, Images, Labels
from convae.console import logger, printable, progress_bar
from convae.data.image_file import SUFFIXES
from convae.data.memmap import Mapped
from convae.data.split_names import SplitName, files_of_splits, parse_split, sort_keys
from convae.errors import DataError

_MAX_RATIO = 1032  # the most bytes that DEFLATE, in zip and gzip, makes of one byte
# An archive that decompresses to more than both is refused.
_BOMB_BYTES, _BOMB_RATIO = 2**28, 100
_MAX_CLASSES = 10_000
_IDX_NAME = re.compile(r"(.*)(images[-.]idx3|labels[-.]idx1)-ubyte(\.gz)?", re.IGNORECASE)
_LIKE_IDX = re.compile(r"[^.].*idx\d-(u?byte|short|int|float|double).*", re.IGNORECASE | re.DOTALL)
ACCEPTED = "an .npz or .npy file, a folder of IDX files as of MNIST, or a folder of images"
_FORMATS = {  # that a user might try, and how to convert them
    ".csv": "a table of text",
    ".tsv": "a table of text",
    ".txt": "a text file",
    ".json": "a JSON file",
    ".mat": "a MATLAB file; scipy.io.loadmat reads it",
    ".h5": "an HDF5 file; h5py reads it",
    ".hdf5": "an HDF5 file; h5py reads it",
    ".parquet": "a Parquet file; pandas.read_parquet reads it",
    ".pkl": "a pickle, which can run any code",
    ".pickle": "a pickle, which can run any code",
    ".pt": "a PyTorch file; torch.load reads it",
    ".pth": "a PyTorch file; torch.load reads it",
    ".tfrecord": "a TFRecord file; tf.data.TFRecordDataset reads it",
    ".zip": "an archive; unpack it",
    ".tar": "an archive; unpack it",
    ".tgz": "an archive; unpack it",
    ".gz": "a compressed file; unpack it",
    ".7z": "an archive; unpack it",
    ".rar": "an archive; unpack it",
}


@dataclass(frozen=True)
class Arrays:
    """The images and labels of one split, as read."""

    images: Images  # (N, H, W, C)
    labels: Labels | None  # (N,), each an index into `classes`
    classes: tuple[str, ...] | None
    splits: Mapping[SplitName, str]  # what each split is; one that is missing is part of train
    digests: tuple[str, str] | None = None  # what `digests` returns, where it is known


def read(path: Path, split: SplitName) -> Arrays:
    """Return one split of an .npz or .npy file or a folder of IDX files.

    Only the files and members of this split are opened. Of a split that the source does not have,
    the images of train are returned.

    Raises:
        DataError: The message names the file and what was received.
    """
    if path.is_dir():
        return _read_idx_folder(path, split)
    with _explained(path, "data"), path.open("rb") as file:
        start = file.read(6)
    suffix = path.suffix.lower()
    if suffix == ".npy" or start == b"\x93NUMPY":
        return _read_npy(path, split)
    if suffix == ".npz" or (start[:2] == b"PK" and suffix not in _FORMATS):
        return _read_npz(path, split)
    kind = _FORMATS.get(suffix, "a file of another kind")
    if _LIKE_IDX.fullmatch(path.name):
        kind = f"one IDX file; name its folder, {path.parent}"
    elif suffix in SUFFIXES:
        kind = f"one image; name its folder, {path.parent}"
    raise DataError(f"{path}: must be {ACCEPTED}. Received: {kind}")


def digests(arrays: Arrays) -> tuple[str, str]:
    """Return the SHA-256 of the images, and that of images and labels."""
    if arrays.digests:
        return arrays.digests
    digest = images_digest(arrays.images)
    hashed = digest.hexdigest()
    if arrays.labels is not None:
        digest.update(arrays.labels.data)
    return hashed, digest.hexdigest()


def images_digest(images: Images) -> hashlib._Hash:
    """Return the SHA-256 object of the images' bytes, read in blocks of 16 MiB."""
    digest = hashlib.sha256()
    step = max(1, (16 << 20) // max(1, images[:1].nbytes))
    with progress_bar(total=len(images), desc="hashing", unit=" images") as bar:
        for start in range(0, len(images), step):
            block = images[start : start + step]
            digest.update(np.ascontiguousarray(block).data)
            bar.update(len(block))
    return digest


def _read_npz(path: Path, split: SplitName) -> Arrays:
    with _explained(path, ".npz"), zipfile.ZipFile(path) as archive:
        keys = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
        images, labels, others = sort_keys(path, keys)
        if "train" not in images:
            found = ", ".join(map(printable, keys[:8])) or "no array"
            raise DataError(f"{path}: needs the key x_train. Received: {found}")
        if split == "train":
            _warn_of_keys(path, others)
            _warn_of_neighbors(path, images)
        name = split if split in images else "train"
        x = _read_member(archive, path, images[name], is_label=False)
        y = _read_member(archive, path, labels[name], is_label=True) if name in labels else None
    return _arrays(x, y, images, f"{path}, {labels.get(name)}")


def _warn_of_keys(path: Path, others: Sequence[str]) -> None:
    if others:
        names = ", ".join(map(printable, others[:8]))
        logger.warning(f"warning: {path}: keys that are not used: {names}")


def _warn_of_neighbors(path: Path, images: Mapping[SplitName, str]) -> None:
    """Warn of a file beside `path` that by its name has a split that this one lacks."""
    for name, other in files_of_splits(path).items():
        if name not in images:
            logger.warning(
                f"warning: {other}: is not used. If it is the {name} split of {path.name}, save "
                "both in one .npz, with the keys x_train, y_train, x_test and y_test"
            )


def _read_member(archive: zipfile.ZipFile, path: Path, key: str, *, is_label: bool) -> Array:
    where = f"{path}, {key}"
    info = archive.getinfo(f"{key}.npy")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise DataError(f"{where}: must be compressed as np.savez_compressed does, or not at all")
    with _explained(where, ".npy"), archive.open(info) as stream:
        shape, fortran, dtype = read_npy_header(stream)
        size = math.prod(shape) * dtype.itemsize
        if is_label:
            _check_label_type(dtype, where)
            _refuse_bomb(path, math.prod(shape) * 8, where)  # as int64
        else:
            _check_images(shape, dtype, where)
            if info.compress_type == zipfile.ZIP_DEFLATED:
                _refuse_bomb(path, size, where)
        held = min(info.file_size, path.stat().st_size * _MAX_RATIO) - stream.tell()
        if size != info.file_size - stream.tell() or size > held:
            promise = f"its header promises {size:,} bytes {shape}"
            raise DataError(f"{where}: {promise}, the file holds {held:,}")
        data = _read_exactly(stream, size, where)
    array = data.view(dtype).reshape(shape, order="F" if fortran else "C")
    return np.ascontiguousarray(array)


def _read_npy(path: Path, split: SplitName) -> Arrays:
    """Read `path`, or for another split the file beside it: x_test.npy beside x_train.npy."""
    paths = files_of_splits(path)
    path = paths.get(split, path)
    images = map_npy(path)
    labels_path, labels = path.with_name(f"{path.stem}_labels.npy"), None
    if labels_path.is_file():
        with _explained(labels_path, ".npy"):
            labels = np.load(labels_path, allow_pickle=False)
        _check_label_type(labels.dtype, str(labels_path))
    splits = {name: printable(found.name) for name, found in paths.items()}
    return _arrays(images, labels, splits, str(labels_path))


def map_npy(path: Path) -> Mapped:
    """Map the images of an .npy file, uint8 (N, H, W, C); only the header is read.

    Raises:
        DataError: The file is of another kind, or longer or shorter than its header promises.
    """
    with _explained(path, ".npy"), path.open("rb") as file:
        shape, fortran, dtype = read_npy_header(file)
        _check_images(shape, dtype, str(path))
        if fortran:
            reason = "in Fortran order, where the bytes of an image are not contiguous"
            raise DataError(f"{path}: is {reason}; save np.ascontiguousarray(x)")
        offset, size, held = file.tell(), math.prod(shape), path.stat().st_size
        if offset + size != held:
            raise DataError(
                f"{path}: damaged or cut off: its header promises {offset + size:,} bytes, "
                f"the file holds {held:,}"
            )
        return Mapped.open(file, offset, shape if len(shape) == 4 else (*shape, 1))


def is_idx_folder(folder: Path) -> bool:
    """Return whether a file in the folder has the name of an IDX file, as those of MNIST."""
    return any(_LIKE_IDX.fullmatch(path.name) for path in folder.iterdir() if path.is_file())


def _find_idx(folder: Path) -> dict[tuple[SplitName, str], Path]:
    """Return the IDX files by split and "images" or "labels"; those without .gz are preferred.

    Raises:
        DataError: There are IDX files with other names, of several data sets, or without train.
    """
    found: dict[tuple[SplitName, str], Path] = {}
    names: dict[tuple[str, ...], str] = {}  # of the data sets
    others = []
    for path in sorted(folder.iterdir(), key=lambda path: (len(path.name), path.name)):
        if not _LIKE_IDX.fullmatch(path.name) or path.is_dir():
            continue
        match = _IDX_NAME.fullmatch(path.name)
        split, words = parse_split(match[1]) if match else (None, ())
        if match is None or split is None:
            others.append(path.name)
            continue
        names.setdefault(words, path.name)
        first = found.setdefault((split, match[2][:6].lower()), path)
        if first.name not in {path.name, path.name.removesuffix(".gz")}:
            others.append(path.name)
    rule = "must be called train-images-idx3-ubyte, t10k-images-idx3-ubyte and the same with labels"
    if len(names) > 1:
        raise DataError(
            f"{folder}: holds more than one data set, of {' and '.join(names.values())}; move each "
            "into a folder of its own"
        )
    if others:
        raise DataError(
            f"{folder}: IDX files {rule}, .gz or not; rename or remove the others. "
            f"Received: {', '.join(map(printable, others[:8]))}"
        )
    missing = [split for split, _ in found if (split, "images") not in found]
    if missing or ("train", "images") not in found:
        split = missing[0] if missing else "train"
        name = "t10k" if split == "test" else split
        raise DataError(f"{folder}: {name}-images-idx3-ubyte (or that with .gz) is missing")
    return found


def _read_idx_folder(folder: Path, split: SplitName) -> Arrays:
    paths = _find_idx(folder)
    splits = {
        name: printable(path.name) for (name, kind), path in paths.items() if kind == "images"
    }
    name = split if split in splits else "train"
    if split == "train" and splits["train"].lower().startswith("emnist"):
        logger.warning(
            "warning: the files of EMNIST hold each image transposed, rows as columns. The images "
            "are used as they are in the file"
        )
    labels_path = paths.get((name, "labels"))
    labels = _read_idx(labels_path, 1) if labels_path else None
    return _arrays(_read_idx(paths[name, "images"], 3), labels, splits, str(labels_path))


def _read_idx(path: Path, ndim: int) -> Images:
    """Read an IDX file of bytes: magic number 0x0803 for images, 0x0801 for labels."""
    with _explained(path, "IDX"):
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"  # a browser may decompress a file and keep .gz
        held = path.stat().st_size * (_MAX_RATIO if zipped else 1)
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
                raise DataError(f"{path}: is empty. Received: the shape {shape}")
            size = math.prod(shape)
            if size > held - len(head):
                raise DataError(
                    f"{path}: cut off: its header promises {size:,} bytes {shape}, "
                    f"the file holds at most {held - len(head):,}"
                )
            if zipped:
                _refuse_bomb(path, size * (8 if ndim == 1 else 1), path)  # labels become int64
            return _read_exactly(stream, size, str(path)).reshape(shape)


@contextmanager
def _explained(where: object, kind: str) -> Iterator[None]:
    """Turn what the readers of damaged files raise into a DataError."""
    try:
        yield
    except DataError:
        raise
    except BROKEN as error:
        problem = f"not a complete {kind} file, but damaged, cut off or of another kind"
        if isinstance(error, OSError) and error.errno:
            problem = "cannot be read"
        raise DataError(f"{where}: {problem}: {error}") from None


def _read_exactly(stream: IO[bytes] | io.BufferedIOBase, size: int, where: str) -> Images:
    try:
        data = np.empty(size, np.uint8)
    except (MemoryError, ValueError):  # ValueError: more than an address can count
        raise DataError(f"{where}: {size / 2**30:,.1f} GiB do not fit into memory") from None
    view, position = data.data, 0
    while position < size and (chunk := stream.read(min(1 << 20, size - position))):
        view[position : position + len(chunk)] = chunk
        position += len(chunk)
    if position < size:
        raise DataError(f"{where}: cut off after {position:,} of {size:,} bytes")
    if stream.read(1):  # zip and gzip check their checksums at the end of the stream
        raise DataError(f"{where}: longer than the {size:,} bytes that its header promises")
    return data


def _refuse_bomb(path: Path, size: int, where: object) -> None:
    held = path.stat().st_size
    if size > max(_BOMB_BYTES, _BOMB_RATIO * held):
        raise DataError(
            f"{where}: a file of {held:,} bytes that decompresses to {size / 2**20:,.0f} MiB is "
            f"refused: that is more than {_BOMB_RATIO} times its size"
        )


def _check_images(shape: tuple[int, ...], dtype: np.dtype[Any], where: str) -> None:
    if dtype != np.uint8:
        rule = "images must be of dtype uint8, from 0 to 255"
        if dtype.kind == "f":
            rule += "; convert floats from 0 to 1 by (x * 255).round().astype(np.uint8)"
        elif dtype.kind == "b":
            rule += "; convert booleans by x.astype(np.uint8) * 255"
        elif dtype.kind in "iu":
            rule += "; convert integers from 0 to 255 by x.astype(np.uint8)"
        raise DataError(f"{where}: {rule}. Received: dtype {dtype}")
    if len(shape) not in {3, 4}:
        shapes = "(images, height, width) or (images, height, width, channels)"
        flat = "; x.reshape(-1, height, width) restores flattened ones" * (len(shape) == 2)
        raise DataError(f"{where}: images must have the shape {shapes}{flat}. Received: {shape}")
    if min(shape) < 1:
        raise DataError(f"{where}: holds no images. Received: the shape {shape}")
    if len(shape) == 4 and shape[3] not in {1, 3}:
        rule = "there must be 1 or 3 channels, on the last axis"
        if shape[1] in {1, 3}:
            rule += "; np.moveaxis(x, 1, -1) puts them last"
        raise DataError(f"{where}: {rule}. Received: {shape}")


def _check_label_type(dtype: np.dtype[Any], where: str) -> None:
    if dtype.kind not in "iu":
        number = (
            "; y.astype(int) converts"
            if dtype.kind in "bf"
            else ("; np.unique(y, return_inverse=True)[1] numbers names")
        )
        raise DataError(f"{where}: labels must be integers{number}. Received: dtype {dtype}")


def _arrays(
    images: Images, labels: Array | None, splits: Mapping[SplitName, str], where: str
) -> Arrays:
    """Give images a channel axis, check labels (N,) or (N, 1), and number the classes from 0."""
    images = images[..., None] if images.ndim == 3 else images
    if labels is None:
        return Arrays(images, None, None, splits)
    count = len(images)
    if labels.shape not in {(count,), (count, 1)}:
        one_hot = "; y.argmax(axis=1) converts one-hot labels" * (labels.ndim == 2)
        raise DataError(
            f"{where}: there must be one label for each of the {count:,} images, so the shape "
            f"({count},){one_hot}. Received: {labels.shape}"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= _MAX_CLASSES:
        rule = f"labels must be between 0 and {_MAX_CLASSES - 1}"
        raise DataError(f"{where}: {rule}. Received: {low} to {high}")
    classes = tuple(str(i) for i in range(high + 1))
    return Arrays(images, labels.reshape(-1).astype(np.int64), classes, splits)
