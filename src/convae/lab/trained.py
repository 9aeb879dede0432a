"""A run's validation images and what its model makes of them: the laboratory's only look at runs.

Imports TensorFlow through the modules that train; nothing else in the laboratory does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from convae.lab.transpose import Array

if TYPE_CHECKING:
    from convae.config import Model

MOST = 500  # images; a mean spectrum needs no more


@dataclass(frozen=True)
class Seen:
    """Originals and reconstructions, float (N, H, W) from 0 to 1, colours averaged."""

    name: str
    data: str
    model: Model
    originals: Array
    reconstructions: Array


def reconstructed(run: str) -> Seen:
    """Up to 500 validation images through the run's best weights.

    Raises UserError for a run that does not exist, has no weights, or whose data are gone.
    """
    from convae.data import load_training
    from convae.evaluate import load_model
    from convae.run import Run

    found = Run.find(run)
    config = found.config
    model = load_model(found)
    data = load_training(config.data, config.model.input_shape)
    images = data.validation.images[:MOST].astype(np.float32) / 255
    batches = [images[at : at + 100] for at in range(0, len(images), 100)]
    results = np.concatenate([np.asarray(model.predict_on_batch(batch)) for batch in batches])
    words = f"{data.name}, {len(images)} validation images"
    return Seen(config.name, words, config.model, images.mean(axis=3), results.mean(axis=3))
