import socket
import subprocess
import sys
import threading

import pytest

from convae.errors import ConvaeError
from convae.runtime import rendezvous
from convae.runtime.cluster import Cluster
from convae.runtime.launch import free_ports


def addresses(count: int) -> tuple[str, ...]:
    return tuple(f"127.0.0.1:{port}" for port in free_ports(count))


def test_all_who_come_meet() -> None:
    workers = addresses(4)
    met: list[int] = []

    def come(rank: int) -> None:
        rendezvous.meet(Cluster(workers, rank), 30)
        with socket.create_server(("127.0.0.1", Cluster(workers, rank).port)):  # as TensorFlow does
            met.append(rank)
            while len(met) < len(workers):
                pass

    threads = [threading.Thread(target=come, args=(rank,)) for rank in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(met) == [0, 1, 2, 3]


def test_who_is_missing_is_named_at_the_deadline() -> None:
    workers = (*addresses(2), "no-such-host.invalid:2222")
    with (
        socket.create_server(("127.0.0.1", int(workers[1].rpartition(":")[2]))),
        pytest.raises(ConvaeError) as caught,
    ):
        rendezvous.meet(Cluster(workers, 0), 0.1)
    assert "of 3 workers 1 did not answer within 0.1 s" in str(caught.value)
    assert "worker 2 at no-such-host.invalid:2222: " in str(caught.value)


def test_a_single_worker_waits_for_nobody() -> None:
    rendezvous.meet(Cluster(addresses(1), 0), 1)


@pytest.mark.parametrize(("seconds", "code"), [(60, 0), (0.2, -9)])
def test_a_body_that_takes_too_long_ends_the_process(seconds: float, code: int) -> None:
    program = (
        "import time; from convae.runtime.rendezvous import deadline\n"
        f"with deadline({seconds}, 'the answer'): time.sleep({60 if code else 0})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == code
    told = "convae: the answer did not come within 0.2 s (runtime.rendezvous_timeout)\n"
    assert done.stderr == (told if code else "")
