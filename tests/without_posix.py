"""Commands of convae in one process that has only what Windows has, too, and refuses what it does.

    python -m tests.without_posix '[["train", "configs/mnist.yaml"], ["eval"]]'

Nothing of POSIX alone can be imported or called, /proc is gone, folders cannot be opened, links
cannot be made, no open file can be renamed or deleted, and only what may be written can be synced.
`sys.platform` stays: many libraries look at it.
"""

import builtins
import io
import json
import os
import pathlib
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty")
NAMES = {
    os: (
        "O_DIRECTORY O_NOFOLLOW O_NONBLOCK fdatasync fork forkpty getsid getuid killpg mkfifo nice "
        "posix_fadvise pread preadv pwrite pwritev sched_getaffinity sched_setaffinity setsid "
        "sysconf"
    ),
    signal: "SIGALRM SIGHUP SIGKILL SIGQUIT SIGUSR1 SIGUSR2 pthread_sigmask sigwait",
}
_listdir, _readlink, _open, _stat = os.listdir, os.readlink, os.open, os.stat
_read_only: set[int] = set()


def hide() -> None:
    """Take away what Windows lacks."""
    for module in MODULES:
        sys.modules[module] = None  # type: ignore[assignment]
    for owner, names in NAMES.items():
        for name in names.split():
            delattr(owner, name)
    os.open = _os_open
    os.fsync = _checked(os.fsync, _refuse_read_only)
    os.stat = _checked(os.stat, _refuse_proc)
    io.open = builtins.open = _checked(io.open, _refuse_proc, _refuse_name)
    os.mkdir = _checked(os.mkdir, _refuse_name)
    os.replace = os.rename = _checked(os.replace, _refuse_open)
    os.unlink = os.remove = _checked(os.unlink, _refuse_open)
    os.symlink = _checked(os.symlink, _refuse)
    shutil._use_fd_functions = False  # type: ignore[attr-defined]
    tempfile.TemporaryFile = tempfile.NamedTemporaryFile  # type: ignore[assignment]


def _checked(function: Callable[..., Any], *checks: Callable[..., None]) -> Callable[..., Any]:
    def checked(*arguments: Any, **options: Any) -> Any:
        for check in checks:
            check(*arguments)
        return function(*arguments, **options)

    return checked


def _os_open(path: Any, flags: int, *rest: Any, **options: Any) -> int:
    if pathlib.Path(path).is_dir():
        raise PermissionError(13, "Permission denied", path)
    handle = _open(path, flags, *rest, **options)
    (_read_only.discard if flags & (os.O_WRONLY | os.O_RDWR) else _read_only.add)(handle)
    return handle


def _refuse(*_: Any) -> None:
    raise OSError(1314, "A required privilege is not held by the client")


def _refuse_read_only(handle: int) -> None:
    if handle in _read_only:
        raise OSError(9, "Bad file descriptor")


def _refuse_proc(path: Any, *_: Any) -> None:
    if not isinstance(path, int) and os.fsdecode(path).startswith("/proc"):
        raise FileNotFoundError(2, "No such file or directory", path)


def _refuse_name(path: Any, *_: Any) -> None:
    if not isinstance(path, int) and set(os.fsdecode(path)) & set('<>:"|?*'):
        raise OSError(22, "Invalid argument", path)


def _refuse_open(*paths: Any) -> None:
    opened = set()
    for handle in _listdir("/proc/self/fd"):
        with suppress(OSError):  # the handle of the list itself
            opened.add(_readlink(f"/proc/self/fd/{handle}"))
    for path in paths:
        if str(Path(path).absolute()) in opened:
            raise PermissionError(13, "The file is being used by another process", path)


if __name__ == "__main__":
    # They look at the system when they are imported.
    import filelock  # noqa: F401
    import h5py  # noqa: F401
    import keras  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import tensorflow  # noqa: F401

    hide()
    from convae.cli.main import main

    for words in json.loads(sys.argv[1]):
        sys.argv = ["convae", *words]
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise
