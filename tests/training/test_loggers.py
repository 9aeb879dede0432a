"""TensorBoard and MLflow logs of a training, read back with their own readers."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convae.config.loader import load_config
from convae.config.schema import Config
from convae.errors import ConvaeError
from convae.runs.run import Run
from convae.training import loggers
from tests.conftest import ROOT, tiny
from tests.training.test_trainer import stop_after


def config(digits: Path, outputs: Path, *more: str) -> Config:
    return load_config(ROOT / "configs/mnist.yaml", tiny(digits, outputs, *more))


def interrupted(settings: Config, after: int) -> Run:
    from convae.training.trainer import Interrupted, train

    with pytest.raises(Interrupted) as stopped:
        train(settings, callbacks=[stop_after(after)])
    return stopped.value.run


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_missing_extra_is_an_error_before_anything_else(
    name: str, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convae.training.trainer import train

    monkeypatch.setattr(loggers, "find_spec", lambda n: None if n == name else object())
    with pytest.raises(ConvaeError, match=rf"output.{name}: .*pip install 'convae\[{name}\]'"):
        train(config(digits, tmp_path / "o", f"output.{name}=true"))
    assert not (tmp_path / "o").exists()


def test_mlflow_stays_on_this_machine(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(ConvaeError, match="mlflow must be true, a folder or sqlite:///FILE"):
        config(digits, tmp_path, "output.mlflow='https://elsewhere'")


def test_tensorboard_reads_every_epoch_once_also_after_a_resume(
    digits: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    import tensorflow as tf
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from convae.training.trainer import train

    run = interrupted(config(digits, tmp_path, "training.epochs=3", "output.tensorboard=true"), 12)
    # As if the kill had come between the events of epoch 3 and its checkpoint:
    files = sorted((run.path / "tensorboard").iterdir())
    assert [f.name.split(".")[3] for f in files] == ["000001", "000002"]
    files[-1].with_name(files[-1].name.replace("02.", "03.")).write_bytes(files[-1].read_bytes())
    train(run.config, resume=run)
    events: Any = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    metrics = set(run.history[0]) - {"epoch"}
    assert set(events.Tags()["tensors"]) == metrics | {"examples/input", "examples/output"}

    def values(name: str) -> list[tuple[int, Any]]:
        return [(e.step, tf.make_ndarray(e.tensor_proto)) for e in events.Tensors(name)]

    for name in metrics:
        logged = [(row["epoch"], pytest.approx(row[name])) for row in run.history]
        assert values(name) == logged
    inputs, outputs = values("examples/input"), values("examples/output")
    assert [step for step, _ in inputs] == [1, 2, 3]
    assert len({image[2] for _, image in inputs}) == 1  # width, height, PNG: the same digits
    assert len({image[2] for _, image in outputs}) == 3
    with np.load(digits) as file, Image.open(io.BytesIO(inputs[0][1][2])) as picture:
        strip = np.concatenate(list(file["x_train"][200:208]), axis=1)
        assert np.array_equal(np.asarray(picture)[::4, ::4], strip)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")  # mlflow
def test_mlflow_has_parameters_metrics_and_files(
    digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    mlflow = pytest.importorskip("mlflow")
    from convae.evaluation.evaluate import evaluate
    from convae.training.trainer import train

    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    monkeypatch.setenv("MLFLOW_RUN_ID", "of another store")
    store = tmp_path / "store"
    run = interrupted(config(digits, tmp_path, "training.epochs=3", f"output.mlflow={store}"), 12)
    import os

    from mlflow import MlflowClient

    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    client = MlflowClient(tracking_uri=f"sqlite:///{store}/mlflow.db")
    run_id = run.manifest["mlflow_run_id"]
    assert client.get_run(run_id).info.status == "KILLED"
    log_metrics, failed = mlflow.log_metrics, iter([True])

    def fail_once(*arguments: Any, **options: Any) -> None:
        if next(failed, False):
            raise OSError("the disk is busy")
        log_metrics(*arguments, **options)

    monkeypatch.setattr(mlflow, "log_metrics", fail_once)
    train(run.config, resume=run)
    assert "the disk is busy. The training continues" in caplog.text
    evaluate(run)
    assert run.manifest["mlflow_run_id"] == run_id
    found = client.get_run(run_id)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == run.path.name
    assert client.get_experiment(found.info.experiment_id).name == "mnist"
    assert found.data.params["model.encoder.0.filters"] == "4"
    assert found.data.params["training.epochs"] == "3"
    logged = [(m.step, m.value) for m in client.get_metric_history(run_id, "val_loss")]
    assert logged == [(row["epoch"], row["val_loss"]) for row in run.history]
    assert found.data.metrics["test_psnr"] == run.metrics["test"]["psnr"]
    names = {file.path for file in client.list_artifacts(run_id)}
    assert names == {"best.keras", "config.yaml", "history.csv", "metrics.json", "report.html",
                     "figures"}  # fmt: skip
    (store / "mlflow.db").write_bytes(b"no database" * 100)
    with pytest.raises(ConvaeError, match="output.mlflow: the store cannot be used"):
        train(run.config)
