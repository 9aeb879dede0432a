"""Trainings of seconds, in this process; what kills a process is in test_end_to_end.py."""

import itertools
import math
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import convae
from convae.config.loader import load_config
from convae.config.schema import Config
from convae.errors import ConvaeError
from convae.runs.run import HISTORY, Run
from tests.conftest import ROOT, tiny


def config(digits: Path, outputs: Path, *more: str) -> Config:
    return load_config(ROOT / "configs/mnist.yaml", tiny(digits, outputs, *more))


def weights(run: Run) -> str:
    return str(run.manifest["weights_sha256"])


def test_the_files_history_and_manifest_of_a_run(digits: Path, tmp_path: Path) -> None:
    run = convae.train(config(digits, tmp_path))
    names = {p.relative_to(run.path).as_posix() for p in run.path.rglob("*") if p.is_file()}
    assert names == {
        "config.yaml", "manifest.json", "history.csv", "checkpoint/latest.npz",
        "checkpoint/previous.npz", "lock", "best.keras", "model.keras",
    }  # fmt: skip
    history, manifest = run.history, run.manifest
    assert [row["epoch"] for row in history] == [1, 2]
    assert tuple(history[0]) == HISTORY
    assert history[1]["val_loss"] < history[0]["val_loss"]
    for row in history:
        assert 0 < row["val_excess"] < row["val_loss"]
    assert manifest["status"] == "finished"
    assert manifest["parameters"] == 1_545
    assert manifest["device"] == "cpu"
    assert manifest["data"]["train_images"] == 200
    assert manifest["seconds"] > 0
    assert manifest["peak_memory_mib"] > 100


def test_the_same_seed_gives_the_same_bits(digits: Path, tmp_path: Path) -> None:
    first = convae.train(config(digits, tmp_path / "a"))
    second = convae.train(config(digits, tmp_path / "b"))
    other = convae.train(config(digits, tmp_path / "c", "seed=1"))
    assert weights(first) == weights(second) != weights(other)
    drop = ("seconds", "images_per_second")
    rows = [[{k: v for k, v in r.items() if k not in drop} for r in x.history]
            for x in (first, second)]  # fmt: skip
    assert rows[0] == rows[1]


def stop_after(steps: int) -> Any:
    """A callback that sends SIGINT to this process after some steps."""
    from convae.runtime.backend import keras

    done = itertools.count(1)

    def stop(batch: int, logs: Any) -> None:
        if next(done) == steps:
            signal.raise_signal(signal.SIGINT)

    return keras.callbacks.LambdaCallback(on_train_batch_end=stop)


@pytest.mark.parametrize(
    ("schedule", "after"),  # an epoch has 5 steps: in the middle of one, and at its end
    [
        pytest.param("constant", 1, marks=pytest.mark.slow),
        ("constant", 5),
        ("one_cycle", 7),
        ("muon", 7),
        pytest.param("average", 7, marks=pytest.mark.slow),
        ("reduce_on_plateau", 8),
        pytest.param("reduce_on_plateau", 10, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_ends_with_the_same_bits(
    digits: Path, tmp_path: Path, schedule: str, after: int
) -> None:
    from convae.training.trainer import Interrupted

    optimizers = {"muon": "muon", "average": "{type: nadam, ema_momentum: 0.9, global_clipnorm: 1}"}
    more = [f"training.optimizer={optimizers.get(schedule, 'adam')}", "training.epochs=3"]
    if schedule not in optimizers:
        more += [f"training.schedule={{type: {schedule}}}"]
    if schedule == "reduce_on_plateau":  # a rate that cannot improve much, so that it falls
        more += ["training.schedule.patience=1", "training.learning_rate=0.1"]
    whole = convae.train(config(digits, tmp_path / "whole", *more))
    with pytest.raises(Interrupted) as stopped:
        convae.train(config(digits, tmp_path / "cut", *more), callbacks=[stop_after(after)])
    run = stopped.value.run
    assert run.manifest["status"] == "interrupted"
    convae.train(run.config, resume=run)
    assert run.manifest["status"] == "finished"
    assert weights(run) == weights(whole)
    for row, reference in zip(run.history, whole.history, strict=True):
        for key in ("epoch", "loss", "val_loss", "val_excess", "learning_rate"):
            assert row[key] == reference[key], key


@pytest.mark.parametrize(
    "every", ["steps: 2", pytest.param("seconds: 0.001", marks=pytest.mark.slow)]
)
def test_saving_in_mid_epoch_changes_no_bit(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: str
) -> None:
    whole = convae.train(config(digits, tmp_path / "a"))
    saves: list[tuple[int, int]] = []
    save = Run.save_checkpoint

    class Pulled(BaseException):
        """Ends the run without a trace, as a kill does."""

    def counted(run: Run, state: Any, arrays: Any) -> None:
        save(run, state, arrays)
        saves.append((state["epoch"], state["step"]))
        if len(saves) == 3:
            raise Pulled

    monkeypatch.setattr(Run, "save_checkpoint", counted)
    more = [f"training.checkpoint_interval={{{every}}}"]
    if "seconds" in every:  # looked at between calls
        more.append("runtime.steps_per_execution=1")
    with pytest.raises(Pulled):
        convae.train(config(digits, tmp_path / "b", *more))
    monkeypatch.undo()
    assert saves == ([(0, 0), (0, 2), (0, 4)] if "steps" in every else [(0, 0), (0, 1), (0, 2)])
    run = Run.find(None, str(tmp_path / "b"))
    convae.train(run.config, resume=run)
    assert weights(run) == weights(whole)


def test_more_epochs_on_resume_give_the_bits_of_one_run(digits: Path, tmp_path: Path) -> None:
    run = convae.train(config(digits, tmp_path / "a", "training.epochs=1"))
    began = run.manifest["started"]
    convae.train(run.config_with(["training.epochs=2"]), resume=run)
    assert weights(run) == weights(convae.train(config(digits, tmp_path / "b")))
    assert run.config.training.epochs == 2
    assert run.manifest["started"] == began


def test_a_run_killed_between_its_files_resumes(digits: Path, tmp_path: Path) -> None:
    """Before its first checkpoint, and between the last one and history.csv."""
    settings = config(digits, tmp_path, "training.epochs=1")
    run = convae.train(settings)
    before, rows = weights(run), run.history
    (run.path / "history.csv").unlink()
    assert convae.train(settings, resume=run).history == rows
    for path in (run.path / "checkpoint").iterdir():
        path.unlink()
    convae.train(settings, resume=run)
    assert weights(run) == before


def test_a_run_does_not_resume_with_other_data(digits: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.npz"
    other.write_bytes(digits.read_bytes())
    run = convae.train(config(other, tmp_path, "training.epochs=1"))
    with np.load(digits) as file:
        np.savez(other, x_train=file["x_train"][::-1], x_test=file["x_test"])
    with pytest.raises(ConvaeError, match="was trained on .*but the data found now are"):
        convae.train(run.config, resume=run)


@pytest.mark.slow
def test_early_stopping_also_after_a_resume(digits: Path, tmp_path: Path) -> None:
    from convae.training.trainer import Interrupted

    more = ["training.epochs=8", "training.early_stopping={patience: 2, min_delta: 10}"]
    run = convae.train(config(digits, tmp_path / "a", *more))
    assert len(run.history) == 3  # the first, and two without a gain of 10
    with pytest.raises(Interrupted) as stopped:
        convae.train(config(digits, tmp_path / "b", *more), callbacks=[stop_after(12)])
    again = convae.train(stopped.value.run.config, resume=stopped.value.run)
    assert len(again.history) == 3
    assert weights(again) == weights(run)


def test_one_cycle_rises_and_falls(digits: Path, tmp_path: Path) -> None:
    from convae.training.optimizers import build_optimizer

    settings = config(digits, tmp_path, "training.schedule={type: one_cycle, warmup: 0.2}")
    schedule = build_optimizer(settings, 100)._learning_rate
    rates = [float(schedule(step)) for step in range(101)]
    assert max(rates) == pytest.approx(1e-3, rel=1e-3)
    assert int(np.argmax(rates)) == 20
    assert rates[0] < 1e-4
    assert rates[100] == pytest.approx(0, abs=1e-9)


def test_a_batch_larger_than_the_data_is_refused_and_nothing_written(
    digits: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConvaeError, match="cannot be larger than the 200 training images"):
        convae.train(config(digits, tmp_path / "o", "training.batch_size=201"))
    assert not (tmp_path / "o").exists()


def test_a_loss_that_is_not_a_number_names_likely_causes(digits: Path, tmp_path: Path) -> None:
    more = ["training.optimizer=sgd", "training.learning_rate=1e30",
            "training.loss=mean_squared_error", "model.decoder.3.activation=linear"]  # fmt: skip
    with pytest.raises(ConvaeError, match="the loss is not a number .*learning_rate"):
        convae.train(config(digits, tmp_path, *more))
    more.append("training.batch_size=200")  # one step: only the validation loss shows it
    with pytest.raises(ConvaeError, match="the loss is not a number .*learning_rate"):
        convae.train(config(digits, tmp_path, *more, "training.epochs=1"))


def test_a_model_that_learns_nothing_is_stopped(digits: Path, tmp_path: Path) -> None:
    more = ["training.epochs=60", "training.learning_rate=1e-12", "training.batch_size=10"]
    with pytest.raises(ConvaeError, match="still above the mean image's .*learning_rate"):
        convae.train(config(digits, tmp_path, *more))
    run = Run.find(None, str(tmp_path))
    assert run.manifest["status"] == "failed"
    assert 3 <= len(run.history) < 10


def test_every_epoch_takes_every_image_in_its_own_order() -> None:
    from convae.training.batches import epoch_order

    orders = [epoch_order(0, epoch, 50, 50) for epoch in range(3)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert tuple(epoch_order(0, 1, 50, 50)) == tuple(orders[1])
    repeated = epoch_order(0, 0, 50, 120)
    assert len(repeated) == 120
    assert max(np.bincount(repeated)) == math.ceil(120 / 50)
    assert min(np.bincount(repeated)) == 120 // 50


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(["runtime.precision=mixed_bfloat16"], id="bfloat16", marks=pytest.mark.slow),
        pytest.param(["task.type=denoise"], id="denoise"),
        pytest.param(
            ["task={type: anomaly, normal_class: 1}", "training.batch_size=10"], id="anomaly"
        ),
    ],
)
def test_two_trainings_give_the_same_bits(more: list[str], digits: Path, tmp_path: Path) -> None:
    first, second = (convae.train(config(digits, tmp_path / name, *more)) for name in ("a", "b"))
    assert weights(first) == weights(second)


def test_a_training_on_the_sample_warns(
    digits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convae.console.logger.propagate", True)
    options = ("data.path=null", "data.download=false", "data.subset=64", "training.epochs=1")
    convae.train(config(digits, tmp_path, *options))
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert any("sample of 5,000" in text for text in warnings)


def test_the_steps_of_a_call_change_no_bit(digits: Path, tmp_path: Path) -> None:
    """Also with the last batch smaller, and examples that are drawn in a thread meanwhile."""
    more = ["task.type=denoise", "training.batch_size=30"]
    runs = {
        count: convae.train(
            config(digits, tmp_path / str(count), *more, f"runtime.steps_per_execution={count}")
        )
        for count in (1, 3, "auto")
    }
    assert len({weights(run) for run in runs.values()}) == 1
    assert len({run.history[-1]["loss"] for run in runs.values()}) == 1
    decided = [run.manifest["runtime"]["steps_per_execution"] for run in runs.values()]
    assert decided[:2] == [1, 3]
    assert decided[2] >= 7


def test_callbacks_of_batches_see_each_step_and_others_do_not_slow_training(
    digits: Path, tmp_path: Path
) -> None:
    from convae.runtime.backend import keras

    seen: list[int] = []
    calls: list[tuple[int, int]] = []

    class Counts(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            seen.append(batch)

    def epochs(epoch: int, logs: Any) -> None:
        calls.append((epoch, len(seen)))

    listener = keras.callbacks.LambdaCallback(on_epoch_end=epochs)
    settings = config(digits, tmp_path)
    run = convae.train(settings, callbacks=[listener])
    assert run.manifest["runtime"]["steps_per_execution"] > 1
    run = convae.train(settings, callbacks=[listener, Counts()])
    assert run.manifest["runtime"]["steps_per_execution"] == 1
    assert calls == [(0, 0), (1, 0), (0, 5), (1, 10)]
    assert seen == [0, 1, 2, 3, 4] * 2


def test_the_moving_average_is_validated_and_saved(digits: Path, tmp_path: Path) -> None:
    from convae.runtime.backend import keras

    more = ["training.epochs=1", "training.batch_size=20", "training.learning_rate=0.01"]
    plain = convae.train(config(digits, tmp_path / "a", *more))
    averaged = convae.train(
        config(digits, tmp_path / "b", *more, "training.optimizer.ema_momentum=0.5")
    )
    assert weights(averaged) == weights(plain)  # training itself does not use the average
    assert averaged.history[0]["loss"] == plain.history[0]["loss"]
    assert averaged.history[0]["val_loss"] != plain.history[0]["val_loss"]
    saved = keras.models.load_model(averaged.path / "model.keras").get_weights()
    # In a checkpoint: the weights, the optimizer's iteration and rate, its average, its moments.
    arrays = averaged.load_checkpoint()[1]
    vectors = [a for a in arrays if a.ndim == 1 and a.size == averaged.manifest["parameters"]]
    own = np.concatenate([array.reshape(-1) for array in saved])
    assert any(np.array_equal(own, vector) for vector in vectors)


def test_a_clock_that_no_zip_file_can_hold(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(localtime=lambda: time.gmtime(86_400), strftime=time.strftime)
    monkeypatch.setattr("convae.archive.time", clock)
    with pytest.raises(ConvaeError, match="shows 1970-01-02, but .* set the clock"):
        convae.train(config(digits, tmp_path / "o"))
    assert not (tmp_path / "o").exists()
