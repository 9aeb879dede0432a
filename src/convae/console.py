"""The `convae` logger, and text for a terminal.

A library call logs and prints nothing: `logging.getLogger("convae")` decides what is seen, and its
level also turns progress bars off. The command line installs a handler that writes to stderr, by
--quiet and --verbose; stdout is kept for results, so that a program can read them. Colors are for
terminals, and NO_COLOR turns them off there. A stream that is closed, full or cannot show a
character stops no command: see streams.py.
"""

from __future__ import annotations

import io
import logging
import os
import shutil
import sys
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from html import escape
from importlib.util import find_spec
from typing import Any, Literal

_JOINERS = "\u200c\u200d"  # of letters and emojis

logger = logging.getLogger("convae")
logger.setLevel(logging.INFO)


class _StderrHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        text = paint(text, "gray") if record.levelno < logging.INFO else text
        with _above_bars():
            print(text, file=sys.stderr, flush=True)  # the stderr of now, which tests replace


def _above_bars() -> AbstractContextManager[Any]:
    """Return a context that removes tqdm's bars and draws them again after it."""
    tqdm = sys.modules.get("tqdm")
    return tqdm.tqdm.external_write_mode(file=sys.stderr) if tqdm else nullcontext()


_handler = _StderrHandler()


def set_level(level: Literal["quiet", "normal", "verbose"]) -> None:
    """Show on stderr only errors ("quiet"), messages ("normal"), or details as well ("verbose")."""
    levels = {"quiet": logging.ERROR, "normal": logging.INFO, "verbose": logging.DEBUG}
    logger.setLevel(levels[level])
    logger.addHandler(_handler)
    logger.propagate = False


def progress_bar(iterable: Iterable[Any] | None = None, **options: Any) -> Any:
    """Return a bar with the time left, on a terminal or in a notebook, and not with --quiet.

    It appears after a second, and is removed at its end. In a notebook it is a widget where
    ipywidgets is installed, and else text, which cannot be moved: of nested bars only the first is
    shown.

    Args:
        iterable: What to iterate over; without it call the bar's `update`.
        **options: Of tqdm, such as `total`, `desc` and `unit`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that ipywidgets is not installed
        from tqdm.auto import tqdm
    notebook = "ipykernel" in sys.modules
    shown = notebook or is_terminal()
    if notebook and options.get("position"):
        shown = find_spec("ipywidgets") is not None
    hidden = not (shown and logger.isEnabledFor(logging.INFO))
    return tqdm(iterable, **{"delay": 1, "leave": False, "disable": hidden, **options})


def is_terminal() -> bool:
    """Return whether stderr is a terminal. A program without a console may have no stderr."""
    return sys.stderr is not None and sys.stderr.isatty()


def suggest(command: str, *, silent: bool = False) -> None:
    """Log the next useful command, unless `silent`, for output that a program reads."""
    if not silent:
        logger.info(f"{paint('next:', 'blue')} {command}")


def print_error(text: str) -> None:
    """Print an error on stderr at any level, with control characters escaped."""
    safe = "\n".join(map(printable, text.split("\n")))
    print(f"{paint('convae:', 'red')} {safe}", file=sys.stderr)


def printable(name: object) -> str:
    r"""Return a name, such as that of a file, as text that any terminal, page or figure can show.

    Bytes that are not UTF-8, line breaks, control characters and marks that turn the direction of
    writing become escapes. The result is for people: it may no longer be the path of the file.

    >>> print(printable("caf\udce9"), printable("two\nlines"))
    caf\xe9 two\nlines
    """
    return "".join(map(_escape, str(name)))


def _escape(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs" or character in _JOINERS:
        return character
    code = ord(character)
    # os.fsdecode turns a byte that is not UTF-8 into U+DC00 plus the byte.
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else repr(character)[1:-1]


def paint(text: str, color: Literal["blue", "green", "gray", "red"]) -> str:
    """Return `text` in a color if stderr is a terminal that shows colors."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if plain or not is_terminal():
        return text
    code = {"blue": "34", "green": "32", "gray": "90", "red": "1;31"}[color]
    return f"\033[{code}m{text}\033[0m"


def format_table(
    cells: Sequence[tuple[str, ...]], mark: int | None = None, *, plain: bool = False
) -> str:
    """Return lines of cells as a table, the first two columns left-aligned.

    If stdout is a terminal, rich draws the table and fits it into the width.

    Args:
        cells: the head, and then the lines.
        mark: the line, counted from 0 after the first one, that gets an arrow; not from rich.
        plain: whether to draw it without rich, for a text that does not go to stdout.
    """
    if not plain and sys.stdout is not None and sys.stdout.isatty():
        return _draw_table(cells)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for number, line in enumerate(cells):
        columns = enumerate(zip(line, widths, strict=True))
        aligned = [c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in columns]
        lines.append("  ".join(aligned) + ("  <--" if number - 2 == mark else ""))
    lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(line.rstrip() for line in lines)


def _draw_table(cells: Sequence[tuple[str, ...]]) -> str:
    """Return the table of `format_table` as text with the colors and lines of a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    unicode = sys.stdout.encoding.lower().startswith("utf")
    table = Table(box=box.SIMPLE_HEAD if unicode else box.ASCII, pad_edge=False)
    for number, name in enumerate(cells[0]):
        table.add_column(name.strip(), justify="left" if number < 2 else "right", overflow="fold")
    for line in cells[1:]:
        table.add_row(*(Text(cell.strip()) for cell in line))
    text = io.StringIO()
    width = shutil.get_terminal_size().columns
    Console(file=text, width=width, force_terminal=True).print(table)
    return text.getvalue().strip("\n")


def format_html_table(cells: Sequence[tuple[str, ...]]) -> str:
    """Return lines of cells as an HTML table, for a notebook; the first line is the head."""
    tags = ["th", *["td"] * (len(cells) - 1)]
    head, *rows = (
        "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in line)
        for tag, line in zip(tags, cells, strict=True)
    )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def format_shape(shape: Iterable[object]) -> str:
    """Return a shape as text.

    >>> format_shape((28, 28, 1))
    '28x28x1'
    """
    return "x".join(map(str, shape))


def format_number(value: Any) -> str:
    """Return a number in four significant digits, integers complete, and "" for None.

    >>> [format_number(value) for value in (12785, 34.843, 0.0605149, 2e-5)]
    ['12,785', '34.84', '0.06051', '2.000e-05']
    """
    if value is None:
        return ""
    if not isinstance(value, int | float):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1e3:
        return f"{value:,.0f}"
    return f"{value:.5f}" if 1e-3 <= abs(value) < 1 else f"{value:#.4g}"


def format_duration(seconds: float) -> str:
    """Return a duration as text.

    >>> [format_duration(seconds) for seconds in (8.21, 208, 7500)]
    ['8.2 s', '3:28 min', '2:05 h']
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    rounded = round(seconds)
    if rounded < 3600:
        return f"{rounded // 60}:{rounded % 60:02} min"
    return f"{rounded // 3600}:{rounded % 3600 // 60:02} h"
