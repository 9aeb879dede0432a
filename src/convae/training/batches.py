"""The batches of an epoch, several of them to a call of the engine.

Small steps gain by it: the call of a graph takes as long as a few images. Nothing else depends on
how many steps share a call, so a run may stop and resume between any two calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from convae.config.schema import CheckpointInterval
from convae.data.loading import TrainingData
from convae.runtime.backend import keras
from convae.runtime.replicas import Replicas
from convae.tasks import Examples, Task
from convae.tasks.task import batch_examples

T = TypeVar("T")

BATCH_HOOKS = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")


@dataclass(frozen=True)
class Call:
    """Steps of an epoch that one call of the engine takes."""

    steps: range
    sizes: list[tuple[int, int]]  # of each batch, on this worker and on all workers
    examples: Examples  # this worker's parts of all batches


def watches_batches(callback: Any) -> bool:
    """Return whether a Keras callback does anything at the begin or end of a batch."""
    methods = {name: getattr(callback, name) for name in BATCH_HOOKS}
    return any(
        getattr(method, "__func__", None) is not getattr(keras.callbacks.Callback, name)
        for name, method in methods.items()
    )


def epoch_calls(
    task: Task, data: TrainingData, replicas: Replicas, epoch: int, first: int, most: int
) -> Iterator[Call]:
    """Yield the calls of an epoch from its step `first` on, each of at most `most` steps.

    The examples of a call are made in a thread while those before are trained on.
    """
    training, split = task.config.training, data.train
    order = epoch_order(task.config.seed, epoch, len(split), data.samples_per_epoch)
    batches = [
        order[start : start + training.batch_size]
        for start in range(0, len(order), training.batch_size)
    ]

    def make(steps: range) -> Call:
        mine = [replicas.worker_slice(len(batches[step])) for step in steps]
        parts = [
            batch_examples(task, split, batches[step], part, epoch, step)
            for step, part in zip(steps, mine, strict=True)
        ]
        sizes = [(len(part), len(batches[step])) for step, part in zip(steps, parts, strict=True)]
        return Call(steps, sizes, Examples.concatenate(parts))

    return _ahead(map(make, _ranges(first, len(batches), most, training.checkpoint_interval)))


def epoch_order(seed: int, epoch: int, count: int, total: int) -> NDArray[np.int64]:
    """Return the indices of the `total` images of an epoch: shuffled passes over all `count`.

    They follow from `seed` and `epoch` alone, so a resumed run trains on the same batches.
    """
    generator = np.random.default_rng([seed, epoch])
    passes = [generator.permutation(count) for _ in range(-(-total // count))]
    return np.concatenate(passes)[:total]


def _ranges(
    first: int, total: int, most: int, interval: CheckpointInterval | None
) -> Iterator[range]:
    """Yield the steps of each call, none of which goes beyond a step with a checkpoint."""
    every = (interval and interval.steps) or total
    while first < total:
        last = min(first + most, total, (first // every + 1) * every)
        yield range(first, last)
        first = last


def _ahead(items: Iterable[T]) -> Iterator[T]:
    """Yield `items`, each of which is made in a thread while the one before is used."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(next, iterator, end)
        while (item := made.result()) is not end:
            made = pool.submit(next, iterator, end)
            yield item  # type: ignore[misc]
