"""Write files atomically: complete or not at all, even after a crash; and lock them.

Windows differs from Linux and macOS in three ways. It opens no folders, so only files are synced.
It renames no file onto one that another program has open, so a rename is tried for a second. And a
locked byte cannot be read, so the line in a lock file begins with its second byte.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from convae.errors import FileError

RENAME_SECONDS = 1.0 if sys.platform == "win32" else 0.0


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


def check_folder(folder: Path) -> None:
    """Raise FileError if files cannot be written into `folder`, which may not exist yet.

    For mistakes that should be found before the work is done. Nothing is made.
    """
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if there.is_dir() and os.access(there, os.W_OK):
            return
        reason = f"no permission in {there}" if there.is_dir() else f"{there} is not a folder"
    except OSError as error:  # such as a name that is too long
        reason = str(error.strerror)
    raise FileError(f"{folder}: cannot be written: {reason}")


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


def check_temporary_folder() -> None:
    """Raise FileError if no folder for temporary files can be written, such as on a full disk."""
    try:
        tempfile.gettempdir()
    except OSError as error:
        raise FileError(f"{error}. Keras, too, needs one; TMPDIR names another") from None


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
    if sys.platform == "win32":  # there os.kill(process, 0) would send Ctrl-C
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        handle = kernel.OpenProcess(0x100000, False, process & 0xFFFFFFFF)  # SYNCHRONIZE
        if not handle:
            return ctypes.get_last_error() == 5  # ERROR_ACCESS_DENIED: another user's
        running = kernel.WaitForSingleObject(handle, 0) == 0x102  # WAIT_TIMEOUT
        kernel.CloseHandle(handle)
        return bool(running)
    else:  # noqa: RET505 - mypy skips the branch of another system
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
    rename(temporary, path)
    _sync(path.parent)


def rename(source: Path, target: Path) -> None:
    """Rename a file, and replace `target` if it exists. Raises OSError."""
    deadline = time.monotonic() + RENAME_SECONDS
    while True:
        try:
            source.replace(target)
            return
        except PermissionError:  # on Windows: a virus scanner or an indexer has the file open
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.02)


def _sync(path: Path) -> None:
    windows = not hasattr(os, "O_DIRECTORY")
    if windows and path.is_dir():
        return
    # Windows syncs only a file that is open for writing.
    handle = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
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
    from filelock import lock_descriptor  # here, because most commands lock nothing

    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            free = lock_descriptor(handle, blocking=False)
        except OSError:  # a file system without locks
            free = True
        if not free:
            os.lseek(handle, 1, os.SEEK_SET)
            on_busy(os.read(handle, 1000).decode(errors="replace"))
            lock_descriptor(handle)
        with suppress(OSError):
            os.ftruncate(handle, 0)
            os.lseek(handle, 0, os.SEEK_SET)
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            os.write(handle, f" {os.getpid()} on {platform.node()} since {since}".encode())
        yield
    finally:
        os.close(handle)
