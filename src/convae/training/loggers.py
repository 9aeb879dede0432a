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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convae.config.diff import format_leaves
from convae.console import logger
from convae.data.image_folder import png
from convae.errors import ConfigError
from convae.files import write_atomic
from convae.runs.run import Run
from convae.runtime.backend import keras
from convae.tasks.task import as_bytes

if TYPE_CHECKING:
    from convae.config.schema import Config
    from convae.tasks import Examples

Images = NDArray[np.uint8]  # (N, H, W, C)
Predict = Callable[[Images], NDArray[np.float32]]

FIXED = 8  # digits to watch
ENLARGED = 4  # times
ENDS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}  # MLflow's words
AT_ONCE = 100  # parameters that MLflow takes at once


def check(config: Config) -> None:
    """Raise ConfigError if an extra that is asked for is missing, or a store cannot be opened."""
    output = config.output
    for name, wanted in (("tensorboard", output.tensorboard), ("mlflow", output.mlflow)):
        if wanted and importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"output.{name}: {name} is not installed: pip install 'convae[{name}]', "
                f"or leave output.{name} away"
            )
    if output.mlflow:
        with _mlflow():
            _client(config)[0].search_experiments(max_results=1)


def build(config: Config, run: Run, held_out: Examples, predict: Predict) -> list[Logger]:
    """The callbacks that `config.output` asks for; the first of `held_out` are watched."""
    found: list[Logger] = []
    if config.output.tensorboard:
        found.append(TensorBoard(run, held_out[slice(FIXED)], predict))
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

    def __init__(self, run: Run, watched: Examples, predict: Predict) -> None:
        super().__init__()
        self._run, self._folder = run, run.path / "tensorboard"
        self._watched, self._predict = watched, predict
        self._segments = run.config.task.type == "segment"

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
        inputs, targets = self._watched.inputs, self._watched.targets
        outputs = self._predict(inputs)
        pictures = {"input": inputs}
        if self._segments:  # the chances of classes: show them as gray levels
            gray = 255 // (outputs.shape[-1] - 1)
            pictures["output"] = outputs.argmax(-1, keepdims=True).astype(np.uint8) * gray
            pictures["target"] = targets * gray
        else:
            pictures["output"] = as_bytes(outputs)
            if targets is not inputs:
                pictures["target"] = targets
        for tag, images in pictures.items():
            data, height, width = _strip(images)
            picture = Summary.Image(
                height=height,
                width=width,
                colorspace=images.shape[-1],
                encoded_image_string=data,
            )
            values.append(Summary.Value(tag=f"examples/{tag}", image=picture))
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
    return png(row), row.shape[0], row.shape[1]


class MLflow(Logger):
    """A run in MLflow's store: the config as parameters, metrics by epoch, files as artifacts."""

    def __init__(self, config: Config, run: Run) -> None:
        super().__init__()
        self._run = run
        self._seen: set[int] = set()
        with _mlflow():
            self._client, folder = _client(config)
            self._id: str = run.manifest.get("mlflow_run_id") or self._create(config, folder)
            self._client.update_run(self._id, status="RUNNING")
            history = self._client.get_metric_history(self._id, "val_loss")
        self._seen = {metric.step for metric in history}

    def _create(self, config: Config, folder: Path) -> str:
        """A new run, in the experiment that is called as the config; returns its id."""
        client, name = self._client, config.name
        artifacts = (folder / "artifacts" / name).resolve().as_uri()
        known = client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else client.create_experiment(name, artifacts)
        tags = {"convae.folder": str(self._run.path.resolve())}
        run_id: str = client.create_run(
            experiment, run_name=self._run.path.name, tags=tags
        ).info.run_id
        self._log_parameters(config, run_id)
        self._run.update_manifest(mlflow_run_id=run_id)
        return run_id

    def _log_parameters(self, config: Config, run_id: str) -> None:
        from mlflow.entities import Param

        leaves = format_leaves(config.model_dump(mode="json"))
        parameters = [Param(key, value) for key, value in leaves.items()]
        for start in range(0, len(parameters), AT_ONCE):
            self._client.log_batch(run_id, params=parameters[start : start + AT_ONCE])

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Log the epoch's numbers."""
        if epoch + 1 not in self._seen:  # else a kill came between this and the checkpoint
            with _mlflow():
                log_metrics(self._client, self._id, logs or {}, step=epoch + 1)

    def close(self, status: str) -> None:
        """Hand over the files of the run's folder, and say how it ended."""
        try:
            for name in ("config.yaml", "history.csv", "best.keras"):
                if (self._run.path / name).exists():
                    self._client.log_artifact(self._id, str(self._run.path / name))
            self._client.set_terminated(self._id, ENDS[status])
        except Exception as error:  # what ended the training is to be told, not this
            logger.info(f"warning: output.mlflow: the end was not recorded: {error}")


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
    numbers = {f"test_{key}": value for key, value in test.items()}
    with _mlflow():
        client, _ = _client(run.config)
        log_metrics(client, run_id, numbers, step=len(run.history))
        for name in ("metrics.json", "report.html"):
            client.log_artifact(run_id, str(run.path / name))
        client.log_artifacts(run_id, str(run.path / "figures"), "figures")


@contextmanager
def _mlflow() -> Iterator[None]:
    """Turn what MLflow and its database raise, which is much, into one message."""
    try:
        yield
    except Exception as error:
        raise ConfigError(
            f"output.mlflow: the store cannot be used: {str(error).splitlines()[0]}"
        ) from error


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
    file.parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=f"sqlite:///{file.resolve()}"), file.parent
