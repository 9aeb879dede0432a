"""Weights that come with the package: pretrained_weights/NAME.keras, and a card beside each.

The card, NAME.json, holds the config, the seed, the data's hash, the metrics, what it was trained
on and by which command. Shipped weights are used as a run: see `unpack`.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

from convae import files as atomic
from convae.errors import RunError

FOLDER = Path(__file__).with_name("pretrained_weights")
PREFIX = "pretrained:"
UNPACKED = "pretrained"  # the folder of a run of them, below their name's


def names() -> list[str]:
    """What is shipped."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def card(name: str) -> dict[str, Any]:
    """The card of `name`. Raises RunError, with the nearest names, if nothing is called so."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), 3, 0.4) or names()
        raise RunError(f"no shipped weights are called {name!r:.80}; there are: {', '.join(near)}")
    return dict(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))


def unpack(name: str, outputs: str = "outputs") -> Path:
    """The folder of a run of the shipped weights, outputs/NAME/pretrained, made anew.

    Raises RunError if nothing is called `name`, or the folder cannot be written.
    """
    told = card(name)
    folder = Path(outputs) / name / UNPACKED
    files = {
        "config.yaml": told["config"].encode(),
        "manifest.json": json.dumps(told["manifest"], indent=2).encode(),
        "best.keras": (FOLDER / f"{name}.keras").read_bytes(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            atomic.write_atomic(folder / file, content)
    except OSError as error:
        raise RunError(f"{folder}: shipped weights cannot be unpacked here: {error}") from None
    return folder
