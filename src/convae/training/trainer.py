"""The training loop.

from convae import load_config, train

run = train(load_config("mnist", ["training.epochs=1"]))
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from convae import archive
from convae.config.schema import Config
from convae.console import logger
from convae.data.loading import TrainingData, describe_splits
from convae.models.builder import arrays_sha256, build_model, save_plain
from convae.runs.provenance import describe, peak_memory_mib
from convae.runs.run import Run
from convae.runtime.backend import float32, keras
from convae.runtime.cluster import report_started
from convae.runtime.plan import Plan
from convae.runtime.processes import catch_stop_signals
from convae.runtime.replicas import Replicas
from convae.runtime.start import start
from convae.training import loggers
from convae.training.batches import Call, epoch_calls, watches_batches
from convae.training.diagnostics import check_finite, check_progress
from convae.training.engine import Engine
from convae.training.optimizers import build_optimizer, plateau_callbacks
from convae.training.preparation import Prepared, prepare
from convae.training.progress import Progress
from convae.training.resume import TrainingState, restore_variables, resume_run
from convae.training.workers import fingerprint, peers_watched, share_run

STOPPING = "finishing the step and saving; press Ctrl-C again to stop at once"


class Interrupted(Exception):  # noqa: N818 - not an error
    """Ctrl-C or SIGTERM stopped a training; `run` is saved and can be resumed."""

    def __init__(self, run: Run, when: str) -> None:
        super().__init__(f"stopped {when}; saved in {run.path}")
        self.run = run


def train(
    config: Config,
    resume: Run | None = None,
    callbacks: Sequence[Any] = (),
    prepared: Prepared | None = None,
) -> Run:
    """Train the model of a config.

    Args:
        config: The checked config. With `resume` it may differ from the run's own config in the
            keys of `resume.MAY_CHANGE`.
        resume: A run to continue from its last checkpoint, to the same bits as without the stop.
        callbacks: Keras callbacks, called on every worker.
        prepared: What `prepare(config)` returns, where it has been called.

    Returns:
        The run, whose folder holds the weights, the history and the manifest.

    Raises:
        ConfigError: The config asks for what is not possible here, or training diverges.
        Interrupted: Ctrl-C or SIGTERM stopped the training; the run is saved.
        PeerLost: Another worker has ended.

    Examples:
        >>> import convae
        >>> small = ["data.download=false", "data.subset=100", "training.batch_size=20"]
        >>> config = convae.load_config("mnist", [*small, "training.epochs=1"])
        >>> run = convae.train(config)
        >>> [row["epoch"] for row in run.history]
        [1]
    """
    return Trainer(config, callbacks, prepared).run(resume)


class Trainer:
    """One training: `state` is its position, and each method a stage of it.

    Whatever can be refused is refused here, before a run folder exists.
    """

    def __init__(
        self, config: Config, callbacks: Sequence[Any] = (), prepared: Prepared | None = None
    ) -> None:
        loggers.check(config)
        archive.check_clock()
        self.config = config
        self._prepared = prepared or prepare(config)
        self.task, self.data = self._prepared.task, self._prepared.data
        self.plan = start(config, distributed=True)
        self.state = TrainingState()
        self._steps = -(-self.data.samples_per_epoch // config.training.batch_size)
        if any(map(watches_batches, callbacks)):
            self.plan = replace(self.plan, steps_per_execution=1)
        self._user_callbacks = callbacks

    def run(self, resume: Run | None = None) -> Run:
        """Train in a new run, or continue the run `resume`; return the run."""
        _log_start(self.config, self.data, self.plan)
        with peers_watched(self.plan):
            # Before TensorFlow runs its first operation, and before there is a folder.
            self._replicas = Replicas(self.plan, self.config.runtime.rendezvous_timeout)
            self._replicas.check_agreement(fingerprint(self.config, self.data, self.plan))
            self._run = share_run(self.config, self._replicas, resume)
            with self._run.locked():
                try:
                    self._build()
                    self._begin(self._load_state(resumed=resume is not None))
                    self._fit()
                except Interrupted:
                    self._replicas.wait_for_all()
                    raise
                self._replicas.wait_for_all()  # no worker ends before worker 0 has saved
        return self._run

    def _build(self) -> None:
        """Build model, optimizer and engine, and measure what the losses are compared with."""
        self._validation = self._prepared.validation
        with self._replicas.scope(), float32():  # float32 also for the metrics of `compile`
            self._model = build_model(self.config)
            total_steps = self._steps * self.config.training.epochs
            self._optimizer = build_optimizer(self.config, total_steps)
            self._model.compile(optimizer=self._optimizer)  # so that callbacks find the optimizer
        self._engine = Engine(self._model, self.config, self.plan, self._optimizer, self._replicas)
        # Worker 0 computes them for all workers, because this reads all of the data.
        losses = self._prepared.reference_losses if self._replicas.is_chief else (0.0, 0.0)
        self._floor, self._baseline = self._replicas.all_reduce_sum(losses)

    def _load_state(self, *, resumed: bool) -> list[NDArray[Any]]:
        """Set `state` from the run's checkpoint, and return the values of its variables."""
        run = self._run
        arrays: list[NDArray[Any]] = []
        if resumed:
            saved, arrays = resume_run(run, self.config, self.data, self.plan)
            self.state = TrainingState(**saved)
        checkpoint = {"state": vars(self.state), "weights_sha256": arrays_sha256(arrays)}
        self._replicas.check_agreement({"checkpoint": checkpoint})
        if self.state.history:  # a kill may have come between the checkpoint and this file
            run.write_history(self.state.history)
        parameters = self._model.count_params()
        described = describe(self.config, self.data, self.plan, parameters, run.manifest)
        run.update_manifest(status="running", **described)
        logger.info(f"run: {run.path}")
        return arrays

    def _begin(self, arrays: Sequence[NDArray[Any]]) -> None:
        """Start the callbacks, and restore the variables from `arrays`, empty for a new run."""
        state = self.state
        plateau = plateau_callbacks(self.config)
        progress = Progress(self.config, state, self.data.samples_per_epoch, self._floor)
        self._listeners: list[Any] = [progress]
        if self._replicas.is_chief:
            predict = self._engine.predict
            self._listeners += loggers.build(self.config, self._run, self._validation, predict)
        self._callbacks = keras.callbacks.CallbackList(
            [*plateau, *self._listeners[1:], *self._user_callbacks, progress],
            model=self._model,
            epochs=self.config.training.epochs,
            steps=self._steps,
        )
        self._model.stop_training = False
        self._callbacks.on_train_begin()
        for row in state.history:  # brings the plateau callbacks to the state that they had
            for callback in plateau:
                callback.on_epoch_end(int(row["epoch"]) - 1, dict(row))
        if arrays:  # after the plateau callbacks, which also set the learning rate
            restore_variables(self._model, self._optimizer, arrays)
        self._began = time.perf_counter() - state.seconds
        report_started()

    def _fit(self) -> None:
        """Train all epochs, and write into the manifest how that ended, also after an error."""
        run, epochs, status = self._run, self.config.training.epochs, "failed"
        try:
            with catch_stop_signals(STOPPING) as self._signals:
                if not run.has_checkpoint:  # so that a run killed in its first epoch can resume
                    self._save()
                while self.state.epoch < epochs and not self._model.stop_training:
                    self._epoch()
                with self._engine.averaged():
                    run.save_model("model.keras", lambda path: save_plain(self._model, path))
                self._callbacks.on_train_end()
            status = "finished"
        except (Interrupted, KeyboardInterrupt):
            status = "interrupted"
            raise
        finally:
            for listener in self._listeners:
                listener.close(status)
            run.update_manifest(
                status=status,
                seconds=round(time.perf_counter() - self._began, 3),
                peak_memory_mib=peak_memory_mib(),
                weights_sha256=arrays_sha256(self._model.get_weights()),
            )

    def _epoch(self) -> None:
        state = self.state
        self._callbacks.on_epoch_begin(state.epoch)
        self._epoch_began = time.perf_counter() - state.epoch_seconds
        steps = self.plan.steps_per_execution
        position = state.epoch, state.step
        for call in epoch_calls(self.task, self.data, self._replicas, *position, steps):
            self._train(call)
        self._finish_epoch()

    def _train(self, call: Call) -> None:
        """Take the steps of one call; the callbacks see the last of them, as those of Keras do."""
        state = self.state
        self._callbacks.on_train_batch_begin(call.steps[0])
        losses, stop = self._engine.steps(
            call.examples.arrays, call.sizes, stop=bool(self._signals)
        )
        if self._replicas.workers == 1:  # no other worker must know first: stop a call earlier
            stop = bool(self._signals)
        for step, row, (_, count) in zip(call.steps, losses.tolist(), call.sizes, strict=True):
            check_finite(row[0], self.config, state.epoch + 1, step + 1)
            state.losses.append([value * count for value in row])
        state.step = call.steps.stop
        size = sum(count for _, count in call.sizes)
        logs = dict(zip(self._engine.loss_names, row, strict=True))
        self._callbacks.on_train_batch_end(call.steps[-1], {**logs, "size": size})
        if stop or self._checkpoint_due():
            state.epoch_seconds = time.perf_counter() - self._epoch_began
            self._save()
        if stop:
            raise Interrupted(self._run, f"in epoch {state.epoch + 1} after step {state.step}")

    def _checkpoint_due(self) -> bool:
        interval = self.config.training.checkpoint_interval
        if interval is None:
            return False
        unsaved = time.perf_counter() - self._began - self.state.seconds
        return (interval.steps is not None and self.state.step % interval.steps == 0) or (
            interval.seconds is not None and unsaved >= interval.seconds
        )

    def _validate(self) -> dict[str, float]:
        """Return the epoch's row of the history."""
        epoch, images = self.state.epoch + 1, self.data.samples_per_epoch
        train_seconds = time.perf_counter() - self._epoch_began
        names = self._engine.loss_names
        loss, *terms = (
            math.fsum(column) / images for column in zip(*self.state.losses, strict=True)
        )
        val = self._engine.evaluate(*self._validation.arrays)
        val_loss = val["loss"]
        check_finite(val_loss, self.config, epoch, self._steps)  # a step's loss is from before it
        return {
            "epoch": epoch,
            "loss": loss,
            "val_loss": val_loss,
            "val_excess": val_loss - self._floor,
            "learning_rate": float(keras.ops.convert_to_numpy(self._optimizer.learning_rate)),
            "seconds": time.perf_counter() - self._epoch_began,
            "images_per_second": images / train_seconds,
            **dict(zip(names[1:], terms, strict=True)),
            **{f"val_{name}": val[name] for name in names[1:]},
        }

    def _finish_epoch(self) -> None:
        # A callback may change the learning rate for the next epoch, and the checkpoint must hold
        # it: first the callbacks, then the files, and the checkpoint after the best model.
        state, run = self.state, self._run
        with self._engine.averaged():
            row = self._validate()
            self._callbacks.on_epoch_end(state.epoch, dict(row))
            if row["val_loss"] < state.best:
                run.save_model("best.keras", lambda path: save_plain(self._model, path))
        state.epoch, state.step, state.losses, state.epoch_seconds = state.epoch + 1, 0, [], 0.0
        state.history.append(row)
        self._save()
        run.write_history(state.history)
        check_progress(self.config, state.history, self._steps, self._baseline)
        stop = self._replicas.any_worker(bool(self._signals))
        if stop and state.epoch < self.config.training.epochs:
            raise Interrupted(run, f"after epoch {state.epoch}")

    def _save(self) -> None:
        """Write a checkpoint."""
        self.state.seconds = time.perf_counter() - self._began
        variables = [v.numpy() for v in (*self._model.variables, *self._optimizer.variables)]
        state = {**vars(self.state), "config": self.config.to_yaml()}
        self._run.save_checkpoint(state, variables)


def _log_start(config: Config, data: TrainingData, plan: Plan) -> None:
    """Log the model summary, the data and the decisions of the runtime.

    Warnings and the notice about the data have their own level, so that a program that calls
    `train` without any logging set up shows them too.
    """
    if plan.worker:
        logger.info(f"worker {plan.worker} of {plan.workers}; only worker 0 logs and saves")
        logger.setLevel(logging.ERROR)
    logger.info(config.model_summary.table())
    for warning in config.model_summary.warnings:
        logger.warning(f"warning: {warning}")
    if data.notice:
        logger.warning(data.notice)
    counts = f"{len(data.train):,} training images, {len(data.validation):,} validation images"
    logger.info(f"{data.name}: {counts}")
    logger.info(describe_splits(config.data, data))
    if plan.device == "cpu" and config.runtime.device == "auto":
        logger.info(f"running on the CPU: {plan.reasons['device']}")
    for warning in plan.warnings:
        logger.warning(warning)
    logger.info(f"runtime: {plan}")
    for decision, reason in plan.reasons.items():
        logger.debug(f"  {decision}: {getattr(plan, decision)} ({reason})")
