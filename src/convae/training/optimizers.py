"""The optimizer of a config, and the callbacks that watch the validation loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convae.runtime.backend import keras

if TYPE_CHECKING:
    from convae.config.schema import Config, Training


def build_optimizer(config: Config, total_steps: int) -> Any:
    """Return the Keras optimizer; a schedule ends after `total_steps` steps."""
    training = config.training
    rate = SCHEDULES[training.schedule.type](training, total_steps)
    return OPTIMIZERS[training.optimizer](learning_rate=rate)


def plateau_callbacks(config: Config) -> list[Any]:
    """Return Keras' callbacks that follow `val_loss`: their state follows from the history."""
    callbacks: list[Any] = []
    schedule, stopping = config.training.schedule, config.training.early_stopping
    if schedule.type == "reduce_on_plateau":
        callbacks.append(
            keras.callbacks.ReduceLROnPlateau(
                factor=schedule.factor,
                patience=schedule.patience,
                min_lr=schedule.min_learning_rate,
                min_delta=0.0,
            )
        )
    if stopping:
        callbacks.append(
            keras.callbacks.EarlyStopping(
                patience=stopping.patience, min_delta=stopping.min_delta, mode="min"
            )
        )
    return callbacks


def _constant(training: Training, _: int) -> Any:
    return training.learning_rate


def _one_cycle(training: Any, total_steps: int) -> Any:
    rate, warmup = training.learning_rate, round(training.schedule.warmup * total_steps)
    return keras.optimizers.schedules.CosineDecay(
        rate / 25 if warmup else rate,
        decay_steps=max(1, total_steps - warmup),
        warmup_target=rate if warmup else None,
        warmup_steps=warmup,
    )


OPTIMIZERS = {"adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD}
SCHEDULES = {"constant": _constant, "one_cycle": _one_cycle, "reduce_on_plateau": _constant}
