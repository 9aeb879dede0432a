"""Faults for a training: functions that replace parts of its process' `os`, clock or engine.

The package contains no hook for them.
"""

from __future__ import annotations

import io
import os
import random
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from shutil import which
from signal import SIGKILL
from typing import Any

import numpy as np

from convae.runs.run import Run

PATIENCE = 900.0  # seconds until a process counts as hung
Action = Callable[[], object]


def kill_at(kind: str, count: int) -> None:
    """SIGKILL after `count` steps, or at the `count`-th point before, inside and after a write."""
    left = [count]

    def point() -> None:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), SIGKILL)

    if kind == "step":
        _after_steps(point)
        return

    def write_bytes(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            point()
            file.write(data[: len(data) // 2])
            file.flush()
            point()
            file.write(data[len(data) // 2 :])

    os.fsync, os.replace = (_surrounded(f, point, point) for f in (os.fsync, os.replace))
    Path.write_bytes = write_bytes  # type: ignore[method-assign,assignment]


def _surrounded(function: Callable[..., Any], before: Action, after: Action) -> Any:
    def wrapped(*arguments: Any, **options: Any) -> Any:
        before()
        result = function(*arguments, **options)
        after()
        return result

    return wrapped


def _after_steps(action: Action) -> None:
    from convae.training.engine import Engine

    engine: Any = Engine
    engine.steps = _surrounded(Engine.steps, lambda: None, action)


def hold() -> None:
    """Stop in the 60th step, in the second epoch, until there is a file `go`."""
    steps = [0]

    def wait() -> None:
        steps[0] += 1
        if steps[0] == 60:
            print("holding", flush=True)
            deadline = time.monotonic() + PATIENCE
            while not Path("go").exists() and time.monotonic() < deadline:
                time.sleep(0.05)

    _after_steps(wait)


def no_space(name: str, nth: int) -> None:
    """Fail the `nth` write of the file `name` half-way, as on a full disk."""
    stem, _, ending = name.rpartition(".")
    writes = [0]

    def fails(path: str) -> bool:
        base = os.path.basename(path)  # noqa: PTH119 - of a link's text
        hit = base.startswith(f".{stem}.") and base.endswith(f".{ending}")
        writes[0] += hit
        return hit and writes[0] == nth

    real_write, real_fsync = Path.write_bytes, os.fsync

    def write_bytes(path: Path, data: bytes) -> int:
        if ending != "keras" and fails(str(path)):
            real_write(path, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        return real_write(path, data)

    def fsync(handle: int) -> None:
        if ending == "keras" and fails(os.readlink(f"/proc/self/fd/{handle}")):  # noqa: PTH115
            raise OSError(28, "No space left on device")
        real_fsync(handle)

    Path.write_bytes, os.fsync = write_bytes, fsync  # type: ignore[method-assign,assignment]


def limit_memory(mebibytes: int) -> None:
    """Allow only so much more address space than the process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + mebibytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def clock_back() -> None:
    """Set the clock back an hour at each reading, and start an hour earlier with each run."""
    import convae.runs.run

    module: Any = convae.runs.run
    clock: Any = time
    hours = [len(list(Path("outputs/run").glob("*-*")))]
    real = time.time()

    def now() -> float:
        hours[0] += 1
        return real - 3600 * hours[0]

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Clock:
            return cls.fromtimestamp(now(), tz)

        def __add__(self, other: timedelta) -> Clock:
            return Clock.fromtimestamp(self.timestamp() + other.total_seconds())

    strftime = time.strftime
    module.datetime = Clock
    clock.time = now
    clock.strftime = lambda form, at=None: strftime(form, at or time.localtime(now()))


def timed_saves() -> None:
    """Print after each save how many seconds all of them have taken."""
    total = [0.0]

    def start() -> None:
        total[0] -= time.perf_counter()

    def stop() -> None:
        total[0] += time.perf_counter()
        print(f"seconds in saves: {total[0]:.4f}", flush=True)

    for name in ("save_checkpoint", "save_model", "write_history"):
        setattr(Run, name, _surrounded(getattr(Run, name), start, stop))


def flip(data: bytes, chance: random.Random, start: int = 0, end: int | None = None) -> bytes:
    changed = bytearray(data)
    changed[chance.randrange(start, end or len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def flip_pixel(data: bytes, chance: random.Random) -> bytes:
    return flip(data, chance, len(data) // 10, len(data) // 2)


def other(data: bytes, _: random.Random) -> bytes:
    changed = io.BytesIO()
    with np.load(io.BytesIO(data)) as file:
        np.savez(changed, **{k: file[k][::-1] for k in file.files})
    return changed.getvalue()


DAMAGES = (cut, flip_pixel, other)


@contextmanager
def tmpfs(folder: Path) -> Iterator[Path | None]:
    """Mount a disk of 2 MiB; None where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if not which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(disk: Path) -> None:
    with suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """Make the disk read-only, except for files that are open already."""
    for words in (["--bind", str(disk), str(disk)], ["-o", "remount,bind,ro", str(disk)]):
        subprocess.run(["mount", *words], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(disk)], check=True)
