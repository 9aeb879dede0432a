"""A run's validation images and what its model makes of them: the laboratory's only look at runs.

Imports TensorFlow through the modules that train; nothing else in the laboratory does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from convae.errors import ConfigError
from convae.explain.operation import Array

if TYPE_CHECKING:
    from convae.layers.spec import Model

MOST = 500  # images; a mean spectrum needs no more


@dataclass(frozen=True)
class Seen:
    """Originals and reconstructions, float (N, H, W) from 0 to 1, colors averaged."""

    name: str
    data: str
    model: Model
    originals: Array
    reconstructions: Array


def reconstructed(run: str) -> Seen:
    """Up to 500 validation images through the run's best weights, each beside what it should be.

    Raises ConfigError for a run that does not exist, has no weights, gives classes instead of
    images, or whose data are gone.
    """
    from convae.data.loading import load_training
    from convae.evaluation.evaluate import load_model
    from convae.runs.run import Run
    from convae.tasks import build_task

    found = Run.find(run)
    config = found.config
    task = build_task(config)
    if not task.outputs_images:
        raise ConfigError(f"{found.path}: its outputs are classes, not images to compare with")
    model = load_model(found)
    data = task.filter(load_training(config.data, task.image_shape))
    examples = task.evaluation_examples(data.validation)[slice(MOST)]
    inputs = examples.inputs.astype(np.float32) / 255
    batches = [inputs[at : at + 100] for at in range(0, len(inputs), 100)]
    results = np.concatenate([np.asarray(model.predict_on_batch(batch)) for batch in batches])
    originals = examples.targets.astype(np.float32) / 255
    words = f"{data.name}, {len(inputs)} validation images"
    return Seen(config.name, words, config.model, originals.mean(axis=3), results.mean(axis=3))
