"""What may change when a run is resumed; tests/stress/stress.py resumes real ones."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from convae.config.loader import load_config
from convae.config.schema import Config
from convae.errors import ConvaeError
from convae.runs.provenance import versions
from convae.runs.run import Run
from convae.runtime.plan import make_plan
from convae.training import resume
from tests.conftest import ROOT, Command, tiny


def config(folder: Path, *more: str) -> Config:
    return load_config(ROOT / "configs/mnist.yaml", [f"output.folder={folder}", *more])


def data(sha256: str = "a", samples_per_epoch: int = 40) -> Any:
    return SimpleNamespace(name="digits", sha256=sha256, samples_per_epoch=samples_per_epoch)


def stopped(folder: Path, *more: str) -> Run:
    """A run with a checkpoint in its third epoch."""
    settings = config(folder, *more)
    run = Run.create(settings)
    plan = make_plan(settings)
    run.update_manifest(
        data_sha256="a",
        data={"name": "digits", "samples_per_epoch": 40},
        runtime=plan.record(),
        versions=versions(),
    )
    state = {"epoch": 2, "step": 3, "losses": [], "config": settings.to_yaml()}
    run.save_checkpoint(state, [])
    return run


def resumed(run: Run, *overrides: str, found: Any = None) -> dict[str, Any]:
    now = run.config_with(overrides)
    return resume.resume_run(run, now, found or data(), make_plan(now))[0]


def test_it_resumes_where_it_stopped_and_records_that(tmp_path: Path) -> None:
    run = stopped(tmp_path)
    assert resumed(run) == {"epoch": 2, "step": 3, "losses": []}
    (entry,) = run.manifest["resumptions"]
    assert entry["epoch"] == 2
    assert entry["step"] == 3
    assert entry["changed"] == {}
    assert entry["bit_identical"] is True
    resumed(run)
    assert len(run.manifest["resumptions"]) == 2


def test_an_allowed_change_is_logged_recorded_and_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = stopped(tmp_path)
    resumed(run, "training.epochs=30", "training.checkpoint_interval={seconds: 60}")
    assert "training.epochs: 25 -> 30" in caplog.text
    assert run.config.training.epochs == 30
    changed = run.manifest["resumptions"][-1]["changed"]
    assert changed["training.epochs"] == [25, 30]
    assert changed["training.checkpoint_interval.seconds"] == [None, 60.0]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["seed=1", "training.epochs=3"], r"seed: 0 -> 1\nThese may change: training.epochs, "),
        (["model.encoder.0.filters=31"], "model.encoder.0.filters: 32 -> 31"),
        (["training.early_stopping={patience: 2}"], "training.early_stopping.patience: None -> 2"),
        (["data.validation_split=0.3"], "data.validation_split: 0.2 -> 0.3"),
        (["training.epochs=2"], "has already begun epoch 3. Received: 2"),
    ],
)
def test_a_change_to_another_training_is_refused(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    run = stopped(tmp_path)
    with pytest.raises(ConvaeError, match=message):
        resumed(run, *overrides)
    assert run.config.seed == 0
    assert "resumptions" not in run.manifest


def test_one_cycle_cannot_have_other_epochs(tmp_path: Path) -> None:
    run = stopped(tmp_path, "training.schedule={type: one_cycle}")
    with pytest.raises(
        ConvaeError, match=r"(?s)epochs: 25 -> 30.*one_cycle's learning rate depends"
    ):
        resumed(run, "training.epochs=30")


def test_an_edited_config_is_an_override_like_any_other(tmp_path: Path) -> None:
    run = stopped(tmp_path)
    run.write_config(config(tmp_path, "training.learning_rate=0.5"))
    with pytest.raises(ConvaeError, match="training.learning_rate: 0.001 -> 0.5"):
        resumed(run)


def test_other_images_or_another_epoch_are_refused(tmp_path: Path) -> None:
    run = stopped(tmp_path)
    with pytest.raises(ConvaeError, match="was trained on digits, but the data found now are"):
        resumed(run, found=data("b"))
    with pytest.raises(
        ConvaeError, match="with 40 images an epoch, but the data found now give 50"
    ):
        resumed(run, found=data(samples_per_epoch=50))


def test_other_arithmetic_is_allowed_and_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = stopped(tmp_path, "runtime.precision=float32")
    resumed(
        run, "runtime.precision=mixed_bfloat16", "runtime.threads=1", "runtime.micro_batch_size=50"
    )
    logged = caplog.text
    assert "precision: float32 -> mixed_bfloat16" in logged
    assert "will not be bit-identical" in logged
    entry = run.manifest["resumptions"][-1]
    assert entry["bit_identical"] is False
    assert "precision: float32 -> mixed_bfloat16" in entry["why_not"]


def test_another_machine_or_version_is_recorded_though_no_key_changed(tmp_path: Path) -> None:
    run = stopped(tmp_path)
    before = run.manifest
    run.update_manifest(
        runtime={**before["runtime"], "device_name": "another"},
        versions={**before["versions"], "keras": "3.0.0"},
    )
    resumed(run)
    entry = run.manifest["resumptions"][-1]
    assert entry["changed"] == {}
    assert [why.split(":")[0] for why in entry["why_not"]] == ["device_name", "keras version"]


def test_what_a_lost_manifest_held_is_recorded_as_not_known(tmp_path: Path) -> None:
    run = stopped(tmp_path)
    (run.path / "manifest.json").unlink()
    assert resumed(run)["epoch"] == 2
    entry = run.manifest["resumptions"][-1]
    assert entry["bit_identical"] is False
    assert entry["why_not"] == ["device: not known", "versions: not known", "data: not known"]
    run.update_manifest(data_sha256="other")
    with pytest.raises(ConvaeError, match="was trained on other data, but the data found now"):
        resumed(run)


@pytest.mark.slow
def test_resume_on_the_command_line(digits: Path, tmp_path: Path, convae: Command) -> None:
    words = tiny(digits, tmp_path / "outputs", "training.epochs=1")
    convae("train", str(ROOT / "configs/mnist.yaml"), *words, code=0)
    assert "seed: 0 -> 3" in convae("train", "--resume", "seed=3", code=2).stderr
    done = convae("train", "--resume", "training.epochs=2", "--json", code=0)
    assert '"epoch": 2' in done.stdout


def test_the_optimizer_of_an_older_checkpoint_was_held_weight_by_weight() -> None:
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(1)])
    old, new = keras.optimizers.Adam(0.5), keras.optimizers.Adam()
    old.build(model.trainable_variables)
    new.build([keras.Variable(np.zeros(model.count_params(), np.float32))])
    random = np.random.default_rng(0)
    for variable in old.variables[2:]:
        variable.assign(random.normal(size=variable.shape))
    resume.restore_variables(
        model, new, [variable.numpy() for variable in (*model.variables, *old.variables)]
    )
    assert float(new.learning_rate) == 0.5
    for name, vector in zip(("momentum", "velocity"), new.variables[2:], strict=True):
        held = [v.numpy().ravel() for v in old.variables[2:] if name in v.path]
        np.testing.assert_array_equal(vector.numpy(), np.concatenate(held))
