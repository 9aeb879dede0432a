"""Names of the training, validation and test splits, of folders, files and arrays alike."""

from __future__ import annotations

import re
from typing import Literal

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
