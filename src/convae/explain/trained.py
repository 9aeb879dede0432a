"""Validation images of a run and their reconstructions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from convae.arrays import Array
from convae.errors import RunError

if TYPE_CHECKING:
    from convae.layers.spec import Model

MAX_IMAGES = 500  # a mean spectrum needs no more


@dataclass(frozen=True)
class ValidationSample:
    """Originals and reconstructions, float (N, H, W) in [0, 1], averaged over the channels."""

    name: str  # of the config
    description: str  # of the data
    model: Model
    originals: Array
    reconstructions: Array


def validation_sample(run: str) -> ValidationSample:
    """Return up to 500 validation images and the outputs of the run's best weights.

    Raises:
        RunError: There is no such run, it has no weights, or it segments.
        DataError: Its data cannot be found.
    """
    from convae.data.loading import load_training
    from convae.runs.run import Run
    from convae.tasks import build_task

    found = Run.find(run)
    config, task = found.config, build_task(found.config)
    if not task.outputs_images:
        raise RunError(f"{found.path}: its outputs are classes, not images to compare")
    _ = found.best  # raises before the data are read
    data = task.filter(load_training(config.data, task.image_shape))
    examples = task.evaluation_examples(data.validation)[slice(MAX_IMAGES)]
    from convae.inference.autoencoder import load

    outputs = load(found.path).reconstruct(examples.inputs)
    originals = (examples.targets.astype(np.float32) / 255).mean(axis=3)
    description = f"{data.name}, {len(originals)} validation images"
    return ValidationSample(config.name, description, config.model, originals, outputs.mean(axis=3))
