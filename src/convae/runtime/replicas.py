"""The replicas of a training, and what the workers tell each other, by tf.distribute.

Every worker must come to every collective, in the same order: `sum` and what is made of it, and
each step of the engine. What only the chief does, prints and writes, lies between them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from convae.config.diff import differences
from convae.errors import ConfigError
from convae.runtime import cluster, rendezvous
from convae.runtime.backend import quiet, tf

if TYPE_CHECKING:
    from convae.runtime.plan import Plan

TOLD = 8  # differences


class Replicas:
    """Copies of the model that train together: one, one a device, or some on each of `workers`.

    Made before anything of TensorFlow runs, by all workers at once; raises ConfigError if they do
    not find each other within `deadline` seconds.
    """

    def __init__(self, plan: Plan | None = None, deadline: float = 300.0) -> None:
        self.workers = plan.workers if plan else 1
        self.worker = plan.worker if plan else 0
        count = plan.replicas if plan else 1
        self._local = count // self.workers
        self._strategy: Any = None
        if plan is None or plan.strategy == "none":
            return
        vector = tf.TensorSpec((None,), tf.float64)
        self._added = tf.function(self._add, input_signature=[vector], autograph=False)
        if plan.strategy == "mirrored":
            devices = [f"{plan.device.upper()}:{index}" for index in range(count)]
            self._strategy = tf.distribute.MirroredStrategy(devices)
        else:
            together = cluster.find()
            assert together is not None  # noqa: S101 - the plan was made from it
            cluster.check_port(together)
            rendezvous.meet(together, deadline)
            with rendezvous.deadline(deadline, "the TensorFlow of all other workers"):
                self._strategy = _connected()
                self.wait()
        if self._strategy.num_replicas_in_sync != count:
            raise ConfigError(
                f"runtime.strategy: {plan.strategy} was to have {count} replicas and has "
                f"{self._strategy.num_replicas_in_sync}: every worker needs as many devices as "
                f"this one ({self._local})"
            )

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that prints and writes."""
        return self.worker == 0

    def scope(self) -> AbstractContextManager[Any]:
        """Where model and optimizer are made, so that every replica has them."""
        return self._strategy.scope() if self._strategy else nullcontext()

    def part(self, count: int) -> slice:
        """Which of `count` things are this worker's: neighbors, and as many as the others have."""
        first, last = (count * rank // self.workers for rank in (self.worker, self.worker + 1))
        return slice(first, last)

    # In a compiled function:

    def total(self, function: Callable[[], Any]) -> Any:
        """The sum of what `function` gives on every replica."""
        if self._strategy is None:
            return function()
        return self._strategy.reduce("SUM", self._strategy.run(function), axis=None)

    def total_here(self, function: Callable[[], Any]) -> Any:
        """The sum of what `function` gives on this worker's replicas; no collective."""
        if self._strategy is None:
            return function()
        return tf.add_n(self._strategy.experimental_local_results(self._strategy.run(function)))

    def share(self, arrays: Sequence[Any]) -> list[Any]:
        """In `function` of the above: of this worker's arrays, what this replica takes."""
        if self._local == 1:
            return list(arrays)
        count, local = tf.shape(arrays[0])[0], self._local
        index = tf.distribute.get_replica_context().replica_id_in_sync_group % local
        return [a[count * index // local : count * (index + 1) // local] for a in arrays]

    # Between them:

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value summed over the workers, who all get the same bits. A collective."""
        if self.workers == 1:
            return [float(value) for value in values]
        return [float(value) for value in self._added(np.asarray(values, np.float64)).numpy()]

    def wait(self) -> None:
        """Wait until all workers have come this far. A collective."""
        self.sum([0.0])

    def any(self, wish: bool) -> bool:
        """Whether any worker has the wish. A collective."""
        return self.sum([wish])[0] > 0

    def texts(self, text: str) -> list[str]:
        """What each worker says, in their order. A collective."""
        data = list(text.encode())
        lengths = [int(length) for (length,) in self._gathered([len(data)], 1)]
        rows = self._gathered(data, max(lengths))
        return [bytes(map(int, row[:n])).decode() for row, n in zip(rows, lengths, strict=True)]

    def agree(self, facts: Mapping[str, Any]) -> None:
        """Refuse to go on unless all workers' facts (JSON) are the same. A collective.

        Raises ConfigError on every worker, with what differs.
        """
        mine = json.dumps(facts, sort_keys=True)
        digest = list(hashlib.sha256(mine.encode()).digest())
        if len({tuple(row) for row in self._gathered(digest, len(digest))}) == 1:
            return
        chief, *others = (json.loads(text) for text in self.texts(mine))
        lines = [
            f"  {key}: worker {rank} has {its!r:.60}, the chief {chiefs!r:.60}"
            for rank, other in enumerate(others, 1)
            for key, (chiefs, its) in differences(chief, other).items()
        ]
        more = [f"  and {len(lines) - TOLD} more"] if len(lines) > TOLD else []
        raise ConfigError(
            "the workers cannot train together, because they do not have the same:\n"
            + "\n".join([*lines[:TOLD], *more])
        )

    def _gathered(self, values: Sequence[float], width: int) -> list[list[float]]:
        """The values of each worker, filled up to `width`."""
        rows = np.zeros((self.workers, width))
        rows[self.worker, : len(values)] = values
        summed = np.asarray(self.sum(rows.ravel().tolist()))
        found: list[list[float]] = summed.reshape(self.workers, width).tolist()
        return found

    def _add(self, values: Any) -> Any:
        def once() -> Any:
            index = tf.distribute.get_replica_context().replica_id_in_sync_group
            return tf.where(index % self._local == 0, values, tf.zeros_like(values))

        return self.total(once)


ALONE = Replicas()


def _connected() -> Any:
    try:
        with quiet():
            return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise ConfigError(
            "runtime.strategy: multi_worker must come before anything else of TensorFlow, in a "
            f"process of its own: {error}"
        ) from None
