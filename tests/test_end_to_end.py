"""From nothing to pictures, and what happens when the plug is pulled: real processes."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Command, tiny

MNIST = str(ROOT / "configs/mnist.yaml")


def start(folder: Path, *words: str, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-m", "convae", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
        **options,
    )


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 60) -> Path:
    """The path, once it is there."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if path.exists():
            return path
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    raise AssertionError(f"{path} did not appear")


def manifest(run: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((run / "manifest.json").read_text())
    return content


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM, signal.SIGKILL],
)
def test_stopped_and_resumed_is_as_if_never_stopped(
    number: signal.Signals, digits: Path, tmp_path: Path, convae: Command
) -> None:
    long = ["training.epochs=6", "training.batch_size=5"]  # 240 steps
    whole = convae("train", MNIST, *tiny(digits, tmp_path / "whole", *long), "--json")
    reference = json.loads(whole.stdout)

    process = start(tmp_path, "train", MNIST, *tiny(digits, tmp_path / "outputs", *long))
    run = wait_for(tmp_path / "outputs/mnist/latest", process)
    wait_for(run / "history.csv", process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    if number is signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 1, errors
        assert "convae train --resume" in errors
        assert manifest(run)["status"] == "interrupted"

    done = convae("train", "--resume", "latest", "--json")
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert row["val_loss"] == reference["val_loss"]
    unbroken = manifest(Path(reference["run"]))
    assert manifest(run)["weights_sha256"] == unbroken["weights_sha256"]
    lines = (run / "history.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", "1", "2", "3", "4", "5", "6"]


def test_without_data_or_network_the_sample_is_used_and_said_everywhere(
    tmp_path: Path, convae: Command
) -> None:
    done = convae(
        "train", str(ROOT / "configs/smoke.yaml"), "data.download=false", "data.subset=100",
        "training.batch_size=40", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "bundled sample of 5,000 real MNIST digits" in done.stderr
    recorded = manifest(tmp_path / json.loads(done.stdout)["run"])["data"]
    assert isinstance(recorded, dict)
    assert recorded["sample"] is True
    shown = convae("eval", "data.download=false")
    assert "bundled sample of 5,000 digits, not the full MNIST" in shown.stdout
    refused = convae("train", MNIST, "data.download=false", "data.allow_sample=false")
    assert refused.returncode == 2
    assert "allow_sample" in refused.stderr


def test_a_full_disk_in_mid_run_keeps_the_last_good_checkpoint(
    digits: Path, tmp_path: Path, convae: Command
) -> None:
    """A file-size limit stands for the disk: from then on no larger file can be written."""
    process = start(
        tmp_path, "train", MNIST,
        *tiny(digits, tmp_path / "outputs", "training.epochs=30", "training.batch_size=5"),
    )  # fmt: skip
    run = wait_for(tmp_path / "outputs/mnist/latest", process)
    wait_for(run / "history.csv", process)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (2_000, 2_000))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert "cannot be written" in errors
    assert "Traceback" not in errors
    with np.load(run / "checkpoint/latest.npz") as file:
        state = json.loads(file["arr_0"].tobytes())
    assert state["epoch"] >= 1
    more = convae("train", "--resume", str(run), "--json")
    assert more.returncode == 0, more.stderr
    assert json.loads(more.stdout)["epoch"] == 30
