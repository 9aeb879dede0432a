"""List the image files of a folder, with their classes and splits, without opening one.

One rule holds wherever a folder is read (`find_images`): hidden files, and those that operating
systems and servers leave behind, are skipped; every other file must be an image. Training refuses a
folder with anything else in it, and warns of folders without images.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convae.arrays import Labels, Shape
from convae.console import printable
from convae.data.image_file import SUFFIXES
from convae.data.split_names import SplitName, parse_split
from convae.errors import DataError

_SYSTEM = re.compile(
    r"\..*|thumbs\.db|ehthumbs\.db|desktop\.ini|icon\r|__macosx|@eadir|#recycle|\$recycle\.bin|"
    r"system volume information|lost\+found",
    re.IGNORECASE | re.DOTALL,
)
_TEXTS = re.compile(r"(readme|license|licence)(\.(md|txt|rst|html|pdf))?", re.IGNORECASE)
_NAMED = 5  # names in a message


@dataclass(frozen=True)
class Found:
    """The files below a folder, by their names relative to it."""

    images: dict[str, os.DirEntry[str]]
    others: dict[str, str]  # why each of the other files is not used
    empty: list[str]  # the folders in it without images, with a / at the end


@dataclass(frozen=True)
class Listing:
    """The image files of one split in their order; none of them has been opened."""

    folder: Path
    root: Path  # the folder itself, or that of the split in it
    names: list[str]  # relative to `root`
    labels: Labels | None  # (N,), each an index into `classes`
    classes: tuple[str, ...] | None  # printable
    splits: Mapping[SplitName, str]  # what each split is; one that is missing is part of train
    warnings: tuple[str, ...]
    stamp: str  # differs after a file was added, removed, renamed or written to

    def is_current(self) -> bool:
        """Return whether the files are still those that were listed."""
        return _order(find_images(self.root).images)[1] == self.stamp


def list_folder(folder: Path, split: SplitName) -> Listing:
    """List the image files of one split.

    Folders called train, val and test (see `parse_split`) are the splits. A split that has no
    folder lists the images of train; without such folders every split lists all images. The next
    folder level names the classes; with an image outside such folders there are no classes. The
    order is that of the SHA-256 of the paths, so that a slice of the list holds all classes.

    Raises:
        DataError: The folder holds no image, anything that `find_images` does not accept, or
            folders of which it is not clear whether they are splits or classes.
    """
    roots = _split_folders(folder)
    found = {name: _find_only_images(root) for name, root in roots.items()}
    counts = {name: f"{len(files.images):,} images" for name, files in found.items()}
    splits = {n: f"{printable(roots[n].name)}/ ({text})" for n, text in counts.items()}
    chosen: SplitName = split if split in roots else "train"
    root, images = roots[chosen], found[chosen].images
    names, stamp = _order(images)
    folders = {name: _class_folders(root, found[name].images) for name, root in roots.items()}
    warnings = [*_warn_of_files(folder, roots, found, folders), *_compare_classes(roots, folders)]
    if root == folder:
        splits = counts
    if not folders[chosen]:
        return Listing(folder, root, names, None, None, splits, tuple(warnings), stamp)
    # All splits number the classes in the same way, even if one of them lacks some.
    classes = sorted(
        set().union(*folders.values()),
        key=lambda n: (not n.isdecimal(), int(n) if n.isdecimal() else 0, n),
    )
    index = {name: i for i, name in enumerate(classes)}
    labels = np.array([index[name.split("/", 1)[0]] for name in names], np.int64)
    shown = tuple(map(printable, classes))
    return Listing(folder, root, names, labels, shown, splits, tuple(warnings), stamp)


def find_images(folder: Path) -> Found:
    """Find the image files below a folder, and what else is there.

    An image is a file, or a link to a file in the same folder, whose name ends in one of
    `SUFFIXES`. Links to folders are not followed. What the names of `_SYSTEM` and `_TEXTS` match is
    left out.
    """
    found, top = Found({}, {}, []), os.path.realpath(folder)
    pending = [""]  # not a recursion: folders can be nested deeper than functions
    while pending:
        prefix = pending.pop()
        try:
            with os.scandir(folder / prefix) as entries:
                listed = [entry for entry in entries if not _SYSTEM.fullmatch(entry.name)]
        except OSError as error:
            found.others[prefix or "."] = f"it cannot be read: {error.strerror}"
            continue
        for entry in listed:
            name = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                pending.append(f"{name}/")
                found.empty.append(f"{name}/")
            elif not _TEXTS.fullmatch(entry.name):
                if reason := _why_not(entry, top):
                    found.others[name] = reason
                else:
                    found.images[name] = entry
    used = {f"{part}/" for name in found.images for part in _parents(name)}
    found.empty[:] = sorted(name for name in found.empty if name not in used)
    return found


def _parents(name: str) -> Iterable[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _why_not(entry: os.DirEntry[str], top: str) -> str | None:
    """Return why an entry that is no folder is not an image of the folder `top`."""
    if entry.is_symlink():
        target = os.path.realpath(entry.path)
        if not Path(target).is_relative_to(top):
            return f"links that lead out of the folder are refused; copy {target} instead"
        if not Path(target).exists():
            return "a link that leads nowhere"
        if Path(target).is_dir():
            return "links to folders are not followed"
    if not entry.name.lower().endswith(SUFFIXES):
        return f"only {', '.join(SUFFIXES)} are"
    return None if entry.is_file() else "a pipe, socket or device"


def _split_folders(folder: Path) -> dict[SplitName, Path]:
    """Return the folders of the splits, or only the folder itself as train.

    Raises:
        DataError: There are split folders, but also others, two of a split, or none of train.
    """
    with os.scandir(folder) as entries:
        listed = [entry for entry in entries if not _SYSTEM.fullmatch(entry.name)]
    links = sorted(e.name for e in listed if e.is_symlink() and Path(e.path).is_dir())
    names = sorted([*links, *(e.name for e in listed if e.is_dir(follow_symlinks=False))])
    parsed = {name: parse_split(name) for name in names}
    splits = [split for split, _ in parsed.values()]
    alike = len(names) > 1 and None not in splits and len({r for _, r in parsed.values()}) == 1
    if not (alike and "train" in splits) and not any(s and not r for s, r in parsed.values()):
        return {"train": folder}
    others = [name for name, (split, rest) in parsed.items() if not split or (rest and not alike)]
    twice = [name for name, (split, _) in parsed.items() if split and splits.count(split) > 1]
    problem = None
    if others:
        problem = f"{_join_folders(others)} beside folders with the names of splits"
    elif twice:
        problem = f"more than one folder of a split, {_join_folders(twice)}"
    elif "train" not in splits:
        problem = f"{_join_folders(names)} without a folder train/"
    if problem:
        raise DataError(
            f"{folder}: holds {problem}. Folders called train, val and test are splits: train is "
            "needed, and all classes belong into the splits. If these are the classes, move them "
            f"all into a folder train/. Received: {_join_folders(names)}"
        )
    if links:
        raise not_images(folder, links, 0, "links to folders are not followed")
    return {split: folder / name for name, (split, _) in parsed.items() if split}


def _join_folders(names: Iterable[str]) -> str:
    return _join([f"{name}/" for name in names])


def _join(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(map(printable, names[:_NAMED])) + more


def _find_only_images(root: Path) -> Found:
    found = find_images(root)
    if not found.images:
        kinds, others = ", ".join(SUFFIXES), found.others
        received = f" Received: {len(others):,} other files, such as" if others else ""
        received += f" {min(others)} ({others[min(others)]})" if others else ""
        raise DataError(f"{root}: holds no images ({kinds}) and no IDX files.{received}")
    if found.others:
        first = min(found.others)
        raise not_images(root, list(found.others), len(found.images), found.others[first])
    return found


def _order(images: Mapping[str, os.DirEntry[str]]) -> tuple[list[str], str]:
    """Return the names of images in their order, and their stamp."""
    ordered = []
    for name, entry in images.items():
        state = entry.stat()
        stamp = f"{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns}\n"
        ordered.append((hashlib.sha256(os.fsencode(name)).digest(), stamp.encode(), name))
    ordered.sort()
    stamp = hashlib.sha256(b"".join(hashed + state for hashed, state, _ in ordered)).hexdigest()
    return [name for *_, name in ordered], stamp


def _class_folders(root: Path, names: Collection[str]) -> set[str]:
    """Return the classes of images, none if one of them is outside a class folder."""
    inside: defaultdict[str, set[str]] = defaultdict(set)
    for name in names:
        top, _, rest = name.partition("/")
        inside[top].add(rest.partition("/")[0] if "/" in rest else "")
    for name, folders in sorted(inside.items()):
        splits = {s for s, rest in map(parse_split, folders) if s and not rest}
        if "train" in splits and len(splits) > 1:
            raise DataError(
                f"{root / name}: holds split folders, {_join_folders(sorted(folders))}, but the "
                "outermost folders must be the splits. If it is a data set, set data.path to it"
            )
    return set(inside) if all("/" in name for name in names) else set()


def _warn_of_files(
    folder: Path,
    roots: Mapping[SplitName, Path],
    found: Mapping[SplitName, Found],
    folders: Mapping[SplitName, Collection[str]],
) -> Iterable[str]:
    """Yield warnings of images and folders that are not used, or not as classes."""
    for name, root in roots.items():
        if empty := found[name].empty:
            yield f"{root}: folders without images are skipped: {_join(empty)}"
        outside = sorted(n for n in found[name].images if "/" not in n)
        if outside and len(outside) < len(found[name].images):
            yield (
                f"{root}: no classes are used, because not all images are in class folders. "
                f"Outside: {_join(outside)}"
            )
        folded = Counter(map(_fold, folders[name]))
        if alike := sorted(n for n in folders[name] if folded[_fold(n)] > 1):
            yield f"{root}: classes whose names differ only in case: {_join(alike)}"
    if roots["train"] != folder:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if not _SYSTEM.fullmatch(e.name)]
        if images := sorted(n for n in names if n.lower().endswith(SUFFIXES)):
            yield f"{folder}: images beside the split folders are not used: {_join(images)}"


def _compare_classes(
    roots: Mapping[SplitName, Path], folders: Mapping[SplitName, Collection[str]]
) -> Iterable[str]:
    """Yield warnings of classes that are not in train; DataError if that must be a mistake."""
    train = set(folders["train"])
    for name in roots.keys() - {"train"}:
        classes, folded = set(folders[name]), set(map(_fold, train))
        more = sorted(classes - train)
        where = f"{roots[name]}: its classes are not those of {printable(roots['train'].name)}/"
        if bool(train) != bool(classes):
            without = roots["train" if classes else name]
            yield f"{without}: its images are not in class folders, so they have no labels"
        elif more and (not classes & train or any(_fold(n) in folded for n in more)):
            raise DataError(f"{where}, {_join(sorted(train))}. Received: {_join(sorted(classes))}")
        elif more:
            yield f"{where}; only here: {_join(more)}"


def _fold(name: str) -> str:
    """Return what names have in common that look alike: other case, other Unicode form."""
    return unicodedata.normalize("NFC", name).casefold()


def not_images(root: Path, bad: Sequence[str], good: int, reason: str) -> DataError:
    """Return the error for the files `bad` in `root`; `reason` is that of the first by name."""
    more = f", and {len(bad) - 1:,} other files are not" if len(bad) > 1 else ""
    return DataError(
        f"{printable(root / min(bad))}: is not an image ({reason}){more}; {good:,} files here are "
        "images. Move files that are not images out of the folder"
    )


def check_sizes(
    folder: Path, sizes: Mapping[tuple[int, int], Sequence[str]], shape: Shape, *, crop: bool
) -> None:
    """Raise DataError unless `sizes`, (height, width) to names, has only the size of `shape`."""
    fix = f"set data.resize to [{shape[0]},{shape[1]}]"
    if len(sizes) > 1:
        common = sorted(sizes, key=lambda size: -len(sizes[size]))
        named = " and ".join(
            f"{len(sizes[s]):,} of {s[0]} x {s[1]}, such as {printable(sizes[s][0])},"
            for s in common[:2]
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
