"""TensorBoard and MLflow: Keras callbacks that tell others of a training, if the config asks.

    output.tensorboard: true    event files in the run's folder: make tensorboard
    output.mlflow: true         outputs/mlflow/mlflow.db; or a folder; or sqlite:///FILE

Both packages are extras. A resumed run goes on in what it has written: no step comes twice.
Nothing is sent over a network.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convae.atomic import write_atomic
from convae.backend import keras
from convae.errors import UserError
from convae.report import flat
from convae.run import Run

if TYPE_CHECKING:
    from convae.config import Config, Output

Images = NDArray[np.uint8]  # (N, H, W, C)
Predict = Callable[[Images], NDArray[np.float32]]

FIXED = 8  # digits to watch
ENLARGED = 4  # times
ENDS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}  # MLflow's words
AT_ONCE = 100  # parameters that MLflow takes at once


def check(output: Output) -> None:
    """Raise UserError, with the line that mends it, if an extra that is asked for is missing."""
    for name, wanted in (("tensorboard", output.tensorboard), ("mlflow", output.mlflow)):
        if wanted and importlib.util.find_spec(name) is None:
            raise UserError(
                f"output.{name}: {name} is not installed: pip install 'convae[{name}]', "
                f"or leave output.{name} away"
            )


def build(config: Config, run: Run, images: Images, predict: Predict) -> list[Logger]:
    """The callbacks that `config.output` asks for; `images` are those of which some are watched."""
    found: list[Logger] = []
    if config.output.tensorboard:
        found.append(TensorBoard(run, images[:FIXED], predict))
    if config.output.mlflow:
        found.append(MLflow(config, run))
    return found


class Logger(keras.callbacks.Callback):  # type: ignore[misc]
    """A callback that learns how the training ended, also if by an error."""

    def close(self, status: str) -> None:
        """`status` is the manifest's: finished, interrupted or failed."""


class TensorBoard(Logger):
    """A file of events for each epoch: its numbers, and fixed images with what becomes of them.

    Each is written whole, under a name that sorts by epoch, so a resumed run replaces what it does
    again. TensorBoard reads the files of a folder one after the other.
    """

    def __init__(self, run: Run, images: Images, predict: Predict) -> None:
        super().__init__()
        self._run, self._folder = run, run.path / "tensorboard"
        self._images, self._predict = images, predict

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Write the epoch's file."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        values = [
            Summary.Value(tag=name, simple_value=value)
            for name, value in (logs or {}).items()
            if name != "epoch"
        ]
        outputs = np.rint(self._predict(self._images) * 255).astype(np.uint8)
        for tag, images in (("digits/input", self._images), ("digits/reconstruction", outputs)):
            data, height, width = _strip(images)
            picture = Summary.Image(
                height=height,
                width=width,
                colorspace=images.shape[-1],
                encoded_image_string=data,
            )
            values.append(Summary.Value(tag=tag, image=picture))
        now, file = time.time(), io.BytesIO()
        writer = RecordWriter(file)
        writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        event = Event(wall_time=now, step=epoch + 1, summary=Summary(value=values))
        writer.write(event.SerializeToString())
        with self._run.writing("tensorboard/"):
            self._folder.mkdir(exist_ok=True)
            path = self._folder / f"events.out.tfevents.{epoch + 1:06}.convae"
            write_atomic(path, file.getvalue())


def _strip(images: Images) -> tuple[bytes, int, int]:
    """Images (N, H, W, C) side by side and enlarged, as a PNG, with its height and width."""
    row = np.concatenate(list(images), axis=1).repeat(ENLARGED, 0).repeat(ENLARGED, 1)
    file = io.BytesIO()
    Image.fromarray(row[..., 0] if row.shape[-1] == 1 else row).save(file, "PNG")
    return file.getvalue(), row.shape[0], row.shape[1]


class MLflow(Logger):
    """A run in MLflow's store: the config as parameters, metrics by epoch, files as artifacts."""

    def __init__(self, config: Config, run: Run) -> None:
        super().__init__()
        self._run = run
        self._client, folder = _client(config)
        self._seen: set[int] = set()
        self._id = run.manifest.get("mlflow_run_id")
        if self._id is None:
            experiment = self._client.get_experiment_by_name(config.name)
            artifacts = (folder / "artifacts" / config.name).resolve().as_uri()
            number = (
                experiment.experiment_id
                if experiment
                else self._client.create_experiment(config.name, artifact_location=artifacts)
            )
            created = self._client.create_run(
                number, run_name=run.path.name, tags={"convae.folder": str(run.path.resolve())}
            )
            self._id = created.info.run_id
            run.update_manifest(mlflow_run_id=self._id)
            self._log_parameters(config)
        else:
            history = self._client.get_metric_history(self._id, "val_loss")
            self._seen = {metric.step for metric in history}
            self._client.update_run(self._id, status="RUNNING")

    def _log_parameters(self, config: Config) -> None:
        from mlflow.entities import Param

        tree = config.model_dump(mode="json")
        for part in ("encoder", "decoder"):
            tree["model"][part] = {str(i): layer for i, layer in enumerate(tree["model"][part])}
        parameters = [Param(key, value) for key, value in flat(tree)]
        for start in range(0, len(parameters), AT_ONCE):
            self._client.log_batch(self._id, params=parameters[start : start + AT_ONCE])

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Log the epoch's numbers."""
        if epoch + 1 not in self._seen:  # else the run was killed before its checkpoint was whole
            log_metrics(self._client, self._id, logs or {}, step=epoch + 1)

    def close(self, status: str) -> None:
        """Hand over the files of the run's folder, and say how it ended."""
        for name in ("config.yaml", "history.csv", "best.keras"):
            if (self._run.path / name).exists():
                self._client.log_artifact(self._id, str(self._run.path / name))
        self._client.set_terminated(self._id, ENDS[status])


def log_metrics(client: Any, run_id: str, numbers: Mapping[str, float], step: int) -> None:
    """Write numbers of one step into MLflow."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [Metric(key, value, now, step) for key, value in numbers.items() if key != "epoch"]
    client.log_batch(run_id, metrics=metrics)


def log_evaluation(run: Run, test: Mapping[str, float]) -> None:
    """Add an evaluation's metrics, figures and report to the run in MLflow, if it has one there.

    Evaluating again replaces the files; the metrics' history grows. Without the extra, nothing.
    """
    run_id = run.manifest.get("mlflow_run_id")
    if run_id is None or importlib.util.find_spec("mlflow") is None:
        return
    client, _ = _client(run.config)
    numbers = {f"test_{key}": value for key, value in test.items()}
    log_metrics(client, run_id, numbers, step=len(run.history))
    for name in ("metrics.json", "report.html"):
        client.log_artifact(run_id, str(run.path / name))
    client.log_artifacts(run_id, str(run.path / "figures"), "figures")


def _client(config: Config) -> tuple[Any, Path]:
    """MLflow's client for the config's store, and the store's folder.

    A database, because MLflow no longer maintains its store of plain files.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    from mlflow import MlflowClient

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    where = config.output.mlflow
    if where is True:
        where = str(Path(config.output.folder) / "mlflow")
    text = str(where)
    file = Path(text.removeprefix("sqlite:///")) if "://" in text else Path(text) / "mlflow.db"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return MlflowClient(tracking_uri=f"sqlite:///{file.resolve()}"), file.parent
    except Exception as error:
        raise UserError(f"output.mlflow: {file} cannot be opened: {error}") from None
