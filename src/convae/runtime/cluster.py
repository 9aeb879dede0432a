"""TF_CONFIG: which workers train together, and which of them this process is. No TensorFlow.

    TF_CONFIG='{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]},
                "task": {"type": "worker", "index": 0}}'

Every worker has the same `cluster` and a `task` of its own; the first worker is the chief. Some
schedulers name the chief apart: then `cluster` also has "chief": ["10.0.0.9:2222"].
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

VARIABLE = "TF_CONFIG"
STARTED = "CONVAE_STARTED"  # the file by which a worker tells `convae launch` that it has started
EXAMPLE = (
    'such as {"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9_.-]+):(?P<port>[0-9]{1,5})")


def host_and_port(address: str) -> tuple[str, int]:
    """("::1", 80) of "[::1]:80"."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


@dataclass(frozen=True)
class Cluster:
    """The workers in their order, the chief first, and the place of this process among them."""

    workers: tuple[str, ...]  # "host:port"
    rank: int  # from 0

    @property
    def count(self) -> int:
        """How many workers train together, the chief included."""
        return len(self.workers)

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that prints and writes."""
        return self.rank == 0

    @property
    def address(self) -> str:
        """Where the other workers reach this one, "host:port"."""
        return self.workers[self.rank]

    @property
    def port(self) -> int:
        """The port on which this worker listens."""
        return host_and_port(self.address)[1]

    def __str__(self) -> str:
        role = "the chief" if self.is_chief else f"worker {self.rank}"
        return f"{role} of {self.count} workers, {self.address}"


def find(environment: Mapping[str, str] = os.environ) -> Cluster | None:
    """The cluster that TF_CONFIG tells of, or None where it is not set. Raises ConfigError."""
    text = environment.get(VARIABLE, "")
    return parse(text) if text.strip() else None


def parse(text: str) -> Cluster:
    """Read the text of TF_CONFIG. Raises ConfigError with the first thing that is wrong."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"is not JSON: {error}", text) from None
    cluster, task = _part(tree, "cluster"), _part(tree, "task")
    unknown = sorted(set(cluster) - {"chief", "worker"})
    if unknown:
        raise _wrong(
            f"cluster has {', '.join(unknown)}; convae trains with workers, all alike, of which "
            "one may be called chief",
            cluster,
        )
    chiefs, others = _addresses(cluster, "chief"), _addresses(cluster, "worker")
    if len(chiefs) > 1:
        raise _wrong("cluster.chief must be one address", chiefs)
    workers = (*chiefs, *others)
    if not workers:
        raise _wrong("cluster names no worker", cluster)
    twice = [address for address, count in Counter(workers).items() if count > 1]
    if twice:
        raise _wrong(f"cluster names {twice[0]} twice; every worker needs its own", list(workers))

    kind, index = task.get("type"), task.get("index")
    there = {"chief": chiefs, "worker": others}.get(kind) if isinstance(kind, str) else None
    if not there:
        known = " or ".join(k for k, v in (("chief", chiefs), ("worker", others)) if v)
        raise _wrong(f"task.type must be {known}, which cluster names", kind)
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(there):
        most = len(there) - 1
        raise _wrong(
            f"task.index must be {f'from 0 to {most}' if most else '0'}: cluster.{kind} has "
            f"{len(there)} of them",
            index,
        )
    return Cluster(workers, index + (len(chiefs) if kind == "worker" else 0))


def tf_config(workers: tuple[str, ...], rank: int) -> str:
    """The text of TF_CONFIG for the worker at `rank`, from 0."""
    task = {"type": "worker", "index": rank}
    return json.dumps({"cluster": {"worker": list(workers)}, "task": task})


def check_port(cluster: Cluster) -> None:
    """Raise ConfigError if another program listens on this worker's port, or none may.

    To be asked before TensorFlow listens there: it would share the port silently.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # A port whose last user has just ended is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", cluster.port))
        except OSError as error:
            raise ConfigError(
                f"{VARIABLE}: worker {cluster.rank} cannot listen on port {cluster.port}: "
                f"{error.strerror}. Received: {cluster.address}. Another training may still run "
                "there; end it or choose another port"
            ) from None


def report_started(environment: Mapping[str, str] = os.environ) -> None:
    """Tell `convae launch`, if it started this process, that all peers were found."""
    if path := environment.get(STARTED):
        Path(path).touch()


def _part(tree: Any, key: str) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise _wrong("must be a mapping with cluster and task", tree)
    if key not in tree:
        raise _wrong(f"has no {key}", tree)
    part = tree[key]
    if not isinstance(part, dict):
        raise _wrong(f"{key} must be a mapping", part)
    return part


def _addresses(cluster: dict[str, Any], kind: str) -> tuple[str, ...]:
    found = cluster.get(kind, [])
    if not isinstance(found, list):
        raise _wrong(f'cluster.{kind} must be a list of "host:port"', found)
    for address in found:
        match = _ADDRESS.fullmatch(address) if isinstance(address, str) else None
        if not match or not 1 <= int(match["port"]) <= 65535:
            raise _wrong(f'cluster.{kind} must be a list of "host:port"', address)
    return tuple(found)


def _wrong(what: str, received: object) -> ConfigError:
    return ConfigError(f"{VARIABLE}: {what}. Received: {received!r:.120}. Right would be {EXAMPLE}")
