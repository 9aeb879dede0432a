"""Workers wait for each other with a time limit: TensorFlow alone waits forever, without a word."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from convae.errors import ConfigError
from convae.runtime.cluster import Cluster, host_and_port

_WATCHDOG = """
import os, signal, sys, threading
pid, seconds, message = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
def kill():
    sys.stderr.write(message)
    sys.stderr.flush()
    os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
timer = threading.Timer(seconds, kill)
timer.daemon = True
timer.start()
sys.stdin.read()
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
    host, port = host_and_port(cluster.address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as stack:
        for name in (host, ""):  # all interfaces where the host's name is not local
            with suppress(OSError):  # if both fail, the other workers report this one as missing
                backlog = max(128, cluster.count)
                listener = socket.create_server((name, port), family=family, backlog=backlog)
                stack.enter_context(listener)
                break
        while missing:
            rank = next(iter(missing))
            del missing[rank]
            address = host_and_port(cluster.workers[rank])
            try:
                socket.create_connection(address, timeout=2.0).close()
            except OSError as error:
                missing[rank] = str(error)  # its next turn is after the others
                if time.monotonic() > until:
                    raise ConfigError(_missing_message(cluster, missing, seconds)) from None
                time.sleep(0.2 / len(missing))


@contextmanager
def kill_after(seconds: float, what: str) -> Iterator[None]:
    """Kill this process, with a message, if the `with` block takes longer than `seconds`.

    A child process does it, because TensorFlow blocks all Python threads while it waits for peers.
    The message is "`what` did not come within ... s".
    """
    message = f"convae: {what} did not come within {seconds:g} s (runtime.rendezvous_timeout)\n"
    command = [sys.executable, "-ES", "-c", _WATCHDOG, str(os.getpid()), str(seconds), message]
    with subprocess.Popen(command, stdin=subprocess.PIPE):  # noqa: S603 - a fixed program
        yield  # afterwards its stdin is closed, which ends it


def _missing_message(cluster: Cluster, missing: dict[int, str], seconds: float) -> str:
    reasons = sorted(missing.items())[:8]
    lines = [f"  worker {rank} at {cluster.workers[rank]}: {why}\n" for rank, why in reasons]
    return (
        f"TF_CONFIG: of {cluster.count} workers {len(missing)} did not answer within {seconds:g} "
        f"s (runtime.rendezvous_timeout):\n{''.join(lines)}Start all workers at about the same "
        "time, with addresses at which they reach each other, and open their ports in the firewall"
    )
