"""Shipped weights, which are used as a run: pretrained_weights/NAME.keras.

The card of each, NAME.json, holds the config, the manifest and the metrics of the training.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

from convae import files
from convae.config.loader import parse_config
from convae.errors import FileError, RunError

FOLDER = Path(__file__).with_name("pretrained_weights")
PREFIX = "pretrained:"
LICENSE = "MIT"  # of the weights, as of the package
UNPACKED = "pretrained"  # the name of the folder of a run of shipped weights


def names() -> list[str]:
    """Return the names of all shipped weights."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def card(name: str) -> dict[str, Any]:
    """Return the card of `name`. Raises RunError, with the nearest names, for an unknown one."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), 3, 0.4) or names()
        raise RunError(f"no shipped weights are called {name!r:.80}; there are: {', '.join(near)}")
    return dict(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))


def task(shipped: dict[str, Any]) -> str:
    """Return the task of a card."""
    return parse_config(shipped["config"], f"the card {shipped['name']}").task.type


def unpack(name: str, outputs: str = "outputs") -> Path:
    """Write shipped weights as a run, and return its folder: `outputs`/`name`/pretrained.

    Raises:
        RunError: No shipped weights are called `name`.
        FileError: The folder cannot be written.
    """
    shipped = card(name)
    folder = Path(outputs) / name / UNPACKED
    contents = {
        "config.yaml": shipped["config"].encode(),
        "manifest.json": json.dumps(shipped["manifest"], indent=2).encode(),
        "best.keras": (FOLDER / f"{name}.keras").read_bytes(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in contents.items():
            files.write_atomic(folder / file, content)
    except OSError as error:
        raise FileError(f"{folder}: shipped weights cannot be unpacked here: {error}") from None
    return folder
