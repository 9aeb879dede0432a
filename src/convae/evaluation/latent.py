"""What a code tells of its image: codes, lines between them, their neighbors, and their map.

Codes are float32 (N, D): the encoder's maps, laid flat. At most MOST of them are looked at, so
that memory does not grow with the data.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convae.errors import RunError
from convae.tasks.task import code_size

if TYPE_CHECKING:
    from convae.config.schema import Config

Floats = NDArray[np.float32]

MOST = 10_000  # codes
QUERIES = 1000  # of these the neighbors are counted
NEAREST = 5
AXES_FROM = 1000  # codes that principal axes are fitted on
BLOCK = 1000  # images in memory as floats at once


@dataclass(frozen=True)
class Latent:
    """The codes of the first test images, their maps, and what is measured on them."""

    codes: Floats  # (N, D)
    maps: dict[str, Floats]  # (N, 2), by what they are
    measures: dict[str, Any]  # for metrics.json


def has_bottleneck(config: Config) -> bool:
    """Whether all that the decoder sees of an image is a code smaller than the image."""
    small = code_size(config) < prod(config.model.input_shape)
    one_class = config.task.type != "segment"  # which a scene is not
    return small and one_class and not config.model.has_skips


def look(
    model: Any,
    config: Config,
    inputs: NDArray[np.uint8],
    labels: NDArray[np.int64] | None,
    umap: bool = False,
) -> Latent:
    """The codes of the first MOST inputs, mapped, and measured if there are labels.

    Both shares are of the NEAREST nearest of QUERIES inputs: how many are of the input's class.
    """
    inputs = inputs[:MOST]
    codes = encode(model, inputs)
    points, share = principal_map(codes)
    maps = {f"PCA of the codes: two of {codes.shape[1]} axes, {share:.0%} of the variance": points}
    if umap:
        maps["UMAP of the codes"] = umap_map(codes, config.seed)
    measures: dict[str, Any] = {"code_size": codes.shape[1], "images": len(codes)}
    if labels is not None and len(codes) > NEAREST:
        measures["neighbors_same_class"] = same_class_share(codes, labels[:MOST])
        measures["neighbors_same_class_pixels"] = same_class_share(inputs, labels[:MOST])
    return Latent(codes, maps, measures)


def encode(model: Any, inputs: NDArray[np.uint8]) -> Floats:
    """The codes (N, D) of uint8 inputs (N, H, W, C)."""
    encoder = model.get_layer("encoder")
    parts = [
        np.asarray(encoder(inputs[start : start + BLOCK] / np.float32(255)))
        for start in range(0, len(inputs), BLOCK)
    ]
    return np.concatenate(parts).reshape(len(inputs), -1)


def decode(model: Any, codes: Floats) -> Floats:
    """What the decoder makes of codes (N, D): (N, H, W, C)."""
    shape = model.get_layer("encoder").output_shape[1:]
    return np.asarray(model.get_layer("decoder")(codes.reshape(-1, *shape)))


def line(first: NDArray[Any], second: NDArray[Any], steps: int) -> Floats:
    """`steps` points on the straight line from one array to the other, both ends among them."""
    shares = np.linspace(0, 1, steps, dtype=np.float32).reshape(-1, *[1] * first.ndim)
    return np.asarray((1 - shares) * first + shares * second, np.float32)


def nearest(
    points: NDArray[Any], queries: NDArray[np.integer], count: int = NEAREST
) -> NDArray[np.int64]:
    """(Q, count): the places of the nearest other points of each of `queries`, nearest first.

    `points` (N, ...) are codes or images; the distance is Euclidean. Needs more than `count`.
    """
    asked = _flat(points[queries])
    found = np.zeros((len(queries), 0), np.int64)
    distances = np.zeros((len(queries), 0), np.float32)
    for start in range(0, len(points), BLOCK):
        block = _flat(points[start : start + BLOCK])
        # less |query|^2, which is the same for all points of a query
        away = (block * block).sum(axis=1) - 2 * (asked @ block.T)
        inside = (queries >= start) & (queries < start + len(block))
        away[np.flatnonzero(inside), queries[inside] - start] = np.inf
        places = np.broadcast_to(np.arange(start, start + len(block)), away.shape)
        distances = np.concatenate([distances, away], axis=1)
        found = np.concatenate([found, places], axis=1)
        if distances.shape[1] > count:
            best = np.argpartition(distances, count - 1, axis=1)[:, :count]
            distances = np.take_along_axis(distances, best, axis=1)
            found = np.take_along_axis(found, best, axis=1)
    order = np.argsort(distances, axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1)


def same_class_share(points: NDArray[Any], labels: NDArray[np.int64]) -> float:
    """The share of the NEAREST nearest points that are of the class of the one asked about."""
    queries = np.arange(min(QUERIES, len(points)))
    found = nearest(points, queries)
    return float((labels[found] == labels[queries, None]).mean())


def principal_map(codes: Floats) -> tuple[Floats, float]:
    """The codes along their two principal axes (N, 2), and the share of the variance in these.

    A code of one number has one axis; the other coordinate is then 0.
    """
    middle = codes.mean(axis=0)
    axes = np.linalg.svd(codes[:AXES_FROM] - middle, full_matrices=False)[2][:2]
    # the sign of an axis is anyone's choice: its largest weight is positive
    axes *= np.sign(np.take_along_axis(axes, abs(axes).argmax(axis=1)[:, None], axis=1))
    points = (codes - middle) @ axes.T
    share = points.var(axis=0).sum() / max(float(codes.var(axis=0).sum()), 1e-30)
    points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    return np.asarray(points, np.float32), float(share)


def check_umap(config: Config) -> None:
    """Raise RunError if no map by UMAP can be made of this run."""
    if not has_bottleneck(config):
        raise RunError("--umap maps codes, but this run has none smaller than its images")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as below
            import umap  # noqa: F401
    except ImportError:
        raise RunError("--umap needs umap-learn: pip install 'convae[umap]'") from None


def umap_map(codes: Floats, seed: int) -> Floats:
    """The codes in two dimensions (N, 2): McInnes, Healy and Melville, "UMAP", 2018."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that this one does not call itself
        from umap import UMAP

        # One thread: only then does the seed decide everything.
        return np.asarray(UMAP(random_state=seed, n_jobs=1).fit_transform(codes), np.float32)


def _flat(points: NDArray[Any]) -> Floats:
    scale = np.float32(255 if points.dtype == np.uint8 else 1)
    return np.asarray(points.reshape(len(points), -1) / scale, np.float32)
