"""Sweeps: errors, results and resuming. A small stand-in takes the place of `convae train`."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from convae.config.loader import load_config
from convae.errors import ConvaeError
from convae.runtime.hardware import core_count
from convae.sweep.results import Results, format_results, shorten_keys
from convae.sweep.space import Sweep
from convae.sweep.study import sweep
from tests.conftest import ROOT, Command, tiny

optuna = pytest.importorskip("optuna")
from convae.sweep import runner  # noqa: E402 - it imports Optuna

MNIST = str(ROOT / "configs/mnist.yaml")
RATES = "training.learning_rate: {low: 1e-4, high: 1e-1, log: true}"

# A run whose losses follow from its learning rate. Between its epochs it waits for a file, if
# there is a folder `hold`; SIGTERM saves and ends it, as with a training.
STAND_IN = """
import json, math, pathlib, signal, sys, time
from convae.config.loader import load_config
from convae.runs.run import Run
words = sys.argv[1:]
if words[0] == "--resume":
    run = Run(pathlib.Path(words[1]))
    config = run.config
else:
    at = words.index("--runs-dir")
    config = load_config(words[0], [*words[1:at], f"output.folder={json.dumps(words[at + 1])}"])
    run = Run.create(config)
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
rate = config.training.learning_rate
if rate > 0.05:
    sys.exit("convae: the loss is not a number in epoch 1, step 1")
rows = run.history
hold = pathlib.Path("hold")
for epoch in range(len(rows), config.training.epochs):
    loss = 0.06 + 0.01 * abs(math.log10(rate) + 2.5) + 0.01 / (epoch + 1)
    row = dict.fromkeys(["loss", "val_excess", "learning_rate", "seconds", "images_per_second"], 1)
    rows.append({"epoch": epoch + 1, "val_loss": loss, **row})
    run.write_history(rows)
    run.save_checkpoint({"epoch": epoch + 1}, [])
    while hold.exists() and not stopped:
        time.sleep(0.01)
    if stopped:
        sys.exit(1)
"""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Trials run STAND_IN, and the test runs in an empty folder. Returns the script."""
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(runner, "TRAIN", (sys.executable, str(script)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.chdir(tmp_path)
    return script


@pytest.fixture
def ranges(tmp_path: Path) -> Callable[..., str]:
    """Write a sweep.yaml of some parameters, each a line, and other keys; returns its path."""

    def write(*parameters: str, **keys: object) -> str:
        path = tmp_path / "ranges.yaml"
        lines = "\n".join(f"  {line}" for line in parameters)
        path.write_text(f"parameters:\n{lines}\n" + (yaml.safe_dump(keys) if keys else ""))
        return str(path)

    return write


def states(found: Results) -> dict[str, int]:
    outcomes = [trial.outcome for trial in found.trials]
    return {outcome: outcomes.count(outcome) for outcome in outcomes}


def test_a_sweep_from_ranges_to_a_config_that_trains(
    stand_in: Path, ranges: Callable[..., str]
) -> None:
    batches = "training.batch_size: {choices: [100, 500]}"
    path = ranges(RATES, batches, "model.encoder.0.filters: {low: 8, high: 32}", workers=2)
    found = sweep(MNIST, path, ["training.epochs=2"], trials=4)
    assert states(found).keys() <= {"complete", "failed"}
    assert len(found.trials) == 4
    best = found.best
    assert best
    assert best.value == min(t.value for t in found.trials if t.value is not None)
    folder = Path("outputs/mnist-ranges")
    assert {"sweep.db", "best.yaml", "sweep.png", best.name} <= {p.name for p in folder.iterdir()}
    config = load_config(folder / "best.yaml")
    assert config.training.learning_rate == best.parameters["training.learning_rate"]
    assert config.training.batch_size == best.parameters["training.batch_size"]
    assert config.model.encoder[0].filters == best.parameters["model.encoder.0.filters"]
    assert config.training.epochs == 2
    assert (config.name, config.runtime.threads) == ("mnist", "auto")
    # A trial is a normal run, with its share of the cores.
    run = yaml.safe_load((Path(best.run) / "config.yaml").read_text())
    cores = max(1, core_count() // 2)
    assert run["runtime"]["threads"] == cores
    assert run["training"]["batch_size"] == best.parameters["training.batch_size"]
    lines = format_results(found).splitlines()
    assert lines[0].split() == ["trial", "val_loss", "epochs", "time", "learning_rate",
                                "batch_size", "filters"]  # fmt: skip
    assert lines[2].startswith(best.name)
    assert json.loads(json.dumps(found.record()))["best"]["name"] == best.name
    # `trials` is a total: nothing is left to do, and one more is one more.
    assert sweep(MNIST, path, ["training.epochs=2"], trials=4).trials == found.trials
    more = sweep(MNIST, path, ["training.epochs=2"], trials=5)
    assert more.trials[:4] == found.trials
    assert len(more.trials) == 5
    rates = [trial.parameters["training.learning_rate"] for trial in more.trials]
    assert len(set(rates)) == 5
    # A study with other settings is refused.
    with pytest.raises(ConvaeError, match="other settings: config.training.epochs. Its trials"):
        sweep(MNIST, path, ["training.epochs=3"])


def test_a_failing_trial_is_reported_and_the_others_continue(
    stand_in: Path, ranges: Callable[..., str]
) -> None:
    path = ranges("training.learning_rate: {choices: [0.01, 0.08]}", sampler="grid")
    found = sweep(MNIST, path, ["training.epochs=1"])
    assert states(found) == {"failed": 1, "complete": 1}
    assert found.trials[0].reason == "the loss is not a number in epoch 1, step 1"
    assert "trial-0000 failed: the loss is not a number" in format_results(found)


def test_when_all_fail_there_is_no_best(stand_in: Path, ranges: Callable[..., str]) -> None:
    found = sweep(MNIST, ranges("training.learning_rate: {choices: [0.08]}", trials=1))
    assert (found.best, found.stopped) == (None, "")
    assert "there is no best config" in format_results(found)
    assert not Path("outputs/mnist-ranges/best.yaml").exists()


def test_a_grid_tries_each_combination_once(stand_in: Path, ranges: Callable[..., str]) -> None:
    path = ranges(
        "training.learning_rate: {choices: [0.01, 0.02]}",
        "training.schedule: {choices: [{type: constant}, {type: one_cycle, warmup: 0.2}]}",
        sampler="grid", workers=2,
    )  # fmt: skip
    first = sweep(MNIST, path, ["training.epochs=1"], trials=3)
    assert len(first.trials) == 3
    found = sweep(MNIST, path, ["training.epochs=1"])
    tried = [json.dumps(trial.parameters, sort_keys=True) for trial in found.trials]
    assert len(tried) == len(set(tried)) == 4
    schedule = load_config("outputs/mnist-ranges/best.yaml").training.schedule
    assert found.best
    assert schedule.type == found.best.parameters["training.schedule"]["type"]


@pytest.mark.slow
def test_a_poor_trial_is_pruned_and_saved(
    stand_in: Path, ranges: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "STARTUP_TRIALS", 1)
    slow = STAND_IN.replace("while hold.exists()", "time.sleep(0.3)\n    while hold.exists()")
    stand_in.write_text(slow)
    path = ranges("training.learning_rate: {choices: [0.0001, 0.003]}", sampler="grid")  # shuffled
    found = sweep(MNIST, path, ["training.epochs=30"])
    good, poor = found.trials
    assert (good.outcome, good.epochs) == ("complete", 30)
    assert poor.outcome == "pruned"
    assert 0 < poor.epochs < 30
    assert (Path(poor.run) / "checkpoint/latest.npz").exists()
    assert "pruned 0.0" in format_results(found)


def start_sweep(script: Path, path: str, *words: str) -> subprocess.Popen[bytes]:
    code = (
        "import sys; from convae.sweep import runner; from convae.cli.main import main;"
        f"runner.TRAIN = (sys.executable, {str(script)!r});"
        f"sys.argv = ['convae', 'sweep', {MNIST!r}, {path!r}, *{list(words)}]; main()"
    )
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a trial with its sweep")
@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_a_stopped_sweep_resumes_its_trials(
    number: signal.Signals, stand_in: Path, ranges: Callable[..., str]
) -> None:
    hold = Path("hold")
    hold.mkdir()
    choices = "training.learning_rate: {choices: [0.003, 0.004, 0.005]}"
    path = ranges(choices, sampler="grid", workers=2)
    process = start_sweep(stand_in, path, "training.epochs=3")
    deadline = time.monotonic() + 90
    while len(list(Path().glob("outputs/*/trial-*/*/*/checkpoint/latest.npz"))) < 4:
        assert time.monotonic() < deadline  # 2 folders, and `latest` of each
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    out, errors = (text.decode() for text in process.communicate(timeout=90))
    if number is signal.SIGINT:
        assert process.returncode == 1
        assert "interrupted; the same command resumes mnist-ranges" in errors
        assert out.count("interrupted") == 2
        assert "Traceback" not in errors
    hold.rmdir()
    found = sweep(MNIST, path, ["training.epochs=3"])
    assert states(found) == {"complete": 3}
    assert [trial.epochs for trial in found.trials] == [3, 3, 3]
    # Each trial has one run: the first two were resumed.
    runs = {p.parent for p in Path().glob("outputs/*/trial-*/*/*/config.yaml")}
    assert len([run for run in runs if run.name != "latest"]) == 3


def test_a_timeout_is_reported_and_resumable(stand_in: Path, ranges: Callable[..., str]) -> None:
    Path("hold").mkdir()
    path = ranges("training.learning_rate: {choices: [0.003]}", trials=1)
    found = sweep(MNIST, path, ["training.epochs=2"], timeout=4)
    assert found.stopped == "out of time"
    assert states(found) == {"interrupted": 1}
    Path("hold").rmdir()
    assert states(sweep(MNIST, path, ["training.epochs=2"])) == {"complete": 1}


@pytest.mark.slow
def test_two_sweeps_share_a_study(stand_in: Path, ranges: Callable[..., str]) -> None:
    path = ranges(RATES)
    storage = "sqlite:///shared.db"
    words = ["training.epochs=1", "--trials", "4", "--storage", storage, "--name", "common"]
    others = [start_sweep(stand_in, path, *words) for _ in range(2)]
    for process in others:
        errors = process.communicate(timeout=120)[1].decode()
        assert process.returncode == 0, errors
    found = sweep(MNIST, path, ["training.epochs=1"], trials=4, storage=storage, name="common")
    assert 4 <= len(found.trials) <= 5  # both may start the last one
    assert set(states(found)) <= {"complete", "failed"}


@pytest.mark.parametrize(
    ("lines", "keys", "part"),
    [
        ([RATES.replace("learning_rate", "learning_rat")], {}, "did you mean learning_rate"),
        (["training.learning_rate: {low: 0, high: 1}"], {}, "line 2: parameters.training.learning"),
        (["training.batch_size: {low: 8.0, high: 32}"], {}, "no trial is possible with 8.0"),
        (["training.batch_size: {choices: [8, x]}"], {}, 'no trial is possible with "x"'),
        (["training.batch_size: {choices: [8, 8]}"], {}, "choices must be different"),
        (["training.batch_size: {choices: []}"], {}, "at least one"),
        (["training.batch_size: {low: 8}"], {}, "needs low and high, or choices"),
        (["training.batch_size: {low: 9, high: 8}"], {}, "low must be below high"),
        (["training.batch_size: {low: 0, high: 8, log: true}"], {}, "needs low above 0"),
        (["training.batch_size: {low: 1, high: 8, choices: [1]}"], {}, "not both"),
        (["training.batch_size: {lo: 1, high: 8}"], {}, "did you mean low"),
        (["training.batch_size: 8"], {}, "line 2: parameters.training.batch_size"),
        (["model.decoder.0.padding: {choices: [same, valid]}"], {}, "do not fit together"),
        (["model.decoder.9.filters: {low: 1, high: 8}"], {}, "9 is no place in a list"),
        (["output.folder: {choices: [a, b]}"], {}, "is set by the sweep itself"),
        ([RATES], {"sampler": "grid"}, "grid needs choices for every key"),
        ([RATES], {"sampler": "gird"}, "line 3: sampler"),
        ([RATES], {"trials": 0}, "line 3: trials"),
        ([RATES], {"pruners": "none"}, "did you mean pruner"),
        ([], {}, "parameters"),
    ],
)
def test_a_wrong_sweep_is_refused_before_a_trial(
    lines: list[str], keys: dict[str, object], part: str, stand_in: Path,
    ranges: Callable[..., str],
) -> None:  # fmt: skip
    with pytest.raises(ConvaeError) as caught:
        sweep(MNIST, ranges(*lines, **keys))
    assert part in str(caught.value)
    assert "ranges.yaml" in str(caught.value)
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"trials": 0}, "trials"),
        ({"workers": -1}, "workers"),
        ({"timeout": 0.0}, "--timeout: must be above 0"),
        ({"name": "../x"}, "--name: must be letters"),
        ({"storage": "nonsense"}, "storage of the study"),
        ({"storage": "sqlite:////nowhere/at/all.db"}, "storage of the study"),
    ],
)
def test_a_wrong_option_is_refused(
    options: dict[str, Any], part: str, stand_in: Path, ranges: Callable[..., str]
) -> None:
    with pytest.raises(ConvaeError, match=part):
        sweep(MNIST, ranges(RATES), [], **options)


def test_a_broken_storage_is_a_message(stand_in: Path, ranges: Callable[..., str]) -> None:
    folder = Path("outputs/mnist-ranges")
    folder.mkdir(parents=True)
    (folder / "sweep.db").write_bytes(b"no database at all, but long enough to look at" * 9)
    with pytest.raises(ConvaeError, match="not a database"):
        sweep(MNIST, ranges(RATES))


@pytest.mark.parametrize(
    ("revision", "advice"), [("v2.4.0.a", "storage upgrade"), ("v99.0.0.a", "updating optuna")]
)
def test_a_storage_of_another_version_of_optuna(
    stand_in: Path, ranges: Callable[..., str], revision: str, advice: str
) -> None:
    storage = "sqlite:///other.db"
    optuna.storages.RDBStorage(storage)
    with closing(sqlite3.connect("other.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = ?", [revision])
        database.commit()
    with pytest.raises(ConvaeError, match=f"mnist-ranges cannot be used: .*{advice}"):
        sweep(MNIST, ranges(RATES), storage=storage)


def test_stale_trials() -> None:
    import datetime
    import socket

    def trial(**attributes: object) -> object:
        made = optuna.trial.create_trial(value=1.0, user_attrs=attributes)
        made.datetime_start = datetime.datetime.now()
        return made

    here, now = socket.gethostname(), time.time()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    parent = os.getppid()
    for attributes, stale in (
        ({"host": here, "pid": ended.pid, "seen": now}, True),
        ({"host": here, "pid": os.getpid(), "seen": now}, True),
        ({"host": here, "pid": parent, "seen": now}, False),
        ({"host": "other", "pid": ended.pid, "seen": now}, False),
        ({"host": "other", "pid": parent, "seen": now - 1000}, True),
        ({}, False),  # just started
    ):
        assert runner.is_stale(trial(**attributes)) == stale, attributes  # type: ignore[arg-type]


def test_short_keys_stay_different() -> None:
    keys = ["training.learning_rate", "model.encoder.0.filters", "model.decoder.0.filters", "seed"]
    assert list(shorten_keys(keys).values()) == [
        "learning_rate", "encoder.0.filters", "decoder.0.filters", "seed",
    ]  # fmt: skip


def test_without_optuna_the_error_has_the_install_line(
    stand_in: Path, ranges: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConvaeError, match=r"pip install 'convae\[sweep\]'"):
        sweep(MNIST, ranges(RATES))


def test_the_shipped_sweep_fits_the_shipped_config() -> None:
    from convae.config.validation import validate
    from convae.config.yaml_tree import read
    from convae.sweep.study import check_parameter

    settings = validate(Sweep, read(ROOT / "configs/sweep.yaml"))
    for key, parameter in settings.parameters.items():
        check_parameter(MNIST, [], key, parameter, "")


@pytest.mark.slow
def test_with_real_trainings(digits: Path, tmp_path: Path, convae: Command) -> None:
    (tmp_path / "sweep.yaml").write_text(
        "parameters: {training.learning_rate: {choices: [0.001, 0.01]}}\nsampler: grid\nworkers: 2"
    )
    words = tiny(digits, tmp_path / "runs")
    done = convae("sweep", MNIST, "sweep.yaml", *words, "--json", timeout=300, code=0)
    found = json.loads(done.stdout)
    assert [trial["outcome"] for trial in found["trials"]] == ["complete"] * 2
    assert found["best"]["epochs"] == 2
    convae("train", found["best_config"], code=0)
