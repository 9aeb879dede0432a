"""What a command says beside its result: on stderr, as much as was asked for.

stdout is kept for results, so that a program can read them. With --quiet only results and errors
remain; --verbose adds the details. Colours are for terminals, and NO_COLOR turns them off there.
"""

from __future__ import annotations

import os
import sys
from typing import Literal

Level = Literal["quiet", "normal", "verbose"]

# Set once, by the command line, before a command begins.
_level: Level = "normal"


def set_level(level: Level) -> None:
    """How much is said from now on."""
    global _level  # noqa: PLW0603 - one process has one stderr
    _level = level


def is_quiet() -> bool:
    """Whether only results and errors are wanted."""
    return _level == "quiet"


def is_verbose() -> bool:
    """Whether the details are wanted."""
    return _level == "verbose"


def no_bar() -> bool | None:
    """What tqdm takes as `disable`: None hides a bar only where there is no terminal."""
    return True if is_quiet() else None


def say(text: str) -> None:
    """A line for the user."""
    if not is_quiet():
        print(text, file=sys.stderr, flush=True)


def detail(text: str) -> None:
    """A line for the user who asked for details."""
    if is_verbose():
        print(paint(text, "grey"), file=sys.stderr, flush=True)


def suggest(command: str, *, silent: bool = False) -> None:
    """What one would do next; `silent` when a program reads the answer."""
    if not silent:
        say(f"{paint('next:', 'blue')} {command}")


def fail(text: str) -> None:
    """An error; it is always said."""
    print(f"{paint('convae:', 'red')} {printable(text)}", file=sys.stderr)


def printable(text: str) -> str:
    """Text from files and names without what could steer a terminal; lines and blanks stay."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def paint(text: str, colour: Literal["blue", "green", "grey", "red"]) -> str:
    """`text` in a colour, where stderr is a terminal that shows colours."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if plain or not sys.stderr.isatty():
        return text
    code = {"blue": "34", "green": "32", "grey": "90", "red": "1;31"}[colour]
    return f"\033[{code}m{text}\033[0m"
