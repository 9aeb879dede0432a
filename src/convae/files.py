"""Files that are there whole or not at all, also after a crash: written aside, synced, renamed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds all of it, or what it held before. Raises OSError."""
    with whole(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; what is there at the end gets its own. Raises OSError."""
    temporary = aside(path)
    try:
        yield temporary
        replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def aside(path: Path) -> Path:
    """A name beside `path`, with its ending, for what is not whole yet."""
    return path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that no longer live left half written in `folder`."""
    for path in folder.glob(".*.partial*"):
        process = re.search(r"\.(\d+)\.partial", path.name)
        if process and not lives(int(process[1])):
            path.unlink(missing_ok=True)


def lives(process: int) -> bool:
    """Whether there is such a process, and it is not this one."""
    if process == os.getpid():  # in containers the same ids come again: it was one before us
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True


def replace(temporary: Path, path: Path) -> None:
    """Give a whole file its name, once the disk has it, and make the disk remember the name."""
    for place, rename in ((temporary, True), (path.parent, False)):
        handle = os.open(place, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        if rename:
            temporary.replace(path)
