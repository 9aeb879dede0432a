import socket
import subprocess
import sys
import threading

import pytest

from convae.errors import ConvaeError
from convae.runtime.cluster import Cluster
from convae.runtime.launch import free_ports
from convae.runtime.rendezvous import wait_for_workers


def addresses(count: int) -> tuple[str, ...]:
    return tuple(f"127.0.0.1:{port}" for port in free_ports(count))


def test_workers_find_each_other() -> None:
    workers = addresses(4)
    found: list[int] = []

    def meet(rank: int) -> None:
        wait_for_workers(Cluster(workers, rank), 30)
        with socket.create_server(("127.0.0.1", Cluster(workers, rank).port)):  # as TensorFlow does
            found.append(rank)
            while len(found) < len(workers):
                pass

    threads = [threading.Thread(target=meet, args=(rank,)) for rank in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [0, 1, 2, 3]


def test_missing_workers_are_named_after_the_timeout() -> None:
    workers = (*addresses(2), "no-such-host.invalid:2222")
    with (
        socket.create_server(("127.0.0.1", int(workers[1].rpartition(":")[2]))),
        pytest.raises(ConvaeError) as caught,
    ):
        wait_for_workers(Cluster(workers, 0), 0.1)
    assert "of 3 workers 1 did not answer within 0.1 s" in str(caught.value)
    assert "worker 2 at no-such-host.invalid:2222: " in str(caught.value)


@pytest.mark.parametrize(("seconds", "code"), [(60, 0), (0.2, -9)])
def test_a_block_that_takes_too_long_ends_the_process(seconds: float, code: int) -> None:
    program = (
        "import time; from convae.runtime.rendezvous import kill_after\n"
        f"with kill_after({seconds}, 'the answer'): time.sleep({60 if code else 0})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == code
    message = "convae: the answer did not come within 0.2 s (runtime.rendezvous_timeout)\n"
    assert done.stderr == (message if code else "")
