"""Names of the training, validation and test splits, of folders, files and arrays alike."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from convae.errors import DataError

SplitName = Literal["train", "validation", "test"]

_WORDS: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "t10k": "test",
}
_IMAGE_WORDS = {"x", "image", "images", "img", "imgs", "data", "arr"}
_LABEL_WORDS = {"y", "label", "labels", "target", "targets"}


def parse_split(name: str) -> tuple[SplitName | None, tuple[str, ...]]:
    """Return the split that a name contains, if it contains exactly one, and its other words.

    Names of the same data set have the same other words. Case is ignored.

    >>> parse_split("emnist-letters-train-images"), parse_split("TestSet"), parse_split("cat")
    (('train', ('emnist', 'letters', 'images')), ('test', ('set',)), (None, ('cat',)))
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    words = re.findall(r"t10k|[^\W\d_]+|\d+|[^\w\s.-]", spaced)
    found = [word for word in words if word in _WORDS]
    if len(found) != 1:
        return None, tuple(words)
    return _WORDS[found[0]], tuple(word for word in words if word not in _WORDS)


def sort_keys(
    path: Path, keys: Iterable[str]
) -> tuple[dict[SplitName, str], dict[SplitName, str], list[str]]:
    """Return the keys of images and of labels by split, and those that are neither.

    Images are x_train, train_images and the like, by `parse_split`; without a split they are train.

    Raises:
        DataError: Two keys are for the images, or for the labels, of one split.
    """
    images: dict[SplitName, str] = {}
    labels: dict[SplitName, str] = {}
    others = []
    for key in keys:
        split, words = parse_split(key)
        kind = labels if _LABEL_WORDS & {*words} else images
        known = {*words} <= _IMAGE_WORDS | _LABEL_WORDS | {"0"}
        if not known or not (words or split):
            others.append(key)
        elif (first := kind.setdefault(split or "train", key)) != key:
            raise DataError(
                f"{path}: {first} and {key} are both for {split or 'train'}. The keys should be "
                f"x_train, y_train, x_val, y_val, x_test and y_test"
            )
    if len(others) == 1 and not images:
        return {"train": others[0]}, labels, []
    return images, labels, others


def files_of_splits(path: Path) -> dict[SplitName, Path]:
    """Return `path` as train, and the files beside it whose names differ only in the split."""
    split, words = parse_split(path.stem)
    found: dict[SplitName, Path] = {"train": path}
    if split == "train":
        for other in sorted(path.parent.glob(f"*{path.suffix}")):
            name, others = parse_split(other.stem)
            if name and others == words:
                found.setdefault(name, other)
    return found
