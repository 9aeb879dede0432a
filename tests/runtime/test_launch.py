"""Workers that are started and ended together: small stand-ins for trainings."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convae.errors import ConvaeError
from convae.runtime import processes
from convae.runtime.launch import free_ports, launch, workers
from tests.conftest import Command

STARTED = "import os, sys, time; open(os.environ['CONVAE_STARTED'], 'w').close();"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
WAIT = "time.sleep(100)"
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells whose child one is")


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z"


def test_each_worker_knows_all_and_itself(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    tell = (
        "from convae.runtime.cluster import find, check_port, report_started; import os, sys;"
        "me = find(); check_port(me); report_started();"
        "cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 0;"
        "print(me.rank, me.count, len(set(me.workers)), cores, flush=True);"
        "print('words', os.environ['CUDA_VISIBLE_DEVICES'], file=sys.stderr)"
    )
    assert launch([python(tell)] * 3) == 0
    printed = capfd.readouterr()
    share = [len(part) for part in processes.shares(processes.available_cores(), 3)]
    assert printed.out == f"0 3 3 {share[0]}\n"  # the chief's stdout is what a program reads
    assert sorted(printed.err.splitlines()) == [
        "[0] words -1", f"[1] 1 3 3 {share[1]}", "[1] words -1", f"[2] 2 3 3 {share[2]}",
        "[2] words -1",
    ]  # fmt: skip


def test_one_that_dies_takes_the_deaf_with_it(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    deaf = f"{DEAF} import os, time; open({str(pid)!r}, 'w').write(str(os.getpid()));"
    dying = f"import pathlib, time, sys\nwhile not pathlib.Path({str(pid)!r}).exists(): "
    dying += "time.sleep(0.01)\nsys.exit(3)"
    began = time.monotonic()
    assert launch([python(deaf + WAIT), python(dying)], grace=0.5) == 3
    assert time.monotonic() - began < 60
    assert "worker 1 ended with exit code 3; ending the others" in capfd.readouterr().err
    assert gone(int(pid.read_text()))


def test_a_signal_is_told_by_its_name(capfd: pytest.CaptureFixture[str]) -> None:
    killed = "import os; os.kill(os.getpid(), 9)"
    assert launch([python(STARTED + WAIT), python(killed)], grace=5) == 128 + 9
    assert "worker 1 ended with signal SIGKILL" in capfd.readouterr().err


def test_a_missing_peer_ends_at_the_deadline(capfd: pytest.CaptureFixture[str]) -> None:
    assert launch([python(STARTED + WAIT), python("import time;" + WAIT)], 3, grace=5) == 1
    printed = capfd.readouterr().err
    assert "within 3 s; still missing: " in printed
    assert "1. All were ended" in printed


def test_the_deadline_is_for_the_start_alone() -> None:
    assert launch([python("pass"), python(STARTED + "time.sleep(5)")], 4.5) == 0


@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_reaches_all_as_ctrl_c(number: signal.Signals, tmp_path: Path) -> None:
    worker = (
        f"{STARTED}\ntry: {WAIT}\nexcept KeyboardInterrupt: "
        f"open({str(tmp_path)!r} + '/saved' + str(os.getpid()), 'w'); sys.exit(1)"
    )
    code = "from convae.runtime.launch import launch; import sys; "
    code += f"sys.exit(launch([{python(worker)}] * 2))"
    with subprocess.Popen(python(code), stderr=subprocess.PIPE, cwd=tmp_path) as process:
        time.sleep(0.1)
        launched = time.monotonic()
        while len(_children(process.pid)) < 2 or time.monotonic() < launched + 3:
            time.sleep(0.05)
            assert process.poll() is None
            assert time.monotonic() < launched + 60
        process.send_signal(number)
        errors = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 128 + number
    assert "asked all workers to save" in errors
    assert len(list(tmp_path.glob("saved*"))) == 2


@linux
def test_a_killed_launcher_leaves_nobody_behind(tmp_path: Path) -> None:
    code = (
        f"from convae.runtime.launch import launch; launch([{python(STARTED + DEAF + WAIT)}] * 2)"
    )
    with subprocess.Popen(python(code), stderr=subprocess.DEVNULL, cwd=tmp_path) as process:
        deadline = time.monotonic() + 60
        while len(children := _children(process.pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(2)  # until both are what they are to become
        process.kill()
        process.wait()
    assert len(children) == 2
    while not all(map(gone, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all(map(gone, children))


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return []
    return [int(word) for word in text.split()]


@given(st.lists(st.integers(), max_size=40, unique=True), st.integers(1, 12))
def test_shares_are_even_and_leave_nothing(items: list[int], count: int) -> None:
    dealt = processes.shares(items, count)
    assert len(dealt) == count
    if len(items) >= count:
        assert [item for share in dealt for item in share] == items
        sizes = [len(share) for share in dealt]
        assert max(sizes) - min(sizes) <= 1
    else:
        assert all(len(share) == min(1, len(items)) for share in dealt)


def test_gpus_are_those_that_the_variable_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, names in {"0,2": ["0", "2"], "-1": [], "": []}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert processes.gpus() == names


def test_free_ports_differ() -> None:
    assert len(set(free_ports(20))) == 20


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["launch"], "Missing argument"),
        (["launch", "-n", "0", "--", "train", "x.yaml"], "-n: must be from 1 to"),
        (["launch", "-n", "2", "--", "eval", "x"], "Received after --: eval x"),
        (
            ["launch", "--rendezvous-timeout", "0", "--", "train", "x.yaml"],
            "--rendezvous-timeout: must be above 0",
        ),
        (["launch", "-n", "2", "--", "train", "missing.yaml"], "no such file"),
    ],
)
def test_a_users_mistake_is_exit_2(convae: Command, words: list[str], part: str) -> None:
    done = convae(*words)
    assert done.returncode == 2
    assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert "tensorflow" not in done.stderr


def test_options_of_train_are_not_launchs() -> None:
    command = workers(2, ["train", "x.yaml", "--json", "seed=1"])[1]
    assert command[-4:] == ["train", "x.yaml", "--json", "seed=1"]
    with pytest.raises(ConvaeError, match="nothing"):
        workers(2, [])
