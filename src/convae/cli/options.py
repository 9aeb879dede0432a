"""Arguments and options that commands share, and completion for the shell."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from convae.config import shipped

NO_RUNS = {"latest", "pretrained"}  # folders beside runs: a link, and what comes with the package


def complete_shipped(incomplete: str) -> list[str]:
    """Return names of shipped configs."""
    return [name for name in shipped.names() if name.startswith(incomplete)]


def complete_config(incomplete: str) -> list[str]:
    """Return shipped configs, YAML files, and the folders on the way to them."""
    found = sorted(Path().glob(f"{incomplete}*")) if not incomplete.startswith("/") else []
    files = [f"{p}/" if p.is_dir() else str(p) for p in found if p.is_dir() or p.suffix == ".yaml"]
    return [*complete_shipped(incomplete), *files]


def complete_run(incomplete: str) -> list[str]:
    """Return names and ids of runs in outputs/, the newest first."""
    # As Run.all does, without the half second of its imports: a shell waits for this.
    paths = sorted(Path("outputs").glob("*/*/config.yaml"), key=lambda p: p.parent.name)
    parts = [(path.parts[1], path.parts[2]) for path in reversed(paths)]
    names = dict.fromkeys(name for pair in parts for name in pair if name not in NO_RUNS)
    return [name for name in ("latest", *names) if name.startswith(incomplete)]


def complete_config_or_run(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return runs behind --resume, configs elsewhere."""
    return (complete_run if ctx.params.get("resume") else complete_config)(incomplete)


ConfigPath = Annotated[
    str,
    Argument(
        metavar="CONFIG", help="A YAML file or a shipped config.", autocompletion=complete_config
    ),
]
RunName = Annotated[
    str | None,
    Argument(
        metavar="RUN",
        help="A run's folder, id or name; by default the newest run.",
        autocompletion=complete_run,
    ),
]
Overrides = Annotated[
    list[str] | None, Argument(metavar="KEY=VALUE", help="Overrides, such as training.epochs=5.")
]
Json = Annotated[bool, Option("--json", help="Print JSON on stdout.")]
RunsDir = Annotated[str, Option(metavar="FOLDER", help="Where runs are kept.")]
OutputDir = Annotated[
    str | None, Option(metavar="FOLDER", help="Where to write; by default a folder of the run.")
]


def split_overrides(first: str | None, overrides: list[str] | None) -> tuple[str | None, list[str]]:
    """Return an optional first argument, and overrides; the argument may be one of them."""
    words = list(overrides or [])
    return (None, [first, *words]) if first is not None and "=" in first else (first, words)


def read_names(words: list[str]) -> list[str]:
    """Return the names of files, with the lines of stdin in the place of a `-`."""
    lines = (sys.stdin.read().split("\n") if word == "-" else [word] for word in words)
    return [name for part in lines for name in part if name]
