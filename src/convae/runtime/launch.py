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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from convae.console import logger
from convae.errors import ConfigError
from convae.files import check_temporary_folder
from convae.runtime import processes
from convae.runtime.cluster import STARTED_FILE, format_tf_config
from convae.runtime.hardware import available_cores, split_evenly, visible_gpus

MAX_WORKERS = 64


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
    check_temporary_folder()
    running: list[subprocess.Popen[bytes]] = []
    readers: list[threading.Thread] = []
    with (
        tempfile.TemporaryDirectory(prefix="convae-launch-") as folder,
        processes.catch_stop_signals() as received,
    ):
        started = [Path(folder, str(rank)) for rank in range(len(commands))]
        try:
            for command, options in zip(commands, _options(started), strict=True):
                process = processes.start(command, **options)
                running.append(process)
                arguments = len(readers), process.stdout or process.stderr
                readers.append(threading.Thread(target=_copy_lines, args=arguments, daemon=True))
                readers[-1].start()
            return _wait(running, started, received, rendezvous_timeout, grace)
        except KeyboardInterrupt:
            logger.warning("launch: stopped at once")
            return 128 + signal.SIGINT
        finally:
            processes.end(running, signal.SIGTERM, 0)
            for reader in readers:
                reader.join(timeout=5)  # a grandchild that still runs may hold the pipe open


def free_ports(count: int) -> list[int]:
    """Return `count` different ports of the loopback interface on which nobody listens now."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(probe.getsockname()[1]) for probe in probes]


def _options(started: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Yield each worker's cores, environment and pipes; it reports to its file of `started`."""
    count = len(started)
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(count))
    cores, gpus = split_evenly(available_cores(), count), visible_gpus()
    if 0 < len(gpus) < count:  # two workers cannot share one
        logger.warning(f"launch: {len(gpus)} GPUs for {count} workers: they train on the CPU")
        gpus = ["-1"]
    for rank, own_gpus in enumerate(split_evenly(gpus, count)):
        environment = {
            **os.environ,
            "TF_CONFIG": format_tf_config(addresses, rank),
            STARTED_FILE: str(started[rank]),
            "PYTHONUNBUFFERED": "1",  # so that the log appears line by line
        }
        if own_gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(own_gpus)
        pipes = {"stderr": subprocess.PIPE}
        if rank:
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        yield {"cores": cores[rank], "env": environment, **pipes}


def _wait(
    running: Sequence[subprocess.Popen[bytes]],
    started: Sequence[Path],
    received: Sequence[int],
    rendezvous_timeout: float,
    grace: float,
) -> int:
    """Wait until all workers have ended, end them if one fails, and return the exit code."""
    until = time.monotonic() + rendezvous_timeout
    while True:
        codes = [process.poll() for process in running]
        for rank, code in enumerate(codes):
            if code:
                how = f"exit code {code}" if code > 0 else f"signal {signal.Signals(-code).name}"
                if len(running) > 1:
                    logger.warning(f"launch: worker {rank} ended with {how}; ending the others")
                processes.end(running, signal.SIGTERM, grace)
                return code if code > 0 else 128 - code
        if received:
            logger.warning("launch: all workers save and end; press Ctrl-C again to kill them")
            processes.end(running, signal.SIGINT, grace=60.0)  # to finish the step and save
            return 128 + received[0]
        if None not in codes:
            return 0
        reports = zip(codes, started, strict=True)
        missing = [path.name for code, path in reports if code is None and not path.exists()]
        if missing and time.monotonic() > until:
            logger.warning(
                f"launch: not all of the {len(running)} workers found each other within "
                f"{rendezvous_timeout:g} s; still missing: {', '.join(missing)}. All were ended. "
                f"If the machine is slow, use --rendezvous-timeout {2 * rendezvous_timeout:g}"
            )
            processes.end(running, signal.SIGTERM, grace)
            return 1
        time.sleep(processes.POLL_SECONDS)


def _copy_lines(rank: int, pipe: IO[bytes]) -> None:
    with pipe:
        for line in pipe:
            text = line.decode(errors="replace").rstrip("\r\n")
            sys.stderr.write(f"[{rank}] {text}\n")
