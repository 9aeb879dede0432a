"""Trees of plain values: their leaves by dotted key, and where two trees differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a tree by dotted key, such as `model.encoder.0.filters`.

    A list of mappings is a level of the tree, with places as keys; any other list is one leaf, and
    so is an empty mapping.
    """
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        below = value
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            below = dict(enumerate(value))
        if isinstance(below, Mapping) and below:
            leaves |= flatten(below, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return (old value, new value) by dotted key where two trees differ.

    A key that one of them lacks counts as None there.
    """
    old, new = flatten(before), flatten(after)
    keys = dict.fromkeys((*old, *new))
    return {k: (old.get(k), new.get(k)) for k in keys if old.get(k) != new.get(k)}


def format_leaves(tree: Mapping[str, Any]) -> dict[str, str]:
    """Return the leaves of a tree as text, lists with commas."""
    return {
        key: ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for key, value in flatten(tree).items()
    }
