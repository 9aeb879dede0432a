"""Child processes that never outlive their parent, and the signals that ask a process to stop.

A child is started through `python -m convae.runtime.processes`, which asks the system to end it
with its parent, binds itself to its cores and then executes the command: the process id stays the
same. Windows cannot do that: there the command is started itself, in a process group of its own,
and Ctrl-Break is the signal that asks it to stop. Importing this module does not import TensorFlow.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any

from convae.console import logger

POLL_SECONDS = 0.05
STOP_SIGNALS = [signal.SIGINT, signal.SIGTERM]
if sys.platform == "win32":
    STOP_SIGNALS.append(signal.SIGBREAK)


def start(
    command: Sequence[str], cores: Sequence[int] = (), **options: Any
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, which Ctrl-C does not reach; return its process.

    If the parent is killed, Linux kills the child at once; on other systems it continues. Call this
    from the main thread: for Linux, the parent is a thread.

    Args:
        command: The program and its arguments.
        cores: The numbers of the cores that the child may use; all where it is empty.
        **options: Of subprocess.Popen.
    """
    if sys.platform == "win32":
        boot: list[str] = []
        options["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP
    else:
        boot = [sys.executable, "-m", __name__, json.dumps([os.getpid(), *cores])]
    return subprocess.Popen(  # noqa: S603 - the caller's own command, and no shell
        [*boot, *command], stdin=subprocess.DEVNULL, start_new_session=True, **options
    )


def end(processes: Sequence[subprocess.Popen[bytes]], number: signal.Signals, grace: float) -> None:
    """Send the signal `number` to the processes that still run, and wait until they have ended.

    Those that still run after `grace` seconds, or when KeyboardInterrupt is raised, are killed.
    """
    running = [process for process in processes if process.poll() is None]
    for process in running:
        send(process, number)
    deadline = time.monotonic() + grace
    try:
        while any(process.poll() is None for process in running) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    finally:
        for process in running:
            # The group: a killed process cannot end its own children.
            with suppress(ProcessLookupError):
                if process.poll() is None:
                    if sys.platform == "win32":
                        process.kill()
                    else:
                        os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal; on Windows, where there is no other that a process can catch, Ctrl-Break."""
    if sys.platform == "win32":
        number = signal.CTRL_BREAK_EVENT
    process.send_signal(number)


@contextmanager
def catch_stop_signals(message: str = "") -> Iterator[list[int]]:
    """Catch the first of `STOP_SIGNALS` in a `with` block.

    A second signal raises KeyboardInterrupt, and a third acts as it did before the block. Outside
    the main thread nothing is caught: signals belong to whoever started the thread.

    Args:
        message: Logged at the first signal.

    Yields:
        The numbers of the signals received so far; empty while nothing asks for a stop.
    """
    received: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            previous.close()
            raise KeyboardInterrupt
        if message:
            logger.info(message)

    with ExitStack() as previous:  # restores the handlers
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                previous.callback(signal.signal, number, signal.signal(number, handle))
        yield received


if __name__ == "__main__":
    parent, *own_cores = json.loads(sys.argv[1])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it ended before prctl took effect
            sys.exit(1)
        if own_cores:
            os.sched_setaffinity(0, own_cores)
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - no shell
