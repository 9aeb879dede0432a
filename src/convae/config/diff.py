"""Trees of plain values: their leaves by dotted key, and where two of them differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of a tree as (dotted key, text)."""
    for key, leaf in tree.items():
        value = leaf
        if isinstance(value, list) and value and isinstance(value[0], Mapping):  # layers
            value = {str(place): part for place, part in enumerate(value)}
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            yield f"{prefix}{key}", text
