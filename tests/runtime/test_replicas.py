"""What workers share and say, with threads in the place of processes and a sum of our own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from convae.errors import ConvaeError
from convae.runtime.plan import Plan
from convae.runtime.replicas import ALONE, Replicas


def plan(**changes: Any) -> Plan:
    return Plan(
        "cpu", "test", "float32", jit_compile=False, threads=1, micro_batch_size=1, **changes
    )


class Worker(Replicas):
    """One of several threads, whose collective is an addition behind a barrier."""

    def __init__(self, worker: int, count: int, sums: dict[int, Any], all_: threading.Barrier):
        super().__init__()
        self.workers, self.worker = count, worker
        self._sums, self._all = sums, all_

    def sum(self, values: Sequence[float]) -> list[float]:
        self._sums[self.worker] = np.asarray(values, np.float64)
        self._all.wait(10)
        total: list[float] = sum(self._sums[rank] for rank in range(self.workers)).tolist()
        self._all.wait(10)
        return total


def together(count: int, work: Callable[[Worker], Any]) -> list[Any]:
    sums: dict[int, Any] = {}
    barrier = threading.Barrier(count)
    workers = [Worker(rank, count, sums, barrier) for rank in range(count)]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, workers))


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_parts_are_all_and_even(workers: int) -> None:
    for count in (0, 1, 5, 6, 100):
        parts = [Replicas(plan(workers=workers, replicas=workers, worker=w)).part(count)
                 for w in range(workers)]  # fmt: skip
        places = list(range(count))
        assert [place for part in parts for place in places[part]] == places
        sizes = [part.stop - part.start for part in parts]
        assert max(sizes) - min(sizes) <= 1


def test_alone_needs_nobody() -> None:
    assert ALONE.is_chief
    assert ALONE.sum([1, 2.5]) == [1.0, 2.5]
    assert ALONE.any(wish=True)
    assert not ALONE.any(wish=False)
    assert ALONE.texts("höre") == ["höre"]
    ALONE.agree({"a": 1})
    ALONE.wait()


def test_everybody_hears_everybody() -> None:
    texts = ["", "a", "zwölf"]
    assert together(3, lambda w: w.texts(texts[w.worker])) == [texts] * 3
    assert together(3, lambda w: w.any(w.worker == 2)) == [True] * 3
    assert together(3, lambda w: w.any(wish=False)) == [False] * 3


def test_who_differs_is_told_to_all() -> None:
    def work(worker: Worker) -> str:
        facts = {"config": {"layers": [{"filters": 3 + worker.worker // 2}]}, "seed": 0}
        try:
            worker.agree(facts)
        except ConvaeError as error:
            return str(error)
        return "agreed"

    assert together(2, work) == ["agreed"] * 2
    told = together(3, work)
    assert len(set(told)) == 1
    assert told[0].endswith(":\n  config.layers.0.filters: worker 2 has 4, the chief 3")


def test_many_differences_are_counted() -> None:
    def work(worker: Worker) -> str:
        with pytest.raises(ConvaeError) as caught:
            worker.agree({str(key): worker.worker for key in range(20)})
        return str(caught.value)

    assert together(2, work)[0].endswith("and 12 more")
