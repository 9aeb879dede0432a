"""Files that are there whole or not at all, also after a crash: written aside, synced, renamed."""

from __future__ import annotations

import fcntl
import os
import platform
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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


@contextmanager
def locked(path: Path, on_busy: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of `path` inside a `with` block.

    The kernel releases it when the process ends, however it ends. On a file system without locks
    nothing is locked.

    Args:
        path: The lock file, which is created. It holds a line that names the process with the lock.
        on_busy: Called with that line if another process holds the lock. It may raise; if it
            returns, this process waits.

    Raises:
        OSError: The file cannot be opened.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_busy(os.read(handle, 1000).decode(errors="replace"))
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            pass
        with suppress(OSError):
            os.ftruncate(handle, 0)
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            os.pwrite(handle, f"{os.getpid()} on {platform.node()} since {since}".encode(), 0)
        yield
    finally:
        os.close(handle)
