"""How good reconstructions are: per image, per class, on average. NumPy only.

Images are uint8 originals (N, H, W, C), taken as gray values x/255 in [0, 1], beside float32
reconstructions of the same shape in [0, 1]. Everything is computed in float64, but in chunks that
stay in the processor's cache, so that memory does not grow with N and N may be memory-mapped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Images = NDArray[np.uint8]
Floats = NDArray[np.float64]
Scores = dict[str, Floats]

HIGHER_IS_BETTER = {"psnr", "ssim", "iou", "accuracy", "auroc"}
LOWER_IS_BETTER = {"bce", "excess", "mse"}
SCORES = ("bce", "floor", "excess", "mse", "psnr", "ssim")
EPSILON = 1e-7  # Keras' clip of probabilities; it is applied in float32, as Keras does
PSNR_CAP = 100.0  # dB: an RMS error of 1e-5, far below half a gray level (0.002); JSON has no inf
CHUNK = 1 << 16  # values: a dozen float64 arrays of this size fit a core's share of the cache

_GRAY = np.arange(256) / 255
_ENTROPY = -(_GRAY * np.log(_GRAY, where=_GRAY > 0, out=np.zeros(256)))
_ENTROPY += _ENTROPY[::-1]  # 1 - x/255 is the gray level mirrored


def image_scores(
    images: Images, reconstructions: NDArray[np.float32], *, ssim: bool = True
) -> Scores:
    """Score each reconstruction; every value is an array (N,).

    - `bce`: mean binary cross-entropy of the pixels in nats, clipped as Keras clips it
    - `floor`: mean entropy of the pixels in nats, the lowest `bce` that any reconstruction reaches
    - `excess`: `bce - floor`, a mean Kullback-Leibler divergence: never negative, 0 if perfect
      (the clip leaves 1e-7 on pixels that are exactly 0 or 1)
    - `mse`: mean squared error, of gray values in [0, 1]
    - `psnr`: 10 log10(1 / mse) in dB, at most 100 (so also where the mse is 0)
    - `ssim`: structural similarity in [-1, 1], 1 if equal (see `structural_similarity`); it costs
      more than all others together, and `ssim=False` leaves it out

    Raises ValueError if the arrays do not fit each other or the description above.
    """
    _check(images, reconstructions)
    names = SCORES if ssim else [name for name in SCORES if name != "ssim"]
    scores = {name: np.empty(len(images)) for name in names}
    for part in _chunks(images):
        levels = images[part]
        original = _GRAY[levels]
        scores["floor"][part] = _mean(_ENTROPY[levels])
        scores["bce"][part] = _bce(original, reconstructions[part])
        reconstruction = reconstructions[part].astype(np.float64)
        scores["mse"][part] = _mean((original - reconstruction) ** 2)
        if ssim:
            scores["ssim"][part] = structural_similarity(original, reconstruction)
    # Clipped probabilities are probabilities: only rounding could fall below the floor.
    scores["excess"][:] = np.maximum(scores["bce"] - scores["floor"], 0)
    scores["psnr"][:] = -10 * np.log10(np.maximum(scores["mse"], 10 ** (-PSNR_CAP / 10)))
    return scores


def entropy_floor(images: Images) -> Floats:
    """Mean entropy of each image's pixels in nats, (N,): no reconstruction has a lower BCE.

    A gray value p costs H(p) = -p ln p - (1-p) ln(1-p) even if it is met exactly: 0 for black and
    white, ln 2 for middle gray.
    """
    _check(images)
    floor = np.empty(len(images))
    for part in _chunks(images):
        floor[part] = _mean(_ENTROPY[images[part]])
    return floor


def mean_image(images: Images) -> NDArray[np.float32]:
    """The mean of `images`, (H, W, C) in [0, 1]; sums are integers, so the order plays no part.

    Its scores are the baseline to beat without looking at an image:
    `image_scores(test, np.broadcast_to(mean_image(train), test.shape))`.
    """
    _check(images)
    if not len(images):
        raise ValueError("the mean image of no images is not defined")
    total = np.zeros(images.shape[1:], np.uint64)
    for part in _chunks(images):
        total += images[part].sum(axis=0, dtype=np.uint32)
    return (total / (255 * len(images))).astype(np.float32)


def summarize(
    scores: Mapping[str, Floats], select: NDArray[np.bool_] | None = None
) -> dict[str, float]:
    """The mean of each score over the images, or over those where `select` (N,) is true.

    `psnr` is the mean of the images' PSNR, not the PSNR of the mean error, which is lower.
    Raises ValueError if no image is left.
    """
    chosen = {name: values if select is None else values[select] for name, values in scores.items()}
    if any(not len(values) for values in chosen.values()):
        raise ValueError("the mean score of no images is not defined")
    return {name: float(values.mean()) for name, values in chosen.items()}


def per_class(
    scores: Mapping[str, Floats], labels: NDArray[np.integer], classes: Sequence[str]
) -> dict[str, dict[str, float]]:
    """The mean scores of each class, by name; `labels` (N,) index `classes`.

    A class without an image is left out: it has no mean.
    """
    return {
        name: summarize(scores, labels == index)
        for index, name in enumerate(classes)
        if np.any(labels == index)
    }


def auroc(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve: the chance that a positive's score is above a negative's.

    Mann and Whitney, "On a test of whether one of two random variables is stochastically larger
    than the other", 1947: U over the number of pairs; equal scores count half. Raises ValueError
    if one of both kinds is missing.
    """
    order = np.sort(scores)
    # the mean of the first and the last place that a score could take among all
    rank = (
        np.searchsorted(order, scores, "left") + np.searchsorted(order, scores, "right") + 1
    ) / 2
    positives = int(positive.sum())
    pairs = positives * (len(scores) - positives)
    if not pairs:
        raise ValueError("AUROC needs positives and negatives")
    return float((rank[positive].sum() - positives * (positives + 1) / 2) / pairs)


def confusion(
    truth: NDArray[np.integer], found: NDArray[np.integer], classes: int
) -> NDArray[np.float64]:
    """(N, classes, classes) from class maps (N, H, W): pixels of class i that were taken for j."""
    number = len(truth)
    pairs = truth.astype(np.int64) * classes + found
    pairs += np.arange(number)[:, None, None] * classes**2
    counts = np.bincount(pairs.reshape(-1), minlength=number * classes**2)
    return counts.reshape(number, classes, classes).astype(np.float64)


def intersection_over_union(confusion: Floats) -> Floats:
    """For each class of a confusion matrix: pixels both true and found, over those that are either.

    NaN for a class that is neither. Everingham et al., "The Pascal visual object classes (VOC)
    challenge", IJCV 88, 2010.
    """
    both = np.diag(confusion)
    either = confusion.sum(axis=0) + confusion.sum(axis=1) - both
    return np.asarray(np.divide(both, either, out=np.full(len(both), np.nan), where=either > 0))


def structural_similarity(first: Floats, second: Floats) -> Floats:
    """SSIM of pairs of images (N, H, W, C) in [0, 1]: the mean over windows and channels, (N,).

    Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural
    similarity", IEEE TIP 13(4), 2004: Gaussian window of 11x11, sigma 1.5, K1 0.01, K2 0.03, only
    windows that lie wholly inside. In images of fewer than 11 pixels along a side, the window
    shrinks to the largest odd size that fits.
    """
    c1, c2 = 0.01**2, 0.03**2
    window = _window(min(*first.shape[1:3]))
    channels_first = (np.moveaxis(a, -1, 1) for a in (first, second))
    x, y = (np.ascontiguousarray(a) for a in channels_first)
    mean_x, mean_y, power, product = (_blur(a, window) for a in (x, y, x * x + y * y, x * y))
    means = mean_x * mean_y
    mean_powers = mean_x * mean_x + mean_y * mean_y
    luminance = (2 * means + c1) / (mean_powers + c1)
    structure = (2 * (product - means) + c2) / (power - mean_powers + c2)
    return _mean(luminance * structure)


def _window(room: int) -> Floats:
    """The Gaussian window along one axis: 11 weights, or the largest odd count within `room`."""
    half = min(5, (room - 1) // 2)
    weights = np.exp(-0.5 * (np.arange(-half, half + 1) / 1.5) ** 2)
    return np.asarray(weights / weights.sum())


def _blur(maps: Floats, window: Floats, block: int = 32) -> Floats:
    """The window's weighted means over the last two axes, which come out swapped.

    Each axis is a product with a banded matrix, which BLAS does faster than NumPy adds shifted
    slices; in blocks, so that the band stays narrow in large images.
    """
    extra = len(window) - 1
    band = np.zeros((block + extra, block))
    for column in range(block):
        band[column : column + len(window), column] = window
    for _ in range(2):
        starts = range(0, maps.shape[-1] - extra, block)
        parts = (maps[..., start : start + block + extra] for start in starts)
        blocks = [p @ band[: p.shape[-1], : p.shape[-1] - extra] for p in parts]
        maps = np.concatenate(blocks, axis=-1).swapaxes(-1, -2)
    return maps


def _bce(original: Floats, reconstruction: NDArray[np.float32]) -> Floats:
    low, high = np.float32(EPSILON), np.float32(1 - EPSILON)
    q = np.clip(reconstruction, low, high).astype(np.float64)
    # In float64 `1 - q` of a float32 is exact: nothing cancels, and log1p is not needed.
    log_not = np.log(1 - q)
    return -_mean(log_not + original * (np.log(q) - log_not))


def _mean(values: Floats) -> Floats:
    return np.asarray(values.reshape(len(values), -1).mean(axis=1))


def _chunks(images: Images) -> Iterator[slice]:
    step = max(1, CHUNK // max(1, int(np.prod(images.shape[1:]))))
    for start in range(0, len(images), step):
        yield slice(start, start + step)


def _check(images: Images, reconstructions: NDArray[np.float32] | None = None) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape[1:]:
        raise ValueError(
            f"images must be uint8 (N, H, W, C). Received: {images.dtype} {images.shape}"
        )
    if reconstructions is None:
        return
    if reconstructions.dtype != np.float32 or reconstructions.shape != images.shape:
        raise ValueError(
            f"reconstructions must be float32 {images.shape}, as the images are. "
            f"Received: {reconstructions.dtype} {reconstructions.shape}"
        )
