"""TF_CONFIG: the workers that train together, and the place of this process among them.

    TF_CONFIG='{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]},
                "task": {"type": "worker", "index": 0}}'

Every worker has the same `cluster` and its own `task`; the first worker, worker 0, is the chief.
Some schedulers name the chief separately: `cluster` then also has "chief": ["10.0.0.9:2222"].
Importing this module does not import TensorFlow.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convae.errors import ConfigError

STARTED_FILE = "CONVAE_STARTED"  # names the file by which a worker reports to `convae launch`
EXAMPLE = (
    'such as {"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9_.-]+):(?P<port>[0-9]{1,5})")


def host_and_port(address: str) -> tuple[str, int]:
    """Split an address: "[::1]:80" becomes ("::1", 80)."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


@dataclass(frozen=True)
class Cluster:
    """The workers that train together."""

    workers: tuple[str, ...]  # the address of each, "host:port", worker 0 first
    rank: int  # which of them this process is, from 0

    @property
    def count(self) -> int:
        """The number of workers."""
        return len(self.workers)

    @property
    def address(self) -> str:
        """The "host:port" at which the other workers reach this one."""
        return self.workers[self.rank]

    @property
    def port(self) -> int:
        """The port on which this worker listens."""
        return host_and_port(self.address)[1]


def find_cluster(environment: Mapping[str, str] = os.environ) -> Cluster | None:
    """Return the cluster in TF_CONFIG, or None where it is not set. Raises ConfigError."""
    text = environment.get("TF_CONFIG", "")
    return parse_tf_config(text) if text.strip() else None


def parse_tf_config(text: str) -> Cluster:
    """Return the cluster in the text of TF_CONFIG. Raises ConfigError with the first mistake."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"is not JSON: {error}", text) from None
    if not isinstance(tree, dict):
        raise _wrong("must be a mapping with cluster and task", tree)
    for key in ("cluster", "task"):
        if not isinstance(tree.get(key), dict):
            raise _wrong(f"has no {key}, which must be a mapping", tree)
    cluster, task = tree["cluster"], tree["task"]
    if unknown := sorted(cluster.keys() - {"chief", "worker"}):
        raise _wrong(f"cluster has {', '.join(unknown)}; only worker and chief can train", cluster)
    chiefs, others = _addresses(cluster, "chief"), _addresses(cluster, "worker")
    if len(chiefs) > 1:
        raise _wrong("cluster.chief must be one address", chiefs)
    workers = (*chiefs, *others)
    if not workers:
        raise _wrong("cluster names no worker", cluster)
    address, count = Counter(workers).most_common(1)[0]
    if count > 1:
        raise _wrong(f"cluster names {address} twice; every worker needs its own", list(workers))

    kind, index = task.get("type"), task.get("index")
    peers = {"chief": chiefs, "worker": others}.get(kind) if isinstance(kind, str) else None
    if not peers:
        known = " or ".join(k for k, v in (("chief", chiefs), ("worker", others)) if v)
        raise _wrong(f"task.type must be {known}, which cluster names", kind)
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(peers):
        valid = "0" if len(peers) == 1 else f"from 0 to {len(peers) - 1}"
        raise _wrong(f"task.index must be {valid}: cluster.{kind} has {len(peers)} of them", index)
    return Cluster(workers, index + (len(chiefs) if kind == "worker" else 0))


def format_tf_config(workers: tuple[str, ...], rank: int) -> str:
    """Return the text of TF_CONFIG for the worker `rank`, from 0."""
    task = {"type": "worker", "index": rank}
    return json.dumps({"cluster": {"worker": list(workers)}, "task": task})


def check_port(cluster: Cluster) -> None:
    """Check that this worker can listen on its port. Raises ConfigError.

    TensorFlow would share a port in use without an error.
    """
    try:
        socket.create_server(("", cluster.port)).close()
    except OSError as error:
        raise ConfigError(
            f"TF_CONFIG: worker {cluster.rank} cannot listen on port {cluster.port}: "
            f"{os.strerror(error.errno or 0)}. Received: {cluster.address}. Another training may "
            "still run on it: end that training or choose another port"
        ) from None


def report_started(environment: Mapping[str, str] = os.environ) -> None:
    """Report to `convae launch`, if it started this process, that all workers were found."""
    if path := environment.get(STARTED_FILE):
        Path(path).touch()


def _addresses(cluster: dict[str, Any], kind: str) -> tuple[str, ...]:
    found = cluster.get(kind, [])
    for address in found if isinstance(found, list) else [found]:
        match = _ADDRESS.fullmatch(address) if isinstance(address, str) else None
        if not isinstance(found, list) or not match or not 1 <= int(match["port"]) <= 65535:
            raise _wrong(f'cluster.{kind} must be a list of "host:port"', address)
    return tuple(found)


def _wrong(what: str, received: object) -> ConfigError:
    return ConfigError(f"TF_CONFIG: {what}. Received: {received!r:.120}. Right would be {EXAMPLE}")
