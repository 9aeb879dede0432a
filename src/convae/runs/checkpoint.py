"""A checkpoint as bytes: an .npz that carries its own SHA-256, so that no flipped bit goes unseen.

An .npz has checksums of its arrays, but not of the zip's headers and names. The hash of all that
comes before it stands in the zip's comment, at the end: the file stays an ordinary .npz.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convae import archive

DIGEST = 64  # hexadecimal digits


def pack(state: Mapping[str, Any], arrays: Sequence[NDArray[Any]]) -> bytes:
    """`state` (JSON) as arr_0 and `arrays` after it, as an .npz with its hash."""
    file = io.BytesIO()
    np.savez(file, np.frombuffer(json.dumps(state).encode(), np.uint8), *arrays)
    body = file.getvalue()[:-2] + DIGEST.to_bytes(2, "little")  # the comment's length comes last
    return body + hashlib.sha256(body).hexdigest().encode()


def unpack(data: bytes) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """What `pack` packed. Raises ValueError if a single bit differs, or it is made by another hand.

    The hash finds accidents; anyone can make a new one, so the arrays are not trusted for it.
    """
    body, digest = data[:-DIGEST], data[-DIGEST:]
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ValueError("its SHA-256 does not match")
    held = archive.members(data)
    try:
        text, *arrays = (archive.array(held[f"arr_{i}.npy"]) for i in range(len(held)))
    except KeyError as error:
        raise ValueError(f"lacks {error}") from None
    return archive.mapping(text.tobytes()), arrays
