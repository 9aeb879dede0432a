"""Several workers on this machine that train together: `convae launch -n 2 -- train CONFIG`.

Each gets TF_CONFIG with the addresses of all, on loopback; a share of the cores, to which it is
bound; and a share of the GPUs. What they print comes as one log, each line with its worker's
number. On several machines the scheduler starts the workers, not this. No TensorFlow here.
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

from convae.errors import ConfigError
from convae.runtime import processes
from convae.runtime.cluster import STARTED, VARIABLE, tf_config

DEADLINE = 120.0  # seconds until all must have found each other
GRACE = 10.0  # seconds from SIGTERM to SIGKILL: TensorFlow's notifier may swallow the first
SAVING = 60.0  # seconds to finish the step and save, after Ctrl-C
MOST = 64  # more is no question for one machine


def workers(count: int, words: Sequence[str]) -> list[list[str]]:
    """The commands of `count` workers that run `convae WORDS`. Raises ConfigError."""
    if not 1 <= count <= MOST:
        raise ConfigError(f"-n: must be from 1 to {MOST} workers. Received: {count}")
    if not words or words[0] != "train":
        received = " ".join(words) or "nothing"
        raise ConfigError(
            "launch starts workers that train: convae launch -n 2 -- train CONFIG. "
            f"Received after --: {received}"
        )
    return [[sys.executable, "-m", "convae", *words] for _ in range(count)]


def launch(
    commands: Sequence[Sequence[str]], deadline: float = DEADLINE, grace: float = GRACE
) -> int:
    """Run one worker a command until all have ended; the exit code of the first that failed, or 0.

    A worker that dies takes all others with it, and so does one that has neither ended nor called
    `cluster.report_started` `deadline` seconds after its start. Ctrl-C or SIGTERM asks all to save
    and end; a second one kills them. Stdout of worker 0 stays stdout; all else goes to stderr.
    """
    if not deadline > 0:
        raise ConfigError(f"--rendezvous-timeout: must be above 0 seconds. Received: {deadline:g}")
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(len(commands)))
    cores = processes.shares(processes.available_cores(), len(commands))
    gpus = processes.gpus()
    visible = [{"CUDA_VISIBLE_DEVICES": ",".join(s)} for s in processes.shares(gpus, len(commands))]
    if len(gpus) < len(commands):  # two workers cannot share one
        visible = [{"CUDA_VISIBLE_DEVICES": "-1"} if gpus else {} for _ in commands]
        if gpus:
            _say(f"{len(gpus)} GPUs are too few for {len(commands)} workers: training on the CPU")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="convae-launch-")))
        received = stack.enter_context(processes.stop_requests())
        running: list[subprocess.Popen[bytes]] = []
        readers: list[threading.Thread] = []
        try:
            for rank, command in enumerate(commands):
                given = {
                    VARIABLE: tf_config(addresses, rank),
                    STARTED: str(folder / str(rank)),
                    **visible[rank],
                    "PYTHONUNBUFFERED": "1",  # a log is read while it grows
                }
                pipes = (
                    {"stdout": None, "stderr": subprocess.PIPE}
                    if rank == 0
                    else {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
                )
                environment = {**os.environ, **given}
                running.append(processes.start(command, cores[rank], env=environment, **pipes))
            readers = [_reader(rank, process) for rank, process in enumerate(running)]
            return _watch(running, folder, deadline, grace, received)
        except KeyboardInterrupt:
            return _say("stopped at once", 128 + signal.SIGINT)
        finally:
            processes.end(running, signal.SIGKILL, 0)
            for reader in readers:
                # Not for ever: a grandchild that was left behind may hold the pipe open.
                reader.join(timeout=5)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on now: the system chooses, all different."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def _watch(
    running: Sequence[subprocess.Popen[bytes]],
    folder: Path,
    deadline: float,
    grace: float,
    received: Sequence[int],
) -> int:
    """Wait until all is over, whichever way that comes."""
    until: float | None = time.monotonic() + deadline
    while True:
        codes = [process.poll() for process in running]
        failed = [rank for rank, code in enumerate(codes) if code]
        if failed:
            rank, code = failed[0], codes[failed[0]] or 0
            how = f"exit code {code}" if code > 0 else f"signal {signal.Signals(-code).name}"
            if len(running) > 1:
                _say(f"worker {rank} ended with {how}; ending the others")
            processes.end(running, signal.SIGTERM, grace)
            return code if code > 0 else 128 - code
        if received:
            _say("asked all workers to save and end; once more to kill them")
            processes.end(running, signal.SIGINT, SAVING)
            return 128 + received[0]
        if None not in codes:
            return 0
        if until is not None:
            missing = [
                rank
                for rank, code in enumerate(codes)
                if code is None and not (folder / str(rank)).exists()
            ]
            if not missing:
                until = None
            elif time.monotonic() > until:
                names = ", ".join(map(str, missing))
                _say(
                    f"not all of the {len(running)} workers found each other within "
                    f"{deadline:g} s; still missing: {names}. All were ended. If the machine is "
                    f"slow, give them longer: --rendezvous-timeout {2 * deadline:g}"
                )
                processes.end(running, signal.SIGTERM, grace)
                return 1
        time.sleep(processes.POLL_SECONDS)


def _reader(rank: int, process: subprocess.Popen[bytes]) -> threading.Thread:
    pipe = process.stdout or process.stderr
    thread = threading.Thread(target=_prefix, args=(rank, pipe), daemon=True)
    thread.start()
    return thread


def _prefix(rank: int, pipe: IO[bytes]) -> None:
    with pipe:
        for line in pipe:
            text = line.decode(errors="replace").rstrip("\r\n")
            sys.stderr.write(f"[{rank}] {text}\n")
            sys.stderr.flush()


def _say(text: str, code: int = 0) -> int:
    print(f"launch: {text}", file=sys.stderr, flush=True)
    return code
