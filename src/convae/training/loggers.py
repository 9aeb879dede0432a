"""TensorBoard and MLflow: callbacks that log a training where the config names them.

    output.tensorboard: true    event files in the run's folder: make tensorboard
    output.mlflow: true         outputs/mlflow/mlflow.db; or a folder; or sqlite:///FILE

Both packages are extras and write to this machine only. A resumed run logs no step twice.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from convae.arrays import Floats, Images
from convae.config.diff import format_leaves
from convae.config.schema import Config
from convae.console import logger
from convae.errors import FileError, UnsupportedError
from convae.files import write_atomic
from convae.runs.run import Run
from convae.runtime.backend import keras
from convae.tasks import Examples, build_task

EXAMPLES = 8  # validation images whose outputs TensorBoard shows
ZOOM = 4  # pixels a side for each of their pixels
MLFLOW_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


class Logger(keras.callbacks.Callback):  # type: ignore[misc]
    """A Keras callback that also learns how the training ended."""

    def close(self, status: str) -> None:
        """Log the end; `status` is the manifest's: finished, interrupted or failed."""


def check(config: Config) -> None:
    """Check that the packages of `config.output` are installed and MLflow's store opens.

    Raises:
        UnsupportedError: If a package is missing.
        FileError: If the store cannot be used.
    """
    for name in ("tensorboard", "mlflow"):
        if getattr(config.output, name) and find_spec(name) is None:
            raise UnsupportedError(
                f"output.{name}: {name} is not installed: pip install 'convae[{name}]', "
                f"or remove output.{name}"
            )
    if config.output.mlflow:
        with _mlflow(config) as mlflow:
            mlflow.search_experiments(max_results=1)


def build(
    config: Config, run: Run, validation: Examples, predict: Callable[[Images], Floats]
) -> list[Logger]:
    """Return the loggers of `config.output`; `predict` returns outputs in [0, 1]."""
    loggers: list[Logger] = []
    if config.output.tensorboard:
        loggers.append(TensorBoard(run, validation[slice(EXAMPLES)], predict))
    if config.output.mlflow:
        loggers.append(MLflow(config, run))
    return loggers


class TensorBoard(Logger):
    """Writes one event file an epoch: metrics, and the first validation examples with outputs.

    A file's name holds its epoch, so a resumed run replaces the files of epochs that it repeats.
    """

    def __init__(self, run: Run, examples: Examples, predict: Callable[[Images], Floats]) -> None:
        super().__init__()
        self._run, self._examples, self._predict = run, examples, predict

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Write the epoch's file."""
        import tensorflow as tf

        with TemporaryDirectory() as folder:
            writer = tf.summary.create_file_writer(folder)
            with writer.as_default(step=epoch + 1):
                for name, value in _metrics(logs or {}).items():
                    tf.summary.scalar(name, value)
                for name, images in self._images().items():
                    strip = np.concatenate(images, axis=1).repeat(ZOOM, 0).repeat(ZOOM, 1)
                    tf.summary.image(f"examples/{name}", strip[np.newaxis])
            writer.close()
            (events,) = (file.read_bytes() for file in Path(folder).iterdir())
        with self._run.writing("tensorboard/"):
            path = self._run.path / f"tensorboard/events.out.tfevents.{epoch + 1:06}.convae"
            path.parent.mkdir(exist_ok=True)
            write_atomic(path, events)

    def _images(self) -> dict[str, Images]:
        inputs, targets = self._examples.inputs, self._examples.targets
        task = build_task(self._run.config)
        images = {"input": inputs, "output": task.to_images(self._predict(inputs))}
        return images if targets is inputs else {**images, "target": task.to_images(targets)}


class MLflow(Logger):
    """Logs an MLflow run: the config as parameters, the metrics of each epoch, and files."""

    def __init__(self, config: Config, run: Run) -> None:
        super().__init__()
        self._config, self._run = config, run
        self._unlogged: dict[int, dict[str, float]] = {}  # metrics by epoch
        # Set by a program that has started this one, for a run in a store of its own.
        os.environ.pop("MLFLOW_RUN_ID", None)
        with _mlflow(config) as mlflow:
            if mlflow.get_experiment_by_name(config.name) is None:
                artifacts = _store(config).parent / "artifacts" / config.name
                mlflow.create_experiment(config.name, artifacts.resolve().as_uri())
            mlflow.set_experiment(config.name)
            run_id = run.manifest.get("mlflow_run_id")
            if run_id is None:
                tags = {"convae.folder": str(run.path.resolve())}
                run_id = mlflow.start_run(run_name=run.path.name, tags=tags).info.run_id
                mlflow.log_params(format_leaves(config.model_dump(mode="json")))
                run.update_manifest(mlflow_run_id=run_id)
            else:
                mlflow.start_run(run_id=run_id)
            history = mlflow.MlflowClient().get_metric_history(run_id, "val_loss")
        self._logged = {metric.step for metric in history}

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Log the epoch's metrics, unless a run that was then killed has logged them.

        A store that fails does not end the training: the next epoch tries again.
        """
        if epoch + 1 in self._logged:
            return
        self._unlogged[epoch + 1] = _metrics(logs or {})
        try:
            with _mlflow(self._config) as mlflow:
                self._log_metrics(mlflow)
        except FileError as error:
            if len(self._unlogged) == 1:
                logger.warning(f"warning: {error}. The training continues; history.csv is complete")

    def _log_metrics(self, mlflow: Any) -> None:
        for step in list(self._unlogged):
            mlflow.log_metrics(self._unlogged[step], step=step)
            del self._unlogged[step]

    def close(self, status: str) -> None:
        """Log the run's files and end the MLflow run."""
        try:
            with _mlflow(self._config) as mlflow:
                self._log_metrics(mlflow)
                for name in ("config.yaml", "history.csv", "best.keras"):
                    if (self._run.path / name).exists():
                        mlflow.log_artifact(str(self._run.path / name))
                mlflow.end_run(MLFLOW_STATUS[status])
        except FileError as error:  # must not hide the error that ended the training
            logger.warning(f"warning: {error}")


def log_evaluation(run: Run, test: Mapping[str, float]) -> None:
    """Log the test metrics, figures and report of a run that was trained with MLflow.

    A second evaluation replaces the files and adds to the history of the metrics.
    """
    run_id = run.manifest.get("mlflow_run_id")
    if run_id is None or find_spec("mlflow") is None:
        return
    metrics = {f"test_{name}": value for name, value in test.items()}
    try:
        with _mlflow(run.config) as mlflow:
            mlflow.log_metrics(metrics, step=len(run.history), run_id=run_id)
            for name in ("metrics.json", "report.html"):
                mlflow.log_artifact(str(run.path / name), run_id=run_id)
            mlflow.log_artifacts(str(run.path / "figures"), "figures", run_id=run_id)
    except FileError as error:  # the run may have been copied here without its store
        logger.warning(f"warning: {error}")


def _metrics(row: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name != "epoch"}


def _store(config: Config) -> Path:
    """Return MLflow's SQLite file; MLflow no longer maintains its store of plain files."""
    where = config.output.mlflow
    folder = f"{config.output.folder}/mlflow" if where is True else str(where)
    file = folder.removeprefix("sqlite:///")
    return Path(file) if file != folder else Path(folder, "mlflow.db")


@contextmanager
def _mlflow(config: Config) -> Iterator[Any]:
    """Give the module mlflow, set to the config's store; turn all that it raises to FileError."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    try:
        import mlflow

        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        store = _store(config)
        store.parent.mkdir(parents=True, exist_ok=True)
        mlflow.set_tracking_uri(f"sqlite:///{store.resolve().as_posix()}")
        yield mlflow
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise FileError(f"output.mlflow: the store cannot be used: {reason}") from error
