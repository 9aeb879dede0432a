"""Workers wait for each other with a time limit: TensorFlow alone waits forever, without a word."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from convae.errors import ConfigError
from convae.runtime.cluster import Cluster, host_and_port

CONNECT_SECONDS = 2.0  # for one connection
PAUSE_SECONDS = 0.2  # between two rounds over the missing workers
_WATCHDOG = """
import os, select, signal, sys
pid, seconds, message = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
if not select.select([0], [], [], seconds)[0]:
    sys.stderr.write(message)
    os.kill(pid, signal.SIGKILL)
"""


def wait_for_workers(cluster: Cluster, seconds: float) -> None:
    """Wait until every other worker of the cluster answers at its address.

    Meanwhile this worker answers at its own address. Afterwards the port is free for TensorFlow,
    which answers the workers that still wait.

    Raises:
        ConfigError: A worker is still missing after `seconds`.
    """
    until = time.monotonic() + seconds
    missing = {rank: "" for rank in range(cluster.count) if rank != cluster.rank}
    with _listening(cluster):
        while missing:
            for rank in list(missing):
                try:
                    host, port = host_and_port(cluster.workers[rank])
                    socket.create_connection((host, port), CONNECT_SECONDS).close()
                    del missing[rank]
                except OSError as error:
                    missing[rank] = str(error)
                if missing and time.monotonic() > until:
                    raise ConfigError(_missing_message(cluster, missing, seconds))
            if missing:
                time.sleep(PAUSE_SECONDS)


@contextmanager
def kill_after(seconds: float, what: str) -> Iterator[None]:
    """Kill this process, with a message, if the `with` block takes longer than `seconds`.

    A child process does it, because TensorFlow blocks all Python threads while it waits for peers.

    Args:
        seconds: The time limit.
        what: The message is "`what` did not come within ... s".
    """
    message = f"convae: {what} did not come within {seconds:g} s (runtime.rendezvous_timeout)\n"
    command = [sys.executable, "-ES", "-c", _WATCHDOG, str(os.getpid()), str(seconds), message]
    with subprocess.Popen(command, stdin=subprocess.PIPE):  # noqa: S603 - a fixed program
        yield  # afterwards its stdin is closed, which ends it


@contextmanager
def _listening(cluster: Cluster) -> Iterator[None]:
    """Answer at this worker's address, or on all interfaces where its name is not local."""
    host, port = host_and_port(cluster.address)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError:
            with suppress(OSError):  # the other workers then report this one as missing
                listener.bind(("", port))
        listener.listen(max(128, cluster.count))
        yield


def _missing_message(cluster: Cluster, missing: dict[int, str], seconds: float) -> str:
    lines = [f"  worker {rank} at {cluster.workers[rank]}: {why}" for rank, why in missing.items()]
    return (
        f"TF_CONFIG: of {cluster.count} workers {len(missing)} did not answer within {seconds:g} "
        "s (runtime.rendezvous_timeout):\n"
        + "\n".join(lines[:8])
        + "\nStart all workers at about the same time, with addresses at which they reach each "
        "other, and open their ports in the firewall"
    )
