"""List the image files of a folder, with their classes and splits, without opening one."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convae.arrays import Labels, Shape
from convae.data.image_file import SUFFIXES
from convae.data.readers import SplitName
from convae.errors import DataError

_IGNORED = re.compile(
    r"(\..*|thumbs\.db|desktop\.ini|__macosx|(readme|license|licence)(\..*)?)", re.IGNORECASE
)


@dataclass(frozen=True)
class Listing:
    """The image files of one split in their order; none of them has been opened."""

    folder: Path
    root: Path  # the folder itself, or train/ or test/ in it
    names: list[str]  # relative to `root`
    labels: Labels | None  # (N,), each an index into `classes`
    classes: tuple[str, ...] | None
    has_test: bool  # False: there is no test split, and these are all images
    stamp: str  # differs after a file was added, removed, renamed or written to

    def is_current(self) -> bool:
        """Return whether the files are still those that were listed."""
        return _list_files(self.root, self.folder)[1] == self.stamp


def list_folder(folder: Path, split: SplitName) -> Listing:
    """List the image files of one split.

    Folders train/ and test/ are the splits; without them both splits list all images. The next
    folder level names the classes; with an image outside such folders there are no classes. The
    order is that of the SHA-256 of the paths, so that a slice of the list holds all classes.

    Raises:
        DataError: The folder holds no image, a file of another kind, or a link that leads out of
            the folder.
    """
    folders = {path.name for path in _class_folders(folder)}
    is_split = "train" in folders and ("test" in folders or len(folders) == 1)
    has_test = is_split and "test" in folders
    root = folder / (split if has_test else "train") if is_split else folder
    names, stamp = _list_files(root, folder)
    if not all("/" in name for name in names):
        return Listing(folder, root, names, None, None, has_test, stamp)
    # Both splits number the classes in the same way, even if one of them lacks some.
    roots = [folder / name for name in folders & {"train", "test"}] if is_split else [root]
    found = {path.name for r in roots for path in _class_folders(r)}
    classes = sorted(found, key=lambda n: (not n.isdecimal(), int(n) if n.isdecimal() else 0, n))
    index = {name: i for i, name in enumerate(classes)}
    labels = np.array([index[name.split("/", 1)[0]] for name in names], np.int64)
    return Listing(folder, root, names, labels, tuple(classes), has_test, stamp)


def _class_folders(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.is_dir() and not _IGNORED.fullmatch(p.name)]


def _list_files(root: Path, folder: Path) -> tuple[list[str], str]:
    """Return the image files below `root` in their order, and their stamp."""
    found, others = [], []
    _refuse_outside(root, folder)
    for entry in _walk(root, folder):
        name = entry.path[len(str(root)) + 1 :].replace(os.sep, "/")
        if entry.name.lower().endswith(SUFFIXES) and entry.is_file():
            state = entry.stat()
            stamp = f"{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns}\n"
            found.append((hashlib.sha256(os.fsencode(name)).digest(), stamp.encode(), name))
        else:
            others.append(name)
    kinds = ", ".join(SUFFIXES)
    if not found:
        received = f" Received: {len(others):,} other files, such as {others[0]}" if others else ""
        raise DataError(f"{root}: holds no images ({kinds}) and no IDX files.{received}")
    if others:
        raise not_images(root, others, len(found), f"only {kinds} are")
    found.sort()
    stamp = hashlib.sha256(b"".join(hashed + state for hashed, state, _ in found)).hexdigest()
    return [name for *_, name in found], stamp


def _walk(folder: Path, top: Path) -> Iterator[os.DirEntry[str]]:
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
            f"{path}: links that lead out of the folder are refused. Received: a link to "
            f"{path.resolve()}; copy its target instead"
        )


def not_images(root: Path, bad: Sequence[str], good: int, reason: str) -> DataError:
    """Return the error for the files `bad` in `root`; `reason` is that of the first by name."""
    more = f", and {len(bad) - 1:,} other files are not" if len(bad) > 1 else ""
    return DataError(
        f"{root / min(bad)}: is not an image ({reason}){more}; {good:,} files here are images. "
        "Move files that are not images out of the folder"
    )


def check_sizes(
    folder: Path, sizes: Mapping[tuple[int, int], Sequence[str]], shape: Shape, *, crop: bool
) -> None:
    """Raise DataError unless `sizes`, (height, width) to names, has only the size of `shape`."""
    fix = f"set data.resize to [{shape[0]},{shape[1]}]"
    if len(sizes) > 1:
        common = sorted(sizes, key=lambda size: -len(sizes[size]))
        named = " and ".join(
            f"{len(sizes[s]):,} of {s[0]} x {s[1]}, such as {sizes[s][0]}," for s in common[:2]
        )
        more = f" and {len(sizes) - 2:,} further sizes," if len(sizes) > 2 else ""
        if crop:
            fix = "set data.resize to one size, at least that of model.input_shape"
        raise DataError(
            f"{folder}: images of different sizes (height x width): {named}{more} "
            f"where one is needed; {fix}"
        )
    ((high, wide),) = sizes
    if (high, wide) != shape[:2]:
        raise DataError(
            f"{folder}: the images are {high} x {wide} (height x width), but model.input_shape is "
            f"{list(shape)}; {fix} or model.input_shape to [{high},{wide},{shape[2]}]"
        )
