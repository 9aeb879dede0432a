"""Workers wait for each other before TensorFlow does, which would wait for ever and in silence."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from convae.errors import ConfigError
from convae.runtime.cluster import VARIABLE, Cluster, host_and_port

TRY_SECONDS = 2.0  # for one connection
PAUSE_SECONDS = 0.2  # between two rounds over those who are missing
WATCH = """
import os, select, signal, sys
pid, seconds, message = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
if not select.select([0], [], [], seconds)[0]:
    sys.stderr.write(message)
    os.kill(pid, signal.SIGKILL)
"""


def meet(cluster: Cluster, seconds: float) -> None:
    """Wait until every other worker of the cluster answers at its address.

    This worker answers at its own meanwhile; afterwards the port is free for TensorFlow, whose
    answer is as good. Raises ConfigError if someone is still missing after `seconds`.
    """
    until = time.monotonic() + seconds
    missing = {rank: "" for rank in range(cluster.count) if rank != cluster.rank}
    with _listening(cluster):
        while missing:
            for rank in list(missing):
                try:
                    host, port = host_and_port(cluster.workers[rank])
                    socket.create_connection((host, port), TRY_SECONDS).close()
                    del missing[rank]
                except OSError as error:
                    missing[rank] = str(error)
                if missing and time.monotonic() > until:
                    raise ConfigError(_told(cluster, missing, seconds))
            if missing:
                time.sleep(PAUSE_SECONDS)


@contextmanager
def deadline(seconds: float, what: str) -> Iterator[None]:
    """Kill this process, with a message, if the body takes longer than `seconds`.

    From outside: TensorFlow waits for peers without giving the interpreter to any other thread.
    `what` does not come in time goes into the message.
    """
    message = f"convae: {what} did not come within {seconds:g} s (runtime.rendezvous_timeout)\n"
    words = [sys.executable, "-ES", "-c", WATCH, str(os.getpid()), str(seconds), message]
    with subprocess.Popen(words, stdin=subprocess.PIPE):  # noqa: S603 - the words are ours
        yield  # then its stdin is closed, and it has seen enough


@contextmanager
def _listening(cluster: Cluster) -> Iterator[None]:
    """Answer at this worker's address; where that name is not the machine's own, at all of its."""
    host, port = host_and_port(cluster.address)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError:
            with suppress(OSError):  # then the others' deadline will tell
                listener.bind(("", port))
        listener.listen(max(128, cluster.count))
        yield


def _told(cluster: Cluster, missing: dict[int, str], seconds: float) -> str:
    lines = [f"  worker {rank} at {cluster.workers[rank]}: {why}" for rank, why in missing.items()]
    return (
        f"{VARIABLE}: of {cluster.count} workers {len(missing)} did not answer within {seconds:g} "
        "s (runtime.rendezvous_timeout):\n"
        + "\n".join(lines[:8])
        + "\nStart all workers at about the same "
        "time, with addresses that reach them; each must be let through to the others' ports"
    )
