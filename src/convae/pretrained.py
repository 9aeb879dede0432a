"""Weights that come with the package: assets/pretrained/NAME.keras, and a card beside each.

The card, NAME.json, holds the config, the seed, the data's hash, the metrics, what it was trained
on and by which command. Shipped weights are used as a run: see `unpack`.
"""

from __future__ import annotations

import difflib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convae import atomic
from convae.errors import UserError

if TYPE_CHECKING:
    from convae.run import Run

FOLDER = Path(__file__).parent / "assets" / "pretrained"
PREFIX = "pretrained:"


def names() -> list[str]:
    """What is shipped."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def card(name: str) -> dict[str, Any]:
    """The card of `name`. Raises UserError, with the nearest names, if nothing is called so."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), 3, 0.4) or names()
        raise UserError(f"no shipped weights are called {name!r:.80}; there are: {', '.join(near)}")
    return dict(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))


def unpack(name: str, outputs: str = "outputs") -> Run:
    """The shipped weights as a run, outputs/NAME/pretrained; its files are made where they lack.

    Raises UserError if nothing is called `name`, or the folder cannot be written.
    """
    from convae.run import Run

    told = card(name)
    run = Run(Path(outputs) / name / "pretrained")
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        weights = run.path / "best.keras"
        temporary = atomic.aside(weights)
        shutil.copyfile(FOLDER / f"{name}.keras", temporary)
        atomic.replace(temporary, weights)
        atomic.write_atomic(run.path / "config.yaml", told["config"].encode())
    except OSError as error:
        raise UserError(f"{run.path}: shipped weights cannot be unpacked here: {error}") from None
    if not run.manifest:
        run.update_manifest(**told["manifest"])
    return run
