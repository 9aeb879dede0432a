"""Why a training diverges or learns nothing, most likely cause first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from convae.errors import ConfigError

if TYPE_CHECKING:
    from convae.config.schema import Config

STUCK_EPOCHS, STUCK_STEPS = 3, 100  # by then a healthy training is below the mean image's loss


def check_finite(loss: float, config: Config, epoch: int, step: int) -> None:
    """Raise ConfigError if `loss` is not a number; `epoch` and `step` count from 1."""
    if math.isfinite(loss):
        return
    rate = config.training.learning_rate
    raise ConfigError(
        f"the loss is not a number in epoch {epoch}, step {step}. Likely causes: "
        f"training.learning_rate: {rate:g} is too high (try {rate / 10:g}); a linear or relu last "
        "layer that grows without bound; many layers without a suitable kernel_initializer"
    )


def check_progress(
    config: Config, history: Sequence[Mapping[str, float]], steps: int, baseline: float
) -> None:
    """Raise ConfigError if no epoch of `steps` steps is better than the mean image.

    `baseline` is the loss of the mean image. The first epochs and steps are not judged.
    """
    judged = len(history) >= STUCK_EPOCHS and len(history) * steps >= STUCK_STEPS
    if not judged or min(row["val_loss"] for row in history) <= baseline:
        return
    raise ConfigError(
        f"val_loss {history[-1]['val_loss']:.5f} is still above the mean image's {baseline:.5f}: "
        "the model reconstructs every image alike. Likely causes: training.learning_rate "
        f"{config.training.learning_rate:g} is too high (dead ReLUs) or far too low; a last layer "
        "whose activation cannot reach [0, 1]; a code too small to distinguish images"
    )
