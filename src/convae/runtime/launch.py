"""Start several workers on this machine that train together: `convae launch -n 2 -- train CONFIG`.

Each worker gets TF_CONFIG with the addresses of all on the loopback interface, a share of the cores
to which it is bound, and a share of the GPUs. Their output becomes one log, each line with its
worker's number. On several machines the scheduler starts the workers instead. Importing this module
does not import TensorFlow.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from convae.console import logger
from convae.errors import ConfigError
from convae.runtime import processes
from convae.runtime.cluster import STARTED_FILE, format_tf_config
from convae.runtime.hardware import available_cores, split_evenly, visible_gpus

MAX_WORKERS = 64
SAVE_SECONDS = 60.0  # to finish the step and save, after Ctrl-C


def worker_commands(count: int, arguments: Sequence[str]) -> list[list[str]]:
    """Return the commands of `count` workers that run `convae ARGUMENTS`. Raises ConfigError."""
    if not 1 <= count <= MAX_WORKERS:
        raise ConfigError(f"-n: must be from 1 to {MAX_WORKERS} workers. Received: {count}")
    if not arguments or arguments[0] != "train":
        received = " ".join(arguments) or "nothing"
        raise ConfigError(
            "launch starts workers that train: convae launch -n 2 -- train CONFIG. "
            f"Received after --: {received}"
        )
    return [[sys.executable, "-m", "convae", *arguments] for _ in range(count)]


def launch(
    commands: Sequence[Sequence[str]], rendezvous_timeout: float = 120.0, grace: float = 10.0
) -> int:
    """Run one worker per command until all have ended.

    If a worker fails, all others are ended. Ctrl-C or SIGTERM makes all save and end; a second one
    kills them. Worker 0's stdout stays stdout; everything else goes to stderr.

    Args:
        commands: The program and arguments of each worker.
        rendezvous_timeout: The seconds in which each worker must end or call
            `cluster.report_started`.
        grace: The seconds from SIGTERM to SIGKILL. TensorFlow may swallow the first.

    Returns:
        The exit code of the first worker that failed, 128 plus the number of a signal, or 0.
    """
    if not rendezvous_timeout > 0:
        raise ConfigError(
            f"--rendezvous-timeout: must be above 0 seconds. Received: {rendezvous_timeout:g}"
        )
    with (
        tempfile.TemporaryDirectory(prefix="convae-launch-") as folder,
        processes.catch_stop_signals() as received,
    ):
        workers = _Workers(Path(folder), rendezvous_timeout, grace)
        try:
            workers.start(commands)
            return workers.wait(received)
        except KeyboardInterrupt:
            logger.warning("launch: stopped at once")
            return 128 + signal.SIGINT
        finally:
            workers.kill()


def free_ports(count: int) -> list[int]:
    """Return `count` different ports of the loopback interface on which nobody listens now."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


class _Workers:
    """The worker processes of one launch."""

    def __init__(self, folder: Path, rendezvous_timeout: float, grace: float) -> None:
        self._folder = folder  # of the files by which workers report their start
        self._rendezvous_timeout = rendezvous_timeout
        self._grace = grace
        self._running: list[subprocess.Popen[bytes]] = []
        self._readers: list[threading.Thread] = []

    def start(self, commands: Sequence[Sequence[str]]) -> None:
        """Start all workers, and threads that copy their output to stderr."""
        count = len(commands)
        addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(count))
        cores = split_evenly(available_cores(), count)
        gpus = _gpu_environments(count)
        for rank, command in enumerate(commands):
            environment = {
                **os.environ,
                "TF_CONFIG": format_tf_config(addresses, rank),
                STARTED_FILE: str(self._folder / str(rank)),
                **gpus[rank],
                "PYTHONUNBUFFERED": "1",  # so that the log appears line by line
            }
            pipes = (
                {"stdout": None, "stderr": subprocess.PIPE}
                if rank == 0
                else {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
            )
            self._running.append(processes.start(command, cores[rank], env=environment, **pipes))
        for rank, process in enumerate(self._running):
            pipe = process.stdout or process.stderr
            thread = threading.Thread(target=_copy_lines, args=(rank, pipe), daemon=True)
            thread.start()
            self._readers.append(thread)

    def wait(self, received: Sequence[int]) -> int:
        """Wait until all workers have ended, end them if one fails, and return the exit code."""
        until = time.monotonic() + self._rendezvous_timeout
        while True:
            codes = [process.poll() for process in self._running]
            failed = next((rank for rank, code in enumerate(codes) if code), None)
            if failed is not None:
                return self._end_after_failure(failed, codes[failed] or 0)
            if received:
                logger.warning("launch: all workers save and end; press Ctrl-C again to kill them")
                processes.end(self._running, signal.SIGINT, SAVE_SECONDS)
                return 128 + received[0]
            if None not in codes:
                return 0
            missing = [rank for rank, code in enumerate(codes) if code is None]
            missing = [rank for rank in missing if not (self._folder / str(rank)).exists()]
            if missing and time.monotonic() > until:
                self._end_after_timeout(missing)
                return 1
            time.sleep(processes.POLL_SECONDS)

    def kill(self) -> None:
        """Kill the workers that still run, and copy the rest of their output."""
        processes.end(self._running, signal.SIGKILL, 0)
        for reader in self._readers:
            reader.join(timeout=5)  # a grandchild that still runs may hold the pipe open

    def _end_after_failure(self, rank: int, code: int) -> int:
        how = f"exit code {code}" if code > 0 else f"signal {signal.Signals(-code).name}"
        if len(self._running) > 1:
            logger.warning(f"launch: worker {rank} ended with {how}; ending the others")
        processes.end(self._running, signal.SIGTERM, self._grace)
        return code if code > 0 else 128 - code

    def _end_after_timeout(self, missing: Sequence[int]) -> None:
        names = ", ".join(map(str, missing))
        logger.warning(
            f"launch: not all of the {len(self._running)} workers found each other within "
            f"{self._rendezvous_timeout:g} s; still missing: {names}. All were ended. If the "
            f"machine is slow, use --rendezvous-timeout {2 * self._rendezvous_timeout:g}"
        )
        processes.end(self._running, signal.SIGTERM, self._grace)


def _gpu_environments(count: int) -> list[dict[str, str]]:
    """Return the environment that gives each worker its share of the GPUs."""
    gpus = visible_gpus()
    if len(gpus) >= count:
        return [{"CUDA_VISIBLE_DEVICES": ",".join(part)} for part in split_evenly(gpus, count)]
    if gpus:  # two workers cannot share one
        logger.warning(f"launch: {len(gpus)} GPUs for {count} workers: they train on the CPU")
        return [{"CUDA_VISIBLE_DEVICES": "-1"}] * count
    return [{}] * count


def _copy_lines(rank: int, pipe: IO[bytes]) -> None:
    with pipe:
        for line in pipe:
            text = line.decode(errors="replace").rstrip("\r\n")
            sys.stderr.write(f"[{rank}] {text}\n")
            sys.stderr.flush()
