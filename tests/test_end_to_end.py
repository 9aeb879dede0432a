"""From nothing to pictures, and what happens when the plug is pulled: real processes."""

import json
import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT, Command, tiny
from tests.forked import Convae

MNIST = str(ROOT / "configs/mnist.yaml")


def manifest(run: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((run / "manifest.json").read_text())
    return content


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_stopped_and_resumed_is_as_if_never_stopped(
    number: signal.Signals, digits: Path, tmp_path: Path, convae: Command
) -> None:
    long = ["training.epochs=6", "training.batch_size=5"]  # 240 steps
    whole = convae("train", MNIST, *tiny(digits, tmp_path / "whole", *long), "--json")
    reference = json.loads(whole.stdout)

    process = Convae(tmp_path, "train", MNIST, *tiny(digits, tmp_path / "outputs", *long))
    run = process.wait_for(tmp_path / "outputs/mnist/latest")
    process.wait_for(run / "history.csv")
    os.kill(process.pid, number)
    stopped = process.done(60)
    if number is signal.SIGKILL:
        assert stopped.returncode == -signal.SIGKILL
    else:
        assert stopped.returncode == 1, stopped.stderr
        assert "convae train --resume" in stopped.stderr
        assert manifest(run)["status"] == "interrupted"

    done = convae("train", "--resume", "latest", "--json", code=0)
    assert json.loads(done.stdout)["val_loss"] == reference["val_loss"]
    unbroken = manifest(Path(reference["run"]))
    assert manifest(run)["weights_sha256"] == unbroken["weights_sha256"]
    lines = (run / "history.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", "1", "2", "3", "4", "5", "6"]


@pytest.mark.slow
def test_without_data_or_network_the_sample_is_used_and_said_everywhere(
    tmp_path: Path, convae: Command
) -> None:
    done = convae(
        "train", str(ROOT / "configs/smoke.yaml"), "data.download=false", "data.subset=100",
        "training.batch_size=40", "--json", code=0,
    )  # fmt: skip
    assert "bundled sample of 5,000 of its images" in done.stderr
    recorded = manifest(tmp_path / json.loads(done.stdout)["run"])["data"]
    assert isinstance(recorded, dict)
    assert recorded["sample"] is True
    shown = convae("eval", "data.download=false")
    assert "bundled sample of 5,000 digits, not the full MNIST" in shown.stdout
    refused = convae("train", MNIST, "data.download=false", "data.allow_sample=false", code=2)
    assert "allow_sample" in refused.stderr


@pytest.mark.slow
def test_a_full_disk_in_mid_run_keeps_the_last_good_checkpoint(
    digits: Path, tmp_path: Path, convae: Command
) -> None:
    """A file-size limit stands for the disk: from then on no larger file can be written."""
    process = Convae(
        tmp_path, "train", MNIST,
        *tiny(digits, tmp_path / "outputs", "training.epochs=30", "training.batch_size=5"),
    )  # fmt: skip
    run = process.wait_for(tmp_path / "outputs/mnist/latest")
    process.wait_for(run / "history.csv")
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (2_000, 2_000))
    stopped = process.done(60)
    assert stopped.returncode == 2, stopped.stderr
    assert "cannot be written" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    with np.load(run / "checkpoint/latest.npz") as file:
        state = json.loads(file["arr_0"].tobytes())
    assert state["epoch"] >= 1
    more = convae("train", "--resume", str(run), "--json", code=0)
    assert json.loads(more.stdout)["epoch"] == 30
