"""The optimizer of a config, and the callbacks that watch the validation loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from convae.runtime.backend import float32, keras

if TYPE_CHECKING:
    from convae.config.schema import Config


def build_optimizer(config: Config, total_steps: int) -> Any:
    """Return the Keras optimizer; a schedule ends after `total_steps` steps."""
    training: Any = config.training
    rate = training.learning_rate
    if training.schedule.type == "one_cycle":
        warmup = round(training.schedule.warmup * total_steps)
        rate = keras.optimizers.schedules.CosineDecay(
            rate / 25 if warmup else rate,
            decay_steps=max(1, total_steps - warmup),
            warmup_target=rate if warmup else None,
            warmup_steps=warmup,
        )
    options = training.optimizer.model_dump(exclude={"type"})
    if options["ema_momentum"] is None:
        del options["ema_momentum"]
    else:
        options["use_ema"] = True
    with float32():  # its learning rate
        return OPTIMIZERS[training.optimizer.type](learning_rate=rate, **options)


def update_shapes(variables: Sequence[Any], optimizer: Any) -> list[tuple[int, ...]]:
    """Return the shapes in which an optimizer updates the weights in `variables`.

    It is one vector: most optimizers treat each weight alike, and one update of all is faster than
    one for each variable. Muon orthogonalizes matrices, whose columns are the last axis of kernels.
    """
    shapes = [tuple(variable.shape) for variable in variables]
    if not isinstance(optimizer, keras.optimizers.Muon):
        return [(sum(map(math.prod, shapes)),)]
    return [(math.prod(shape[:-1]), shape[-1]) if shape[1:] else shape for shape in shapes]


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


OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "lion": keras.optimizers.Lion,
    "muon": keras.optimizers.Muon,
    "nadam": keras.optimizers.Nadam,
    "rmsprop": keras.optimizers.RMSprop,
    "sgd": keras.optimizers.SGD,
}
