"""How good generated digits are: distances to real digits in the features of a classifier.

The classifier comes with the package as digit_classifier.npz; scripts/release/classifier.py trains
it. Its forward pass is in NumPy, so that the measure depends on no other library.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from convae.arrays import Floats, Images

CLASSIFIER = Path(__file__).with_name("digit_classifier.npz")
SHAPE = (28, 28, 1)  # of the images that it takes
BATCH = 500  # images in memory as floats at once
NEIGHBORS = 3  # Kynkäänniemi et al. 2019


@dataclass(frozen=True)
class Features:
    """What the classifier says about images."""

    values: Floats  # (N, 64)
    classes: NDArray[np.int64]  # (N,): the digit 0 to 9


def classify(images: Images) -> Features:
    """Return the features and classes of digits, uint8 (N, 28, 28, 1)."""
    layers = _layers()
    values, classes = [], []
    for start in range(0, len(images), BATCH):
        x = images[start : start + BATCH] / np.float32(255)
        for name in ("conv1", "conv2"):
            kernel = layers[f"{name}_kernel"]
            windows = sliding_window_view(x, kernel.shape[:2], axis=(1, 2))[:, ::2, ::2]
            columns = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, np.prod(kernel.shape[:3]))
            x = (columns @ kernel.reshape(-1, kernel.shape[3])).reshape(*windows.shape[:3], -1)
            x = np.maximum(x + layers[f"{name}_bias"], 0)
        x = x.reshape(len(x), -1) @ layers["features_kernel"] + layers["features_bias"]
        values.append(np.maximum(x, 0))
        logits = values[-1] @ layers["logits_kernel"] + layers["logits_bias"]
        classes.append(logits.argmax(axis=1))
    return Features(np.concatenate(values), np.concatenate(classes))


@lru_cache(1)
def _layers() -> dict[str, Floats]:
    with np.load(CLASSIFIER, allow_pickle=False) as file:
        return {name: file[name].astype(np.float32) for name in file.files}


def frechet_distance(first: Floats, second: Floats) -> float:
    """Return the Fréchet distance between normal distributions fitted to features (N, D), (M, D).

    Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash
    equilibrium", NeurIPS 2017; with other features than theirs.
    """
    means = [values.mean(axis=0, dtype=np.float64) for values in (first, second)]
    a, b = (np.cov(values.astype(np.float64), rowvar=False) for values in (first, second))
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    # The trace of the root of a @ b, from a symmetric matrix with the same eigenvalues.
    overlap = np.sqrt(np.linalg.eigvalsh(root @ b @ root).clip(0)).sum()
    distance = np.square(means[0] - means[1]).sum() + np.trace(a) + np.trace(b) - 2 * overlap
    return float(max(distance, 0.0))


def precision_and_recall(real: Floats, generated: Floats) -> tuple[float, float]:
    """Return the share of generated features near real ones, and of real ones near generated ones.

    Near means within the distance from some other point to its third nearest neighbor, as in
    Kynkäänniemi et al., "Improved precision and recall metric for assessing generative models",
    NeurIPS 2019.
    """
    return _covered(generated, real), _covered(real, generated)


def _covered(points: Floats, others: Floats) -> float:
    """Return the share of `points` that lie in a ball of `others`, which reach to a neighbor."""
    kth = min(NEIGHBORS, len(others) - 1)  # place 0 is the point itself
    radii = np.concatenate([np.partition(d, kth, axis=1)[:, kth] for d in _squares(others, others)])
    inside = [(d <= radii).any(axis=1) for d in _squares(points, others)]
    return float(np.concatenate(inside).mean())


def _squares(points: Floats, others: Floats) -> Iterator[Floats]:
    """Yield the squared distances (BATCH, M) of `points` to `others`, a batch at a time."""
    lengths = np.square(others).sum(axis=1)
    for start in range(0, len(points), BATCH):
        batch = points[start : start + BATCH]
        own = np.square(batch).sum(axis=1)[:, None]
        yield (own + lengths - 2 * batch @ others.T).clip(0)
