"""Workers that train together, each in its own process, over the loopback of this machine."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from convae.runs.run import Run
from convae.runtime.cluster import format_tf_config
from convae.runtime.launch import free_ports, launch
from tests.conftest import ROOT

pytestmark = pytest.mark.slow
PATIENCE = 600  # seconds for a start on a machine with much else to do

TWO_DEVICES = """
from convae.cli.main import main
from convae.runtime.backend import tf
processor = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
main()
"""

YAML = """
name: tiny
task: {{type: denoise}} # draws noise for whole batches, of which each worker makes its part
data: {{path: {digits}}}
model:
  encoder:
    - {{type: conv, filters: 3, kernel_size: 3, strides: 2, padding: same, activation: relu}}
  decoder:
    - {{type: conv_transpose, filters: 1, kernel_size: 4, strides: 2, padding: same,
        activation: sigmoid}}
training:
  epochs: 2
  batch_size: 80
  samples_per_epoch: 187 # the last of three batches is of 27, which neither 2 nor 4 divide
  optimizer: sgd
  learning_rate: 0.1
  checkpoint_interval: {{steps: 1}}
runtime: {{threads: 1, steps_per_execution: 1, precision: float32,
  rendezvous_timeout: {patience}}}
output: {{folder: {outputs}}}
"""


def written(digits: Path, folder: Path) -> str:
    path = folder / "tiny.yaml"
    path.write_text(YAML.format(digits=digits, outputs=folder / "outputs", patience=PATIENCE))
    return str(path)


def convae(*words: str, signalled: Sequence[str] = ()) -> list[str]:
    start = [str(ROOT / "tests/signalled_worker.py"), *signalled] if signalled else ["-m", "convae"]
    return [sys.executable, *start, *words]


def side_by_side(
    commands: Sequence[Sequence[str]], folder: Path, count: int | None = None
) -> tuple[list[int], list[str], list[float]]:
    """Run workers without `convae launch`: exit codes, stderr and end times."""
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(count or len(commands)))
    logs = [folder / f"worker{rank}.log" for rank in range(len(commands))]
    running = []
    for rank, (command, log) in enumerate(zip(commands, logs, strict=True)):
        given = {"TF_CONFIG": format_tf_config(addresses, rank), "CUDA_VISIBLE_DEVICES": "-1"}
        with log.open("w") as file:
            running.append(
                subprocess.Popen(
                    command, env={**os.environ, **given}, stdout=subprocess.DEVNULL, stderr=file
                )
            )
    ends: dict[int, float] = {}
    try:
        began = time.monotonic()
        while len(ends) < len(running) and time.monotonic() < began + PATIENCE:
            time.sleep(0.1)
            for rank, process in enumerate(running):
                if process.poll() is not None:
                    ends.setdefault(rank, time.monotonic())
    finally:
        for process in running:
            process.kill()
            process.wait()
    errors = [log.read_text() for log in logs]
    assert len(ends) == len(running), errors
    return [p.returncode for p in running], errors, [ends[rank] for rank in sorted(ends)]


def result(folder: Path) -> tuple[list[np.ndarray], list[dict[str, float]], dict[str, object]]:
    run = Run.find("latest", str(folder / "outputs"))
    return run.load_checkpoint()[1], run.history, run.manifest


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """The folder of two workers' training."""
    folder = tmp_path_factory.mktemp("two")
    assert launch([convae("train", written(digits, folder))] * 2, PATIENCE) == 0
    return folder


def test_any_number_of_workers_and_devices_equals_one_process(
    two: Path, digits: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folders = {name: tmp_path / name for name in ("alone", "one", "four", "devices")}
    files = {}
    for name, folder in folders.items():
        folder.mkdir()
        files[name] = written(digits, folder)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    subprocess.run(convae("train", files["alone"]), env=environment, check=True)
    mirrored = [sys.executable, "-c", TWO_DEVICES, "train", files["devices"]]
    subprocess.run([*mirrored, "runtime.strategy=mirrored"], env=environment, check=True)
    assert launch([convae("train", files["one"], "runtime.strategy=multi_worker")], PATIENCE) == 0
    assert launch([convae("train", files["four"], "--json")] * 4, PATIENCE) == 0
    printed = capfd.readouterr()
    assert printed.out.count('"val_loss"') == 1  # only worker 0 prints the answer
    assert "[3] worker 3 of 4" in printed.err
    assert "in each of 4 replicas (multi_worker)" in printed.err

    weights, history, _ = result(folders["alone"])
    wanted = {
        two: ("multi_worker", 2),
        folders["one"]: ("multi_worker", 1),
        folders["four"]: ("multi_worker", 4),
        folders["devices"]: ("mirrored", 2),
    }
    for folder, (strategy, replicas) in wanted.items():
        assert len(list((folder / "outputs/tiny").glob("2*"))) == 1
        ours, rows, manifest = result(folder)
        for a, b in zip(ours, weights, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
        for row, other in zip(rows, history, strict=True):
            for key in ("loss", "val_loss", "val_excess"):
                assert row[key] == pytest.approx(other[key], abs=1e-6)
        runtime = manifest["runtime"]
        assert isinstance(runtime, dict)
        assert (runtime["strategy"], runtime["replicas"]) == (strategy, replicas)


def test_stopped_killed_and_resumed_gives_the_same_bits(
    two: Path, digits: Path, tmp_path: Path
) -> None:
    file = written(digits, tmp_path)
    # SIGTERM reaches one worker in its first step: with the next step all workers stop.
    commands = [convae("train", file), convae("train", file, signalled=("SIGTERM", "1"))]
    codes, errors, _ = side_by_side(commands, tmp_path)
    assert codes == [1, 1]
    assert "stopped in epoch 1 after step 2" in errors[0]
    run = Run.find("latest", str(tmp_path / "outputs"))
    assert run.manifest["status"] == "interrupted"
    again = ("train", "--resume", str(run.path))

    # SIGKILL ends one worker: the other ends by itself, with a message.
    commands = [convae(*again), convae(*again, signalled=("SIGKILL", "3"))]
    codes, errors, ends = side_by_side(commands, tmp_path)
    assert ends[0] - ends[1] < 60
    assert codes == [1, -9]
    assert "worker 0 of 2 has lost another worker" in errors[0]
    assert "Traceback" not in errors[0]
    assert run.manifest["status"] == "failed"
    state = run.load_checkpoint()[0]
    assert (state["epoch"], state["step"]) == (1, 1)  # in the middle of the second

    assert side_by_side([convae(*again)] * 2, tmp_path)[0] == [0, 0]
    assert run.manifest["status"] == "finished"
    assert [entry["bit_identical"] for entry in run.manifest["resumptions"]] == [True, True]
    for a, b in zip(result(tmp_path)[0], result(two)[0], strict=True):
        np.testing.assert_array_equal(a, b)


def test_all_workers_refuse_other_configs_and_other_data(digits: Path, tmp_path: Path) -> None:
    file = written(digits, tmp_path)
    with np.load(digits) as arrays:
        changed = {name: arrays[name].copy() for name in arrays.files}
    changed["x_train"][0, 0, 0] ^= 1
    other = tmp_path / "other.npz"
    np.savez(other, **changed)
    changes = ("training.learning_rate=0.2", f"data.path={other}")
    codes, errors, _ = side_by_side(
        [convae("train", file), convae("train", file, *changes)], tmp_path
    )
    assert codes == [2, 2]
    for text in errors:
        assert "config.training.learning_rate: worker 1 has 0.2, worker 0 0.1" in text
        assert "data.sha256: worker 1 has " in text
        assert "Traceback" not in text
    assert not (tmp_path / "outputs").exists()


def test_a_missing_peer_ends_at_the_deadline(digits: Path, tmp_path: Path) -> None:
    commands = [convae("train", written(digits, tmp_path), "runtime.rendezvous_timeout=2")]
    codes, errors, _ = side_by_side(commands, tmp_path, count=2)
    assert codes == [2]
    assert "of 2 workers 1 did not answer within 2 s (runtime.rendezvous_timeout)" in errors[0]
    assert "worker 1 at 127.0.0.1:" in errors[0]
