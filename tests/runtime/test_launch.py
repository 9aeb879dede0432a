"""Workers are started and ended together: small programs stand in for trainings."""

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
from convae.runtime.hardware import available_cores, split_evenly, visible_gpus
from convae.runtime.launch import launch, worker_commands
from tests.conftest import Command

STARTED = "import os, sys, time; open(os.environ['CONVAE_STARTED'], 'w').close();"
NO_SIGTERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
WAIT = "time.sleep(100)"
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists child processes")


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
    program = (
        "from convae.runtime.cluster import find_cluster, check_port, report_started;"
        "import os, sys;"
        "me = find_cluster(); check_port(me); report_started();"
        "cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 0;"
        "print(me.rank, me.count, len(set(me.workers)), cores, flush=True);"
        "print('gpus', os.environ['CUDA_VISIBLE_DEVICES'], file=sys.stderr)"
    )
    assert launch([python(program)] * 3) == 0
    printed = capfd.readouterr()
    share = [len(part) for part in split_evenly(available_cores(), 3)]
    assert printed.out == f"0 3 3 {share[0]}\n"  # a program reads worker 0's stdout
    assert sorted(printed.err.splitlines()) == [
        "[0] gpus -1", f"[1] 1 3 3 {share[1]}", "[1] gpus -1", f"[2] 2 3 3 {share[2]}",
        "[2] gpus -1",
    ]  # fmt: skip


def test_a_failed_worker_ends_one_that_ignores_sigterm(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    ignoring = f"{NO_SIGTERM} import os, time; open({str(pid)!r}, 'w').write(str(os.getpid()));"
    dying = f"import pathlib, time, sys\nwhile not pathlib.Path({str(pid)!r}).exists(): "
    dying += "time.sleep(0.01)\nsys.exit(3)"
    began = time.monotonic()
    assert launch([python(ignoring + WAIT), python(dying)], grace=0.5) == 3
    assert time.monotonic() - began < 60
    assert "worker 1 ended with exit code 3; ending the others" in caplog.text
    assert gone(int(pid.read_text()))


def test_a_signal_is_named(caplog: pytest.LogCaptureFixture) -> None:
    killed = "import os; os.kill(os.getpid(), 9)"
    assert launch([python(STARTED + WAIT), python(killed)], grace=5) == 128 + 9
    assert "worker 1 ended with signal SIGKILL" in caplog.text


def test_a_missing_worker_ends_all_after_the_timeout(caplog: pytest.LogCaptureFixture) -> None:
    assert launch([python(STARTED + WAIT), python("import time;" + WAIT)], 3, grace=5) == 1
    assert "within 3 s; still missing: " in caplog.text
    assert "1. All were ended" in caplog.text


def test_the_timeout_is_only_for_the_start() -> None:
    assert launch([python("pass"), python(STARTED + "time.sleep(5)")], 4.5) == 0


@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_reaches_all_workers_as_sigint(
    number: signal.Signals, tmp_path: Path
) -> None:
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
    assert "all workers save and end" in errors
    assert len(list(tmp_path.glob("saved*"))) == 2


@linux
def test_a_killed_launcher_leaves_nobody_behind(tmp_path: Path) -> None:
    worker = python(STARTED + NO_SIGTERM + WAIT)
    code = f"from convae.runtime.launch import launch; launch([{worker}] * 2)"
    with subprocess.Popen(python(code), stderr=subprocess.DEVNULL, cwd=tmp_path) as process:
        deadline = time.monotonic() + 60
        while len(children := _children(process.pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(2)  # until both execute their command
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
def test_split_evenly_is_even_and_complete(items: list[int], count: int) -> None:
    lists = split_evenly(items, count)
    assert len(lists) == count
    if len(items) >= count:
        assert [item for share in lists for item in share] == items
        sizes = [len(share) for share in lists]
        assert max(sizes) - min(sizes) <= 1
    else:
        assert all(len(share) == min(1, len(items)) for share in lists)


def test_the_environment_names_the_visible_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, names in {"0,2": ["0", "2"], "-1": [], "": []}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert visible_gpus() == names


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["launch"], "Missing argument"),
        (["launch", "-n", "0", "--", "train", "x.yaml"], "-n: must be from 1 to"),
        (["launch", "-n", "2", "--", "eval", "x"], "Received after --: eval x"),
        (["launch", "--rendezvous-timeout", "0", "--", "train", "x"], "timeout: must be above 0"),
        (["launch", "-n", "2", "--", "train", "missing.yaml"], "no such file"),
    ],
)
def test_a_users_mistake_is_exit_2(convae: Command, words: list[str], part: str) -> None:
    done = convae(*words, code=2)
    assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert "tensorflow" not in done.stderr


def test_options_of_train_are_not_parsed_by_launch() -> None:
    command = worker_commands(2, ["train", "x.yaml", "--json", "seed=1"])[1]
    assert command[-4:] == ["train", "x.yaml", "--json", "seed=1"]
    with pytest.raises(ConvaeError, match="nothing"):
        worker_commands(2, [])
