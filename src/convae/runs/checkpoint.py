"""The checkpoints of a run: checkpoint/latest.npz, and previous.npz, the one before it.

A checkpoint is an .npz file of a state (JSON) and arrays. An .npz has checksums of its arrays, but
not of the headers and names. So the SHA-256 of everything before it stands at the end of the file,
in the zip's comment, and any flipped bit is noticed; the file stays an ordinary .npz.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convae import archive, files
from convae.errors import CheckpointError

# In the order in which to load them: a kill may come after new.npz was checked and before it was
# renamed to latest.npz.
FILES = ("new.npz", "latest.npz", "previous.npz")
DIGEST = 64  # hexadecimal digits of a SHA-256


def save(folder: Path, state: Mapping[str, Any], arrays: Sequence[NDArray[Any]]) -> None:
    """Write `state` (JSON) and `arrays`; the checkpoint before stays until this one is complete.

    Raises:
        OSError: It cannot be written, or reads back differently.
    """
    data = encode(state, arrays)
    new, latest, previous = (folder / name for name in FILES)
    files.write_atomic(new, data)
    if new.read_bytes() != data:
        raise OSError(f"{new} reads back differently from what was written")
    if latest.exists():
        files.rename(latest, previous)
    files.replace(new, latest)


def exists(folder: Path) -> bool:
    """Return whether the folder holds a checkpoint, complete or not."""
    return any((folder / name).exists() for name in FILES)


def load(folder: Path) -> tuple[dict[str, Any], list[NDArray[Any]], str | None]:
    """Load the newest complete checkpoint.

    Returns:
        Its state, its arrays, and a notice if a newer checkpoint is damaged.

    Raises:
        CheckpointError: There is no complete checkpoint.
    """
    notice = None
    for name in FILES:
        path = folder / name
        try:
            return *decode(path.read_bytes()), notice
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            notice = f"{path} is damaged ({error}); resuming from the checkpoint before it"
    raise CheckpointError(
        f"{folder.parent}: has no complete checkpoint to resume from. "
        f"{notice or 'None was written yet'}. best.keras stays, if an epoch was completed"
    )


def encode(state: Mapping[str, Any], arrays: Sequence[NDArray[Any]]) -> bytes:
    """Return an .npz with its hash: `state` as arr_0, and the arrays after it."""
    file = io.BytesIO()
    np.savez(file, np.frombuffer(json.dumps(state).encode(), np.uint8), *arrays)
    body = file.getvalue()[:-2] + DIGEST.to_bytes(2, "little")  # the length of the zip's comment
    return body + hashlib.sha256(body).hexdigest().encode()


def decode(data: bytes) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Return the state and the arrays that `encode` was given.

    Raises:
        ValueError: A bit differs, or the file was not made by `encode`.
    """
    body, digest = data[:-DIGEST], data[-DIGEST:]
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ValueError("its SHA-256 does not match")
    held = archive.members(data)  # the hash finds accidents, not attacks: all is checked
    try:
        text, *arrays = (archive.array(held[f"arr_{i}.npy"]) for i in range(len(held)))
    except KeyError as error:
        raise ValueError(f"lacks {error}") from None
    return archive.mapping(text.tobytes()), arrays
