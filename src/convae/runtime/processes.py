"""Child processes that never outlive their parent. Importing this imports nothing heavy.

A child is started through `python -m convae.runtime.processes`, which asks the system to end it
with its parent, takes its share of the cores and then becomes the command: the process id stays
the same.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

POLL_SECONDS = 0.05
PR_SET_PDEATHSIG = 1  # from Linux' <sys/prctl.h>


def start(
    command: Sequence[str], cores: Sequence[int] = (), **options: Any
) -> subprocess.Popen[bytes]:
    """Start `command` on `cores` (all of them, if none are named), in a session of its own.

    Ctrl-C in the terminal does not reach it: the parent decides what that means. If the parent is
    killed, so is the child, at once; on Linux only, elsewhere it goes on alone. To be called from
    the main thread: for Linux, a parent is a thread. `options` are subprocess.Popen's.
    """
    task = json.dumps({"parent": os.getpid(), "cores": list(cores)})
    boot = [sys.executable, "-m", "convae.runtime.processes", task]
    return subprocess.Popen(  # noqa: S603 - the caller's own words, and no shell
        [*boot, *command], stdin=subprocess.DEVNULL, start_new_session=True, **options
    )


def end(processes: Sequence[subprocess.Popen[bytes]], number: signal.Signals, grace: float) -> None:
    """Send `number` to all that still run, and SIGKILL after `grace` seconds. Waits for their end.

    A second Ctrl-C or SIGTERM cuts the grace short if it raises, as it does by default.
    """
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.send_signal(number)
    deadline = time.monotonic() + grace
    try:
        while any(process.poll() is None for process in running) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    finally:
        for process in running:
            # The group: a worker that must be killed can no longer end its own children.
            with suppress(ProcessLookupError):
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """A list that the first SIGINT or SIGTERM fills; the second raises KeyboardInterrupt."""
    received: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt

    previous = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def shares(items: Sequence[Any], count: int) -> list[list[Any]]:
    """`items` dealt out to `count` as evenly as can be, neighbors together.

    Where there are fewer items than shares, each is in several shares.
    """
    if len(items) < count:
        return [[items[i * len(items) // count]] if items else [] for i in range(count)]
    bounds = [len(items) * i // count for i in range(count + 1)]
    return [list(items[a:b]) for a, b in itertools.pairwise(bounds)]


def available_cores() -> list[int]:
    """The numbers of the cores that this process may use; none where the system has no such."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them. Starts nothing big.

    Without that variable, nvidia-smi is asked; none where it is missing or finds none.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name not in {"", "-1"}]
    with suppress(OSError, subprocess.SubprocessError):
        query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)  # noqa: S603
        return done.stdout.split()
    return []


def become(task: str, command: list[str]) -> None:
    """Turn this process into `command`, tied to its parent and to its cores."""
    wanted = json.loads(task)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != wanted["parent"]:  # it ended while this began
            sys.exit(1)
        if wanted["cores"]:
            os.sched_setaffinity(0, wanted["cores"])
    os.execvp(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    become(sys.argv[1], sys.argv[2:])
