import json
import os
import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convae.config.loader import load_config
from convae.config.schema import Config
from convae.errors import CheckpointError, ConfigError, ConvaeError, FileError, RunError
from convae.files import write_atomic
from convae.runs.provenance import command_line, git_commit
from convae.runs.run import Run
from tests.conftest import ROOT, SAMPLE


def config(folder: Path, name: str = "mnist") -> Config:
    return load_config(ROOT / "configs/mnist.yaml", [f"output.folder={folder}", f"name={name}"])


def test_a_new_run_holds_its_config(tmp_path: Path) -> None:
    settings = config(tmp_path / "o")
    assert Run.create(settings).config == settings


@pytest.mark.skipif(sys.platform == "win32", reason="there are no links")
def test_a_link_points_to_the_newest_run(tmp_path: Path) -> None:
    for _ in range(2):
        run = Run.create(config(tmp_path / "o"))
        assert (tmp_path / "o/mnist/latest").resolve() == run.path.resolve()


def test_the_newest_run_is_found_without_a_link(tmp_path: Path) -> None:
    first, second = (Run.create(config(tmp_path / "o")) for _ in range(2))
    Run.create(config(tmp_path / "o", "denoise"))
    (tmp_path / "o/mnist/latest").unlink(missing_ok=True)
    assert Run.find(str(tmp_path / "o/mnist/latest"), "elsewhere").path == second.path
    assert first.path != second.path


def test_runs_are_found_by_folder_id_name_or_not_at_all(tmp_path: Path) -> None:
    outputs = str(tmp_path / "o")
    with pytest.raises(ConvaeError, match="no run in .* yet; convae train"):
        Run.find(None, outputs)
    first, second = (Run.create(config(tmp_path / "o", name)) for name in ("mnist", "denoise"))
    assert Run.find(None, outputs).path == second.path
    assert Run.find(str(first.path), outputs).path == first.path
    assert Run.find(first.path.name, outputs).path == first.path
    assert Run.find(first.path.name[-4:], outputs).path == first.path
    assert Run.find("denoise", outputs).path == second.path
    assert Run.find("latest", outputs).path == Run.find(None, outputs).path
    with pytest.raises(ConvaeError, match="no run called"):
        Run.find("x" * 5000, outputs)
    assert Run.find(str(tmp_path / "o/mnist/latest"), outputs).path == first.path.resolve()
    with pytest.raises(ConvaeError, match="no run called 'dneoise' in .*; nearest: denoise"):
        Run.find("dneoise", outputs)


def test_an_outputs_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "o").write_text("a file where a folder should be")
    with pytest.raises(FileError, match="cannot be made"):
        Run.create(config(tmp_path / "o"))


def test_a_folder_called_latest_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "o/mnist/latest").mkdir(parents=True)
    run = Run.create(config(tmp_path / "o"))
    assert "latest is a folder and no link, so it does not lead to the new run" in caplog.text
    assert sorted(p.name for p in (tmp_path / "o/mnist").iterdir()) == [run.path.name, "latest"]
    assert Run.find(None, str(tmp_path / "o")).path == run.path


def test_checkpoints_load_bit_for_bit(tmp_path: Path) -> None:
    run = Run.create(config(tmp_path / "o"))
    arrays = [np.random.default_rng(0).random((3, 2), np.float32), np.int64(7), np.zeros((0, 2))]
    run.save_checkpoint({"epoch": 3, "loss": 0.1 + 0.2}, [np.asarray(a) for a in arrays])
    state, loaded, notice = run.load_checkpoint()
    assert state == {"epoch": 3, "loss": 0.1 + 0.2}
    assert notice is None
    for array, again in zip(arrays, loaded, strict=True):
        np.testing.assert_array_equal(array, again)


def test_the_checkpoint_before_a_damaged_one_is_loaded(tmp_path: Path) -> None:
    run = Run.create(config(tmp_path / "o"))
    with pytest.raises(CheckpointError, match="None was written yet"):
        run.load_checkpoint()
    for epoch in (1, 2):
        run.save_checkpoint({"epoch": epoch}, [np.arange(1000.0)])
    latest = run.path / "checkpoint/latest.npz"
    complete = latest.read_bytes()
    # Cut off, a flipped bit, empty, missing: epoch 1 is still there.
    flipped = bytearray(complete)
    flipped[len(complete) // 2] ^= 1
    for damage in (complete[: len(complete) // 2], bytes(flipped), b""):
        latest.write_bytes(damage)
        state, _, notice = run.load_checkpoint()
        assert state == {"epoch": 1}
        assert notice is not None
        assert "latest.npz is damaged" in notice
    latest.unlink()
    assert run.load_checkpoint()[0] == {"epoch": 1}
    (run.path / "checkpoint/previous.npz").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="damaged"):
        run.load_checkpoint()


def test_a_kill_between_two_renames_loses_no_checkpoint(tmp_path: Path) -> None:
    run = Run.create(config(tmp_path / "o"))
    for epoch in (1, 2, 3):
        run.save_checkpoint({"epoch": epoch}, [])
    folder = run.path / "checkpoint"
    (folder / "latest.npz").replace(folder / "new.npz")  # as it is after the first rename
    assert run.load_checkpoint()[0] == {"epoch": 3}
    run.save_checkpoint({"epoch": 4}, [])
    assert run.load_checkpoint()[0] == {"epoch": 4}
    assert sorted(p.name for p in folder.iterdir()) == ["latest.npz", "previous.npz"]


def test_one_process_writes_a_run(tmp_path: Path) -> None:
    run = Run.create(config(tmp_path / "o"))
    (run.path / f".best.{os.getpid()}.partial.keras").touch()
    with run.locked():
        assert not list(run.path.glob(".*"))
        holder = rf"another process trains this run \({os.getpid()} on .* since"
        with pytest.raises(ConvaeError, match=holder), run.locked():
            pass
        run.update_manifest(read_by="anyone")
    with run.locked():
        pass


def test_ids_stay_in_order_if_the_clock_is_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(datetime(2026, 3, 1, 12) - timedelta(hours=n // 2) for n in range(20))

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> Any:
            return next(times)

    monkeypatch.setattr("convae.runs.run.datetime", Clock)
    for n in range(20):
        run = Run.create(config(tmp_path / "o", f"name{n % 2}"))
        assert Run.find(None, str(tmp_path / "o")).path == run.path
        assert Run.find(f"name{n % 2}", str(tmp_path / "o")).path == run.path
    assert len(list((tmp_path / "o").glob("*/2026*"))) == 20


def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.create(config(tmp_path / "o"))
    run.update_manifest(a=1)

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(FileError, match=r"manifest.json cannot be written: .*No space left"):
        run.update_manifest(a=2)
    assert run.manifest == {"a": 1}
    assert not [p for p in run.path.iterdir() if "partial" in p.name]


def test_history_is_read_back_as_written(tmp_path: Path) -> None:
    run = Run.create(config(tmp_path / "o"))
    assert run.history == []
    row = {"epoch": 1, "loss": 0.1, "val_loss": 0.2, "val_excess": 0.3, "learning_rate": 1e-3,
           "seconds": 2.5, "images_per_second": 1e4}  # fmt: skip
    run.write_history([row])
    assert run.history == [row]


@pytest.mark.parametrize("content", ["", "{", "[1]", "{}", '{"data": 5, "status": 3}', None])
def test_a_manifest_that_is_lost_is_not_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    run = Run.create(config(tmp_path / "o"))
    if content is not None:
        (run.path / "manifest.json").write_text(content)
    for _ in range(2):
        assert run.manifest == {}
    damaged = content in {"", "{", "[1]"}
    assert caplog.text.count("manifest.json: is no manifest of a run") == damaged
    run.update_manifest(status="running")
    assert run.manifest == {"status": "running"}
    if content:
        assert (run.path / "manifest.damaged.json").read_text() == content


def test_a_history_that_is_damaged_is_not_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run.create(config(tmp_path / "o"))
    for content in ("", "epoch\nmany\n", "\0"):
        (run.path / "history.csv").write_text(content)
        assert run.history == []
    assert "history.csv: is no history of a run" in caplog.text


def test_a_run_without_its_config_has_that_of_the_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = config(tmp_path / "o")
    run = Run.create(settings)
    run.update_manifest(status="interrupted")
    (run.path / "config.yaml").unlink()
    with pytest.raises(RunError, match=r"config.yaml: is missing or empty, and without it"):
        _ = Run.find(run.path.name, str(tmp_path / "o")).config
    run.save_checkpoint({"config": settings.to_yaml()}, [])
    assert run.config_with(["training.epochs=7"]).training.epochs == 7
    (run.path / "config.yaml").write_text("\n")
    assert Run.find(None, str(tmp_path / "o")).config == settings
    assert "the config in the checkpoint is used" in caplog.text


def test_a_path_that_is_no_run_is_described(tmp_path: Path) -> None:
    run = Run.create(config(tmp_path / "o"))
    shutil.move(run.path, tmp_path / "moved")
    assert Run.find(str(tmp_path / "moved")).config.name == "mnist"
    for text, part in [
        ("o/mnist/latest", f"is a link to {run.path.name}, which does not exist"),
        ("o/mnist", "holds none of config.yaml, manifest.json"),
        ("moved/config.yaml", "is a file, and a run is a folder"),
    ]:
        with pytest.raises(RunError, match=part):
            Run.find(str(tmp_path / text), str(tmp_path / "o"))


def test_a_run_of_the_previous_version_loads_and_resumes(tmp_path: Path) -> None:
    from convae.inference.autoencoder import load
    from convae.training.trainer import train

    shutil.copytree(ROOT / "tests/runs/old_run", tmp_path / "o/old/20261127-121811-0a1b")
    run = Run.find("old", str(tmp_path / "o"))
    assert run.config.runtime.rendezvous_timeout == 300
    manifest = run.manifest
    assert (manifest["runtime"]["threads"], manifest["runtime"]["micro_batch_size"]) == (2, 25)
    assert manifest["data"]["samples_per_epoch"] == 87
    assert str([row["epoch"] for row in run.history]) == "[1]"
    assert run.metrics["threshold"]["recall"] == 0.04
    assert load(run.path).reconstruct(np.zeros((3, 28, 28, 1))).shape == (3, 28, 28, 1)
    with pytest.raises(ConfigError) as caught:
        run.config_with(["training.epochs=0"])
    assert "cannot be read" not in str(caught.value)
    train(run.config_with([f"data.path={SAMPLE}"]), resume=run)
    assert run.manifest["weights_sha256"] == manifest["weights_sha256"]
    assert run.manifest["resumptions"][0]["epoch"] == 1


@pytest.mark.parametrize(
    ("folder", "tracked"), [("src/convae", True), ("venv/convae", True), ("src/convae", False)]
)
def test_the_commit_is_of_a_checkout_of_convae(tmp_path: Path, folder: str, tracked: bool) -> None:
    def git(*arguments: str) -> str:
        user = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.check_output(["git", "-C", tmp_path, *user, *arguments], text=True)

    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "__init__.py").touch()
    git("init", "-q")
    git("add", *([folder] if tracked else []))
    git("commit", "-q", "--allow-empty", "-m", "a")
    checkout = tracked and folder == "src/convae"
    assert git_commit(tmp_path / folder) == (git("rev-parse", "HEAD").strip() if checkout else None)
    assert git_commit(tmp_path / "missing") is None


@pytest.mark.parametrize(
    ("module", "program", "command"),
    [
        (None, "/usr/bin/convae", "convae train 'a b'"),
        ("convae.__main__", "/src/convae/__main__.py", "convae train 'a b'"),
        ("scripts.bench.anomaly", "/scripts/bench/anomaly.py",
         "python -m scripts.bench.anomaly train 'a b'"),
        ("pytest.__main__", "/pytest/__main__.py", "python -m pytest train 'a b'"),
        (None, "experiment.py", "python experiment.py train 'a b'"),
    ],
)  # fmt: skip
def test_the_command_is_recorded_as_a_user_types_it(
    monkeypatch: pytest.MonkeyPatch, module: str | None, program: str, command: str
) -> None:
    spec = ModuleSpec(module, None) if module else None
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)
    monkeypatch.setattr(sys, "argv", [program, "train", "a b"])
    assert command_line() == command


def test_python_names_the_module_that_it_runs(tmp_path: Path) -> None:
    code = "from convae.runs.provenance import command_line; print(command_line())"
    (tmp_path / "experiment.py").write_text(code)
    words = [sys.executable, "-m", "experiment", "a b"]
    assert subprocess.check_output(words, text=True, cwd=tmp_path) == "python -m experiment 'a b'\n"


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_a_file_holds_the_old_or_the_new(
    tmp_path_factory: pytest.TempPathFactory, old: bytes, new: bytes
) -> None:
    path = tmp_path_factory.mktemp("w") / "f"
    write_atomic(path, old)
    write_atomic(path, new)
    assert path.read_bytes() == new
    assert json.dumps([p.name for p in path.parent.iterdir()]) == '["f"]'
