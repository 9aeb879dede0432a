"""The exchange between workers, with threads instead of processes and a sum of our own."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from convae.errors import ConvaeError
from convae.runtime.plan import Plan
from convae.runtime.replicas import SINGLE, Replicas


def plan(**changes: Any) -> Plan:
    changes |= {"jit_compile": False, "threads": 1, "micro_batch_size": 1}
    return Plan("cpu", "test", "float32", **changes)


class Worker(Replicas):
    """One of several threads, whose collective is an addition behind a barrier."""

    def __init__(self, worker: int, count: int, sums: dict[int, Any], all_: threading.Barrier):
        super().__init__()
        self.workers, self.worker = count, worker
        self._sums, self._all = sums, all_

    def all_reduce_sum(self, values: Sequence[float]) -> list[float]:
        self._sums[self.worker] = np.asarray(values, np.float64)
        self._all.wait(10)
        total: list[float] = sum(self._sums[rank] for rank in range(self.workers)).tolist()
        self._all.wait(10)
        return total


def run_workers(count: int, work: Callable[[Worker], Any]) -> list[Any]:
    sums: dict[int, Any] = {}
    barrier = threading.Barrier(count)
    workers = [Worker(rank, count, sums, barrier) for rank in range(count)]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, workers))


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_worker_slices_are_complete_and_even(workers: int) -> None:
    for count in (0, 1, 5, 6, 100):
        parts = [Replicas(plan(workers=workers, replicas=workers, worker=w)).worker_slice(count)
                 for w in range(workers)]  # fmt: skip
        places = list(range(count))
        assert [place for part in parts for place in places[part]] == places
        sizes = [part.stop - part.start for part in parts]
        assert max(sizes) - min(sizes) <= 1


def test_a_single_worker_exchanges_nothing() -> None:
    assert SINGLE.is_chief
    assert SINGLE.all_reduce_sum([1, 2.5]) == [1.0, 2.5]
    assert SINGLE.any_worker(flag=True)
    assert not SINGLE.any_worker(flag=False)
    assert SINGLE.all_gather_text("höre") == ["höre"]
    SINGLE.check_agreement({"a": 1})
    SINGLE.wait_for_all()


def test_every_worker_receives_all_values() -> None:
    texts = ["", "a", "zwölf"]
    assert run_workers(3, lambda w: w.all_gather_text(texts[w.worker])) == [texts] * 3
    assert run_workers(3, lambda w: w.any_worker(w.worker == 2)) == [True] * 3
    assert run_workers(3, lambda w: w.any_worker(flag=False)) == [False] * 3


def test_differences_are_reported_on_all_workers() -> None:
    def work(worker: Worker) -> str:
        fingerprint = {"config": {"layers": [{"filters": 3 + worker.worker // 2}]}, "seed": 0}
        try:
            worker.check_agreement(fingerprint)
        except ConvaeError as error:
            return str(error)
        return "agreed"

    assert run_workers(2, work) == ["agreed"] * 2
    messages = run_workers(3, work)
    assert len(set(messages)) == 1
    assert messages[0].endswith(":\n  config.layers.0.filters: worker 2 has 4, worker 0 3")


def test_many_differences_are_counted() -> None:
    def work(worker: Worker) -> str:
        with pytest.raises(ConvaeError) as caught:
            worker.check_agreement({str(key): worker.worker for key in range(20)})
        return str(caught.value)

    assert run_workers(2, work)[0].endswith("and 12 more")
