"""Standard streams that stop no command: closed, full, or without the characters of a text.

A training must not end because its log cannot be written, and a file opened by TensorFlow must not
get the number of a closed stream, into which it then logs.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import Any

from convae.console import print_error, printable

PLAIN = {  # for encodings without these characters
    "–": "-", "—": "-", "−": "-", "…": "...", "×": "x", "·": "*", "→": "->", "ᵀ": "^T", "█": "#",
}  # fmt: skip


class _Stream(io.FileIO):
    """A stream that drops what cannot be written, and keeps the first error."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = self.error or error
            return len(data)


def open_streams() -> None:
    """Replace the standard streams of this process."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # the null device gets the lowest free number, which is this one
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    codecs.register_error("plain", _encode_plain)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stdout is sys.__stdout__:
        sys.stdout = _open(1, sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _open(2, sys.stderr)


def _open(number: int, before: Any) -> Any:
    if sys.platform == "win32" and before and before.isatty():  # a console takes no bytes
        before.reconfigure(errors="plain")
        return before
    raw = _Stream(number, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding if before else "utf-8",
        errors="plain",
        line_buffering=number == 2 or raw.isatty() or bool(before and before.write_through),
    )


def _encode_plain(error: UnicodeError) -> tuple[str, int]:
    """Encode what an encoding lacks in plain characters, or as an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    escaped = printable(character).encode("ascii", "backslashreplace").decode()
    return PLAIN.get(character, escaped), error.start + 1


def check_output(code: Any) -> Any:
    """Return the exit code of a command, after an error if its result could not be written."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    error = raw.error if isinstance(raw, _Stream) else None
    if error is None or isinstance(error, BrokenPipeError):  # as of `convae ... | head`
        return code
    print_error(f"the result cannot be written to stdout: {error.strerror}")
    return code or 1
