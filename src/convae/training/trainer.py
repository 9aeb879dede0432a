"""Training, in the order in which one would tell it.

from convae.config import load_config
from convae.train import train
run = train(load_config("configs/mnist.yaml", ["training.epochs=1"]))
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convae.config.schema import CheckpointInterval, Config
from convae.console import logger
from convae.data.loading import TrainingData, load_training
from convae.errors import ConfigError
from convae.layers import summary as ledger
from convae.models.builder import arrays_sha256, build_model, save_plain, weights_sha256
from convae.runs.provenance import describe, peak_memory_mib
from convae.runs.run import Run
from convae.runtime.backend import keras
from convae.runtime.cluster import report_started
from convae.runtime.plan import Plan
from convae.runtime.processes import catch_stop_signals
from convae.runtime.replicas import Replicas
from convae.runtime.start import start
from convae.tasks import Task, build_task
from convae.tasks.task import batch_examples
from convae.training import loggers
from convae.training.engine import Engine
from convae.training.progress import Progress
from convae.training.resume import reopen
from convae.training.workers import facts, peers_watched, share_run

STOPPING = "finishing the step and saving; press Ctrl-C again to stop at once"
STUCK_EPOCHS, STUCK_STEPS = 3, 100  # by then any healthy training is below the mean image


class Interrupted(Exception):  # noqa: N818 - not an error
    """Ctrl-C or SIGTERM came; `run` is saved and can go on."""

    def __init__(self, run: Run, when: str) -> None:
        super().__init__(f"stopped {when}; saved in {run.path}")
        self.run = run


@dataclass
class State:
    """Where a training stands. A checkpoint holds this, as JSON, beside weights and optimizer."""

    epoch: int = 0  # the epoch to go on in, counted from 0,
    step: int = 0  # its next step,
    losses: list[float] = field(default_factory=list)  # its batches' losses so far, times images,
    epoch_seconds: float = 0.0  # and the time that it has taken
    seconds: float = 0.0  # of the whole training
    history: list[dict[str, float]] = field(default_factory=list)  # a row a finished epoch

    @property
    def best(self) -> float:
        """The lowest validation loss so far."""
        return min((row["val_loss"] for row in self.history), default=math.inf)


def train(config: Config, resume: Run | None = None, callbacks: Sequence[Any] = ()) -> Run:
    """Train `config`'s model and return its run; with `resume`, go on where that run stopped.

    Of a run's config some keys may change when it goes on: see `resume.MAY_CHANGE`. `callbacks` are
    Keras callbacks, called on every worker. Progress goes to stderr.
    Raises ConfigError for what the user can mend, Interrupted after Ctrl-C (the run is saved),
    PeerLost if another worker has ended.
    """
    # Everything that can be refused is refused before a folder is made.
    loggers.check(config)
    task = build_task(config)
    data = find_data(config, task)
    plan = start(config, distributed=True)
    if plan.worker:
        logger.info(f"worker {plan.worker} of {plan.workers}; worker 0 tells and writes")
        logger.setLevel(logging.ERROR)
    tell_model(config)
    tell_data(data)
    tell_plan(config, plan)
    # Before anything of TensorFlow, and before there is a folder.
    with peers_watched(plan):
        replicas = Replicas(plan, config.runtime.rendezvous_timeout)
        replicas.check_agreement(facts(config, data, plan))
        run = share_run(config, replicas, resume)
        with run.locked():
            try:
                fit(run, config, task, data, plan, replicas, callbacks, resumed=resume is not None)
            except Interrupted:
                replicas.wait_for_all()
                raise
            replicas.wait_for_all()  # nobody ends before the chief has written
    return run


def fit(
    run: Run,
    config: Config,
    task: Task,
    data: TrainingData,
    plan: Plan,
    replicas: Replicas,
    callbacks: Sequence[Any],
    resumed: bool,
) -> None:
    """The training itself; the run's lock is held."""
    validation = task.evaluation_examples(data.validation)
    epochs, size = config.training.epochs, config.training.batch_size
    steps = -(-data.samples_per_epoch // size)
    with replicas.scope():
        model = build_model(config)
        optimizer = build_optimizer(config, steps * epochs)
        model.compile(optimizer=optimizer)  # so that callbacks find the optimizer
    engine = Engine(model, config, plan, optimizer, replicas)
    # By the chief for all: whoever makes them reads all of the data.
    known = task.reference_losses(data.train, validation) if replicas.is_chief else (0.0, 0.0)
    floor, baseline = replicas.all_reduce_sum(known)

    saved, arrays = reopen(run, config, data, plan) if resumed else ({}, [])
    state = State(**saved)
    replicas.check_agreement({"checkpoint": [saved, arrays_sha256(arrays)]})
    if state.history:  # a kill may have come between the checkpoint and this file
        run.write_history(state.history)
    described = describe(config, data, plan, model.count_params(), run.manifest)
    run.update_manifest(status="running", **described)
    logger.info(f"run: {run.path}")

    rules = plateau_rules(config)
    told = loggers.build(config, run, validation, engine.predict) if replicas.is_chief else []
    progress = Progress(epochs, state.epoch, data.samples_per_epoch, state.step * size, floor)
    hooks = keras.callbacks.CallbackList(
        [*rules, *told, *callbacks, progress], model=model, epochs=epochs, steps=steps
    )
    model.stop_training = False
    hooks.on_train_begin()
    for row in state.history:  # the rules' state follows from the losses that they have seen
        for rule in rules:
            rule.on_epoch_end(int(row["epoch"]) - 1, dict(row))
    if arrays:  # after the rules, which also set the learning rate
        restore(model, optimizer, arrays)
    began = time.perf_counter() - state.seconds

    def save(**changes: Any) -> None:
        vars(state).update(changes, seconds=time.perf_counter() - began)
        variables = [v.numpy() for v in (*model.variables, *optimizer.variables)]
        run.save_checkpoint({**vars(state), "config": config.to_yaml()}, variables)

    report_started()
    with (
        recorded(run, model, began, [progress, *told]),
        catch_stop_signals(STOPPING) as interrupted,
    ):
        if not arrays:
            save()  # so that a run killed in its first epoch can go on, too
        for epoch in range(state.epoch, epochs):
            if model.stop_training:
                break
            hooks.on_epoch_begin(epoch)
            epoch_began = time.perf_counter() - state.epoch_seconds
            order = epoch_order(config.seed, epoch, len(data.train), data.samples_per_epoch)
            losses = list(state.losses)
            for step in range(state.step, steps):
                hooks.on_train_batch_begin(step)
                chosen = order[step * size : (step + 1) * size]
                mine = replicas.worker_slice(len(chosen))
                batch = batch_examples(task, data.train, chosen, mine, epoch, step)
                wish = bool(interrupted)
                loss, stop = engine.step(batch.inputs, batch.targets, len(chosen), stop=wish)
                if replicas.workers == 1:  # nobody else needs to know: no step later
                    stop = bool(interrupted)
                losses.append(loss * len(chosen))
                if not math.isfinite(loss):
                    raise ConfigError(diverged(config, epoch, step))
                hooks.on_train_batch_end(step, {"loss": loss, "size": len(chosen)})
                unsaved = time.perf_counter() - began - state.seconds
                if stop or due(config.training.checkpoint_interval, step + 1, unsaved):
                    passed = time.perf_counter() - epoch_began
                    save(epoch=epoch, step=step + 1, losses=losses, epoch_seconds=passed)
                if stop:
                    raise Interrupted(run, f"in epoch {epoch + 1} after step {step + 1}")
            train_seconds = time.perf_counter() - epoch_began
            val_loss = engine.evaluate(validation.inputs, validation.targets)
            if not math.isfinite(val_loss):  # a step's loss is from before the step
                raise ConfigError(diverged(config, epoch, steps - 1))
            row = {
                "epoch": epoch + 1,
                "loss": math.fsum(losses) / data.samples_per_epoch,
                "val_loss": val_loss,
                "val_excess": val_loss - floor,
                "learning_rate": float(keras.ops.convert_to_numpy(optimizer.learning_rate)),
                "seconds": time.perf_counter() - epoch_began,
                "images_per_second": data.samples_per_epoch / train_seconds,
            }
            # The rules may change the learning rate for the next epoch, and the checkpoint must
            # hold it: first the hooks, then the files, the checkpoint after the best model.
            hooks.on_epoch_end(epoch, dict(row))
            if val_loss < state.best:
                run.save_model("best.keras", lambda path: save_plain(model, path))
            history = [*state.history, row]
            save(epoch=epoch + 1, step=0, losses=[], epoch_seconds=0.0, history=history)
            run.write_history(history)
            if stuck(history, steps, baseline):
                raise ConfigError(stuck_message(config, val_loss, baseline))
            if replicas.any_worker(bool(interrupted)) and epoch + 1 < epochs:
                raise Interrupted(run, f"after epoch {epoch + 1}")
        run.save_model("model.keras", lambda path: save_plain(model, path))
        hooks.on_train_end()


def tell_model(config: Config) -> None:
    """Print the layer table, and what the ledger warns of."""
    model = config.model
    logger.info(ledger.table(model.input_shape, ledger.layer_rows(model.input_shape, model.layers)))
    shape, compresses = model.input_shape, config.task.compresses
    for warning in ledger.warnings(shape, model.encoder, model.decoder, compresses=compresses):
        logger.info(f"warning: {warning}")


def find_data(config: Config, task: Task) -> TrainingData:
    """What the task lets training see. Raises ConfigError for less than a batch.

    `training.samples_per_epoch` overrules how many images an epoch takes.
    """
    found = load_training(config.data, task.image_shape)
    data = task.filter(found)
    per_epoch = config.training.samples_per_epoch or round(
        found.samples_per_epoch * len(data.train) / len(found.train)
    )
    most = min(per_epoch, len(data.train))
    if config.training.batch_size > most:
        raise ConfigError(
            f"training.batch_size: cannot be larger than the {most:,} training images. "
            f"Received: {config.training.batch_size:,}"
        )
    return replace(data, samples_per_epoch=per_epoch)


def tell_data(data: TrainingData) -> None:
    """Print where the images are from, which is a long story if it is the bundled sample."""
    if data.notice:
        logger.info(data.notice)
    count = f"{len(data.train):,} images to train on, {len(data.validation):,} to validate"
    logger.info(f"{data.name}: {count}")


def tell_plan(config: Config, plan: Plan) -> None:
    """Say what the runtime decided."""
    if plan.device == "cpu" and config.runtime.device == "auto":
        logger.info(f"running on the CPU: {plan.reasons['device']}")
    for line in (*plan.warnings, f"runtime: {plan}"):
        logger.info(line)
    for decision, reason in plan.reasons.items():
        logger.debug(f"  {decision}: {getattr(plan, decision)} ({reason})")


def due(every: CheckpointInterval | None, step: int, seconds: float) -> bool:
    """Whether to save in mid-epoch: after `step` steps of it, `seconds` after the last save."""
    if every is None:
        return False
    steps_passed = every.steps is not None and step % every.steps == 0
    return steps_passed or (every.seconds is not None and seconds >= every.seconds)


@contextmanager
def recorded(
    run: Run, model: Any, began: float, listeners: Sequence[Progress | loggers.Logger]
) -> Iterator[None]:
    """Write into the manifest how the training ended, whatever happens."""
    status = "failed"
    try:
        yield
        status = "finished"
    except (Interrupted, KeyboardInterrupt):
        status = "interrupted"
        raise
    finally:
        for listener in listeners:
            listener.close(status)
        run.update_manifest(
            status=status,
            seconds=round(time.perf_counter() - began, 3),
            peak_memory_mib=peak_memory_mib(),
            weights_sha256=weights_sha256(model),
        )


def epoch_order(seed: int, epoch: int, count: int, total: int) -> NDArray[np.int64]:
    """The order in which an epoch sees `total` images: shuffled passes over all `count` of them.

    It follows from (seed, epoch) alone, so that a resumed run sees what an unbroken one sees.
    """
    generator = np.random.default_rng([seed, epoch])
    passes = [generator.permutation(count) for _ in range(-(-total // count))]
    return np.concatenate(passes)[:total]


def build_optimizer(config: Config, total_steps: int) -> Any:
    """The Keras optimizer, its learning rate constant or a schedule over `total_steps`."""
    rate: Any = config.training.learning_rate
    schedule = config.training.schedule
    if schedule.type == "one_cycle":
        warmup = round(schedule.warmup * total_steps)
        rate = keras.optimizers.schedules.CosineDecay(
            rate / 25 if warmup else rate,
            decay_steps=max(1, total_steps - warmup),
            warmup_target=rate if warmup else None,
            warmup_steps=warmup,
        )
    make = {"adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD}[config.training.optimizer]
    return make(learning_rate=rate)


def plateau_rules(config: Config) -> list[Any]:
    """Keras' callbacks that follow val_loss: their state can be had again from the history."""
    rules: list[Any] = []
    schedule, stopping = config.training.schedule, config.training.early_stopping
    if schedule.type == "reduce_on_plateau":
        rules.append(
            keras.callbacks.ReduceLROnPlateau(
                factor=schedule.factor,
                patience=schedule.patience,
                min_lr=schedule.min_learning_rate,
                min_delta=0.0,
            )
        )
    if stopping:
        rules.append(
            keras.callbacks.EarlyStopping(
                patience=stopping.patience, min_delta=stopping.min_delta, mode="min"
            )
        )
    return rules


def restore(model: Any, optimizer: Any, arrays: Sequence[NDArray[Any]]) -> None:
    """Give model and optimizer the values of a checkpoint; they must be built alike."""
    variables = [*model.variables, *optimizer.variables]
    shapes = [tuple(v.shape) for v in variables]
    if shapes != [a.shape for a in arrays]:
        raise ConfigError("the checkpoint belongs to another model or optimizer than the config's")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def diverged(config: Config, epoch: int, step: int) -> str:
    """Why a loss is not a number, most likely first."""
    rate = config.training.learning_rate
    return (
        f"the loss is not a number in epoch {epoch + 1}, step {step + 1}. Likely causes: "
        f"training.learning_rate: {rate:g} is too high (try {rate / 10:g}); a linear or relu last "
        "layer that grows without bound; many layers without a suitable kernel_initializer"
    )


def stuck(history: Sequence[dict[str, float]], steps: int, baseline: float) -> bool:
    """Whether no epoch has come below what the mean image reaches, though it had the time."""
    enough = len(history) >= STUCK_EPOCHS and len(history) * steps >= STUCK_STEPS
    return enough and min(row["val_loss"] for row in history) > baseline


def stuck_message(config: Config, val_loss: float, baseline: float) -> str:
    """Why a model is no better than the mean image, most likely first."""
    return (
        f"val_loss {val_loss:.5f} is still above the mean image's {baseline:.5f}: the model has "
        "learned nothing of single images. Likely causes: training.learning_rate "
        f"{config.training.learning_rate:g} is too high (dead ReLUs) or far too low; a last layer "
        "whose activation cannot reach [0, 1]; a code too small to tell images apart"
    )
