"""The replicas of the model that train together, and the exchange between workers.

A collective must be called by every worker, in the same order. Each step of the engine is one, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from convae.config.diff import differences
from convae.errors import ConfigError
from convae.runtime.backend import quiet, tf
from convae.runtime.cluster import check_port, find_cluster
from convae.runtime.rendezvous import kill_after, wait_for_workers

if TYPE_CHECKING:
    from convae.runtime.plan import Plan

MAX_DIFFERENCES = 8  # in one message


class Replicas:
    """The copies of the model that train together, on all devices of all workers.

    All workers create it at the same time, before TensorFlow runs its first operation.

    Args:
        plan: The decisions of this worker; None stands for one replica in one process.
        rendezvous_timeout: The seconds in which the workers must find each other.

    Raises:
        ConfigError: The workers do not find each other, or differ in their number of devices.
    """

    def __init__(self, plan: Plan | None = None, rendezvous_timeout: float = 300.0) -> None:
        self.workers = plan.workers if plan else 1
        self.worker = plan.worker if plan else 0
        count = plan.replicas if plan else 1
        self._local = count // self.workers
        self._strategy: Any = None
        if plan is None or plan.strategy == "none":
            return
        vector = tf.TensorSpec((None,), tf.float64)
        self._sum_vector = tf.function(self._add, input_signature=[vector], autograph=False)
        if plan.strategy == "mirrored":
            devices = [f"{plan.device.upper()}:{index}" for index in range(count)]
            self._strategy = tf.distribute.MirroredStrategy(devices)
        else:
            self._connect(rendezvous_timeout)
        if self._strategy.num_replicas_in_sync != count:
            raise ConfigError(
                f"runtime.strategy: {plan.strategy} was to have {count} replicas and has "
                f"{self._strategy.num_replicas_in_sync}: every worker needs as many devices as "
                f"this one ({self._local})"
            )

    def _connect(self, rendezvous_timeout: float) -> None:
        cluster = find_cluster()
        assert cluster is not None  # noqa: S101 - the plan was made from it
        check_port(cluster)
        wait_for_workers(cluster, rendezvous_timeout)
        with kill_after(rendezvous_timeout, "the TensorFlow of all other workers"):
            try:
                with quiet():
                    self._strategy = tf.distribute.MultiWorkerMirroredStrategy()
            except RuntimeError as error:
                raise ConfigError(
                    "runtime.strategy: multi_worker must be set up before TensorFlow runs anything "
                    f"else, in a process of its own: {error}"
                ) from None
            self.wait_for_all()

    @property
    def is_chief(self) -> bool:
        """Whether this is worker 0, the only one that logs and saves."""
        return self.worker == 0

    def scope(self) -> AbstractContextManager[Any]:
        """Return tf.distribute's `Strategy.scope()`, in which to create model and optimizer."""
        return self._strategy.scope() if self._strategy else nullcontext()

    def worker_slice(self, count: int) -> slice:
        """Return this worker's slice of `count` examples; the sizes differ by at most 1."""
        first, last = (count * rank // self.workers for rank in (self.worker, self.worker + 1))
        return slice(first, last)

    # In a compiled function:

    def run_and_sum(self, function: Callable[[], Any]) -> Any:
        """Run `function` on every replica of all workers and return the sum. A collective."""
        if self._strategy is None:
            return function()
        return self._strategy.reduce("SUM", self._strategy.run(function), axis=None)

    def run_and_sum_local(self, function: Callable[[], Any]) -> Any:
        """Run `function` on every replica of this worker and return the sum. No collective."""
        if self._strategy is None:
            return function()
        return tf.add_n(self._strategy.experimental_local_results(self._strategy.run(function)))

    def replica_shard(self, arrays: Sequence[Any]) -> list[Any]:
        """Return this replica's shard of the worker's arrays, in a function that is run on each."""
        if self._local == 1:
            return list(arrays)
        count, local = tf.shape(arrays[0])[0], self._local
        index = tf.distribute.get_replica_context().replica_id_in_sync_group % local
        return [a[count * index // local : count * (index + 1) // local] for a in arrays]

    # Outside compiled functions:

    def all_reduce_sum(self, values: Sequence[float]) -> list[float]:
        """Return each value summed over the workers, the same bits on each. A collective."""
        if self.workers == 1:
            return [float(value) for value in values]
        return [float(value) for value in self._sum_vector(np.asarray(values, np.float64)).numpy()]

    def wait_for_all(self) -> None:
        """Wait until all workers call this. A collective."""
        self.all_reduce_sum([0.0])

    def any_worker(self, flag: bool) -> bool:
        """Return whether the flag of any worker is set. A collective."""
        return self.all_reduce_sum([flag])[0] > 0

    def all_gather_text(self, text: str) -> list[str]:
        """Return the texts of all workers, in their order. A collective."""
        if self.workers == 1:
            return [text]
        data = text.encode()
        lengths = [len(data) * (rank == self.worker) for rank in range(self.workers)]
        ends = np.cumsum(self.all_reduce_sum(lengths)).astype(int)
        joined = np.zeros(ends[-1])
        joined[ends[self.worker] - len(data) : ends[self.worker]] = list(data)
        total = np.asarray(self.all_reduce_sum(joined.tolist()), np.uint8)
        return [part.tobytes().decode() for part in np.split(total, ends[:-1])]

    def check_agreement(self, fingerprint: Mapping[str, Any]) -> None:
        """Check that all workers pass the same `fingerprint`, a tree of JSON. A collective.

        Raises:
            ConfigError: They differ. Every worker raises it, with the keys and values.
        """
        texts = self.all_gather_text(json.dumps(fingerprint, sort_keys=True))
        if len(set(texts)) == 1:
            return
        chief, *others = map(json.loads, texts)
        lines = [
            f"  {key}: worker {rank} has {theirs!r:.60}, worker 0 {ours!r:.60}"
            for rank, tree in enumerate(others, 1)
            for key, (ours, theirs) in differences(chief, tree).items()
        ]
        if len(lines) > MAX_DIFFERENCES:
            lines[MAX_DIFFERENCES:] = [f"  and {len(lines) - MAX_DIFFERENCES} more"]
        what = "the workers cannot train together, because these differ:"
        raise ConfigError("\n".join([what, *lines]))

    def _add(self, values: Any) -> Any:
        def once_per_worker() -> Any:
            index = tf.distribute.get_replica_context().replica_id_in_sync_group
            return tf.where(index % self._local == 0, values, tf.zeros_like(values))

        return self.run_and_sum(once_per_worker)


SINGLE = Replicas()
