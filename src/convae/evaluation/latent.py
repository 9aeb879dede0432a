"""Analysis of codes: interpolation, nearest neighbors, maps in two dimensions.

Codes are float32 (N, D): the encoder's output, flattened. At most MOST are analyzed, so that memory
does not grow with the data.
"""

import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convae.arrays import Array, Floats, Images, Labels
from convae.config.schema import Config
from convae.errors import RunError, UnsupportedError
from convae.tasks import Task
from convae.tasks.baselines import code_size
from convae.tasks.metrics import EPSILON
from convae.training.engine import Engine

MOST = 10_000  # codes
QUERIES = 1000  # codes whose neighbors are counted
NEAREST = 5
AXES_FROM = 1000  # codes that principal axes are fitted on
BLOCK = 1000  # images in memory as floats at once


@dataclass(frozen=True)
class Latent:
    """The codes of the first test images, their maps and metrics."""

    codes: Floats  # (N, D)
    labels: Labels | None  # (N,)
    maps: dict[str, Floats]  # points (N, 2) by the map's title
    measures: dict[str, Any]  # for metrics.json


class TrainedModel:
    """A Keras model as a Predictor, and as a LatentModel if its code is drawn.

    Args:
        model: The Keras model.
        engine: The engine of `model`.
    """

    margin = EPSILON

    def __init__(self, model: Any, engine: Engine) -> None:
        self.outputs = engine.predict
        self._encoder, self._engine = model.get_layer("encoder"), engine
        self._code_shape = model.get_layer("decoder").inputs[0].shape[1:]
        self.code_size = prod(self._code_shape)

    def encode(self, inputs: Images) -> tuple[Floats, ...]:
        """Return what the encoder gives for inputs (N, H, W, C), each as (N, D), codes first."""
        parts = []
        for start in range(0, len(inputs), BLOCK):
            found = self._encoder(inputs[start : start + BLOCK] / np.float32(255))
            parts.append(found if isinstance(found, list) else [found])
        return tuple(np.concatenate(p).reshape(len(inputs), -1) for p in zip(*parts, strict=True))

    def decode(self, codes: Floats) -> Floats:
        """Return the decoded images (N, H, W, C) of codes (N, D)."""
        return self._engine.decode(codes.reshape(-1, *self._code_shape))


def has_bottleneck(task: Task) -> bool:
    """Return whether the decoder takes nothing but a code that is smaller than the image."""
    model = task.config.model
    small = code_size(task.config) < prod(model.input_shape)
    return small and task.one_image_each and not model.has_skips


def analyze(
    model: TrainedModel, config: Config, inputs: Images, labels: Labels | None, umap: bool = False
) -> Latent:
    """Return the codes of the first MOST inputs, with maps, and with metrics if there are labels.

    The metrics are the shares of the nearest codes and images that are of the same class.
    """
    inputs, labels = inputs[:MOST], None if labels is None else labels[:MOST]
    codes = model.encode(inputs)[0]
    points, share = principal_map(codes)
    maps = {f"PCA of the codes: two of {codes.shape[1]} axes, {share:.0%} of the variance": points}
    if umap:
        maps["UMAP of the codes"] = umap_map(codes, config.seed)
    measures: dict[str, Any] = {"code_size": codes.shape[1], "images": len(codes)}
    if labels is not None and len(codes) > NEAREST:
        measures["neighbors_same_class"] = same_class_share(codes, labels)
        measures["neighbors_same_class_pixels"] = same_class_share(inputs, labels)
    return Latent(codes, labels, maps, measures)


def nearest(points: Array, queries: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the indices (Q, NEAREST) of the nearest other points of each query, nearest first.

    Args:
        points: More than NEAREST codes or images, (N, ...). The distance is Euclidean.
        queries: Indices into `points`, (Q,).
    """
    targets = _flat(points[queries])
    distances = np.empty((len(queries), len(points)), np.float32)
    for start in range(0, len(points), BLOCK):
        block = _flat(points[start : start + BLOCK])
        # less |query|^2, which is the same for all points of a query
        distances[:, start : start + BLOCK] = (block * block).sum(axis=1) - 2 * targets @ block.T
    distances[np.arange(len(queries)), queries] = np.inf
    found = np.argpartition(distances, NEAREST - 1, axis=1)[:, :NEAREST]
    order = np.argsort(np.take_along_axis(distances, found, axis=1), axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1)


def same_class_share(points: Array, labels: Labels) -> float:
    """Return the share of the NEAREST neighbors of QUERIES points that are of the same class."""
    queries = np.arange(min(QUERIES, len(points)))
    found = nearest(points, queries)
    return float((labels[found] == labels[queries, None]).mean())


def principal_map(codes: Floats) -> tuple[Floats, float]:
    """Return the codes along their two principal axes (N, 2), and their share of the variance.

    The second coordinate of codes of one number is 0.
    """
    middle = codes.mean(axis=0)
    axes = np.linalg.svd(codes[:AXES_FROM] - middle, full_matrices=False)[2][:2]
    # the sign of an axis is arbitrary: make its largest weight positive
    axes *= np.sign(np.take_along_axis(axes, abs(axes).argmax(axis=1)[:, None], axis=1))
    points = (codes - middle) @ axes.T
    share = points.var(axis=0).sum() / max(float(codes.var(axis=0).sum()), 1e-30)
    points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    return np.asarray(points, np.float32), float(share)


def check_umap(task: Task) -> None:
    """Raise RunError if the run has no codes for UMAP, UnsupportedError without the package."""
    if not has_bottleneck(task):
        raise RunError("--umap maps codes, but this run has none smaller than its images")
    if find_spec("umap") is None:
        raise UnsupportedError("--umap needs umap-learn: pip install 'convae[umap]'")


def umap_map(codes: Floats, seed: int) -> Floats:
    """Return a map (N, 2) of the codes by UMAP (McInnes, Healy and Melville, 2018)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages that umap imports
        from umap import UMAP

        # With more than one thread the map would not follow from the seed.
        return np.asarray(UMAP(random_state=seed, n_jobs=1).fit_transform(codes), np.float32)


def _flat(points: Array) -> Floats:
    scale = np.float32(255 if points.dtype == np.uint8 else 1)
    return np.asarray(points.reshape(len(points), -1) / scale, np.float32)
