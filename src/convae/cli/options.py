"""The words of the command line: arguments that commands share, and where a word may stand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

NO_RUNS = {"latest", "pretrained"}  # folders beside runs: a link, and what comes with the package
GLOBAL = ("--quiet", "-q", "--verbose", "-v")  # understood anywhere on the line


def complete_config(incomplete: str) -> list[str]:
    """For the shell: YAML files, and the folders on the way to them."""
    found = sorted(Path().glob(f"{incomplete}*")) if not incomplete.startswith("/") else []
    return [f"{p}/" if p.is_dir() else str(p) for p in found if p.is_dir() or p.suffix == ".yaml"]


def complete_run(incomplete: str) -> list[str]:
    """For the shell: names and ids of runs in outputs/, the newest first."""
    # As Run.all does, without the half second that its imports take: a shell waits for this.
    paths = sorted(Path("outputs").glob("*/*/config.yaml"), key=lambda p: p.parent.name)
    parts = [(path.parts[1], path.parts[2]) for path in reversed(paths)]
    names = dict.fromkeys(name for pair in parts for name in pair if name not in NO_RUNS)
    return [name for name in ("latest", *names) if name.startswith(incomplete)]


ConfigPath = Annotated[
    str, typer.Argument(metavar="CONFIG", help="A YAML file.", autocompletion=complete_config)
]
RunName = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN]", help="A run's folder, id or name; the newest.", autocompletion=complete_run
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE ...]", help="Overrides, such as training.epochs=5."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
RunsDir = Annotated[str, typer.Option("--runs-dir", metavar="FOLDER", help="Where runs are kept.")]


def split(first: str | None, overrides: list[str] | None) -> tuple[str | None, list[str]]:
    """RUN or CONFIG may be left away: then the first word is an override like the others."""
    words = list(overrides or [])
    return (None, [first, *words]) if first is not None and "=" in first else (first, words)


def named(words: list[str]) -> list[str]:
    """The names of files, with the lines of stdin in the place of a `-`."""
    lines = (sys.stdin.read().split("\n") if word == "-" else [word] for word in words)
    return [name for part in lines for name in part if name]


def with_run(words: list[str]) -> list[str]:
    """`--resume` without a run means the newest."""
    if "--resume" in words:
        after = words.index("--resume") + 1
        if after == len(words) or words[after].startswith("-") or "=" in words[after]:
            return [*words[:after], "latest", *words[after:]]
    return words


def global_first(words: list[str]) -> list[str]:
    """The words with --quiet and --verbose before the command, wherever they were written."""
    end = words.index("--") if "--" in words else len(words)
    first = [word for word in words[:end] if word in GLOBAL]
    return [*first, *(word for word in words[:end] if word not in GLOBAL), *words[end:]]
