"""Write files atomically: complete or not at all, even after a crash; and lock them."""

from __future__ import annotations

import fcntl
import os
import platform
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from convae.errors import FileError


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path`, which keeps its old content until all is written. Raises OSError."""
    with whole(path) as temporary:
        temporary.write_bytes(data)


def write_output(path: str | Path, data: bytes) -> Path:
    """Write a file that the user named, and its folders; FileError if it cannot be written."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from None
    return path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to, which becomes `path` at the end. Raises OSError."""
    temporary = aside(path)
    try:
        yield temporary
        replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def aside(path: Path) -> Path:
    """Return the temporary path of this process for `path`, in its folder, with its suffix."""
    return path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files in `folder` of processes that have ended."""
    for path in folder.glob(".*.partial*"):
        process = re.search(r"\.(\d+)\.partial", path.name)
        if process and not is_running(int(process[1])):
            path.unlink(missing_ok=True)


def is_running(process: int) -> bool:
    """Return whether the process with this id runs and is not this one."""
    if process == os.getpid():  # containers reuse ids: the file is of an earlier process
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True


def replace(temporary: Path, path: Path) -> None:
    """Sync a complete file to the disk, rename it to `path`, and sync the folder."""
    _sync(temporary)
    temporary.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
