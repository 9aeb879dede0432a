"""Metrics of images, segmentations and anomaly scores. NumPy only.

Images are uint8 (N, H, W, C), read as gray values x/255; reconstructions are float32 of the same
shape in [0, 1]. Everything is computed in float64, in chunks that fit the processor's cache, so
memory does not grow with N and the images may be memory-mapped.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from convae.arrays import Images

Floats = NDArray[np.float64]
Scores = dict[str, Floats]

# Each metric's label, and whether higher or lower is better; of the floor, neither.
METRICS: dict[str, tuple[str, Literal["higher", "lower", ""]]] = {
    "bce": ("binary cross-entropy (nats per pixel)", "lower"),
    "floor": ("entropy floor (nats per pixel)", ""),
    "excess": ("excess over the entropy floor (nats per pixel)", "lower"),
    "mse": ("mean squared error (gray scale 0 to 1)", "lower"),
    "psnr": ("PSNR (dB)", "higher"),
    "ssim": ("SSIM (1 is equal)", "higher"),
    "iou": ("intersection over union (1 is perfect)", "higher"),
    "accuracy": ("share of pixels that are right", "higher"),
    "auroc": ("AUROC (1 is perfect, 0.5 chance)", "higher"),
    "elbo": ("evidence lower bound (nats per image)", "higher"),
    "bits_per_dim": ("negative ELBO (bits per dimension)", "lower"),
    "reconstruction": ("cross-entropy (nats per image)", "lower"),
    "kl": ("KL divergence of the code (nats per image)", ""),
}
SCORES = ("bce", "floor", "excess", "mse", "psnr", "ssim")
EPSILON = 1e-7  # Keras' clip of probabilities; it is applied in float32, as Keras does
PSNR_CAP = 100.0  # dB: an RMS error of 1e-5, far below half a gray level (0.002); JSON has no inf
CHUNK = 1 << 16  # values: a dozen float64 arrays of this size fit a core's share of the cache

_GRAY = np.arange(256) / 255
_ENTROPY = -(_GRAY * np.log(_GRAY, where=_GRAY > 0, out=np.zeros(256)))
_ENTROPY += _ENTROPY[::-1]  # 1 - x/255 is the gray level mirrored


def is_higher_better(metric: str) -> bool:
    """Return whether a higher value of `metric`, a key of METRICS, is better."""
    return METRICS[metric][1] == "higher"


def image_scores(
    images: Images, reconstructions: NDArray[np.float32], *, ssim: bool = True
) -> Scores:
    """Return the metrics of each reconstruction, arrays (N,).

    - `bce`: mean binary cross-entropy of the pixels in nats, clipped as Keras clips it
    - `floor`: mean entropy of the pixels in nats, the lowest `bce` of any reconstruction
    - `excess`: `bce - floor`, a mean Kullback-Leibler divergence: never negative, 0 if perfect
      (up to 1e-7 on pixels that are exactly 0 or 1, because of the clip)
    - `mse`: mean squared error of gray values in [0, 1]
    - `psnr`: 10 log10(1 / mse) in dB, at most 100
    - `ssim`: structural similarity in [-1, 1], 1 if equal, see `structural_similarity`. It takes
      more time than all others together; `ssim=False` leaves it out.

    Raises:
        ValueError: If dtypes or shapes are wrong.
    """
    _check(images, reconstructions)
    scores = {name: np.empty(len(images)) for name in SCORES if ssim or name != "ssim"}
    for chunk in _chunks(images):
        levels, outputs = images[chunk], reconstructions[chunk]
        original = _GRAY[levels]
        scores["floor"][chunk] = _mean(_ENTROPY[levels])
        q = np.clip(outputs, np.float32(EPSILON), np.float32(1 - EPSILON)).astype(np.float64)
        # In float64 `1 - q` of a float32 is exact: nothing cancels, and log1p is not needed.
        log_not = np.log(1 - q)
        scores["bce"][chunk] = -_mean(log_not + original * (np.log(q) - log_not))
        reconstruction = outputs.astype(np.float64)
        scores["mse"][chunk] = _mean((original - reconstruction) ** 2)
        if ssim:
            scores["ssim"][chunk] = structural_similarity(original, reconstruction)
    # Clipped probabilities are probabilities: only rounding could fall below the floor.
    scores["excess"][:] = np.maximum(scores["bce"] - scores["floor"], 0)
    scores["psnr"][:] = -10 * np.log10(np.maximum(scores["mse"], 10 ** (-PSNR_CAP / 10)))
    return scores


def mean_image(images: Images) -> NDArray[np.float32]:
    """Return the mean of `images`, (H, W, C) in [0, 1]; integer sums make the order irrelevant."""
    _check(images)
    if not len(images):
        raise ValueError("the mean image of no images is not defined")
    total = np.zeros(images.shape[1:], np.uint64)
    for chunk in _chunks(images):
        total += images[chunk].sum(axis=0, dtype=np.uint32)
    return (total / (255 * len(images))).astype(np.float32)


def summarize(
    scores: Mapping[str, Floats], select: NDArray[np.bool_] | None = None
) -> dict[str, float]:
    """Return the mean of each metric over the images, or over those where `select` (N,) is true.

    `psnr` is the mean of the images' PSNR, not the PSNR of the mean error, which is lower.

    Raises:
        ValueError: If no image is left.
    """
    chosen = {name: values if select is None else values[select] for name, values in scores.items()}
    if any(not len(values) for values in chosen.values()):
        raise ValueError("the mean score of no images is not defined")
    return {name: float(values.mean()) for name, values in chosen.items()}


def per_class(
    scores: Mapping[str, Floats], labels: NDArray[np.integer], classes: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return the mean metrics of each class that has an image; `labels` (N,) index `classes`."""
    return {
        name: summarize(scores, labels == index)
        for index, name in enumerate(classes)
        if np.any(labels == index)
    }


def auroc(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve: the probability that a positive's score is higher.

    It is U of Mann and Whitney, "On a test of whether one of two random variables is
    stochastically larger than the other", 1947, over the number of pairs; equal scores count half.

    Raises:
        ValueError: If there are no positives or no negatives.
    """
    order = np.sort(scores)
    first, last = (np.searchsorted(order, scores, side) for side in ("left", "right"))
    rank = (first + last + 1) / 2  # equal scores get the mean of their ranks
    positives = int(positive.sum())
    pairs = positives * (len(scores) - positives)
    if not pairs:
        raise ValueError("AUROC needs positives and negatives")
    return float((rank[positive].sum() - positives * (positives + 1) / 2) / pairs)


def confusion(truth: NDArray[np.integer], predicted: NDArray[np.integer], classes: int) -> Floats:
    """Return the numbers of pixels of class i that are predicted as j, (N, classes, classes).

    The class maps are (N, H, W).
    """
    number = len(truth)
    pairs = truth.astype(np.int64) * classes + predicted
    pairs += np.arange(number)[:, None, None] * classes**2
    counts = np.bincount(pairs.reshape(-1), minlength=number * classes**2)
    return counts.reshape(number, classes, classes).astype(np.float64)


def intersection_over_union(confusion: Floats) -> Floats:
    """Return the IoU of each class of a confusion matrix; NaN for a class without a pixel.

    It is the number of pixels both of the class and predicted as it, over those that are either:
    Everingham et al., "The Pascal visual object classes (VOC) challenge", IJCV 88, 2010.
    """
    both = np.diag(confusion)
    either = confusion.sum(axis=0) + confusion.sum(axis=1) - both
    return np.asarray(np.divide(both, either, out=np.full(len(both), np.nan), where=either > 0))


def structural_similarity(first: Floats, second: Floats) -> Floats:
    """Return the SSIM (N,) of pairs of images (N, H, W, C) in [0, 1].

    Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural
    similarity", IEEE TIP 13(4), 2004: the mean over channels and Gaussian windows of 11x11 inside
    the image, sigma 1.5, K1 0.01, K2 0.03. In smaller images the window has the largest odd size
    that fits.
    """
    c1, c2 = 0.01**2, 0.03**2
    half = min(5, (min(*first.shape[1:3]) - 1) // 2)
    window = np.exp(-0.5 * (np.arange(-half, half + 1) / 1.5) ** 2)
    window /= window.sum()
    x, y = (np.ascontiguousarray(np.moveaxis(a, -1, 1)) for a in (first, second))
    mean_x, mean_y, power, product = (_blur(a, window) for a in (x, y, x * x + y * y, x * y))
    means = mean_x * mean_y
    mean_powers = mean_x * mean_x + mean_y * mean_y
    luminance = (2 * means + c1) / (mean_powers + c1)
    structure = (2 * (product - means) + c2) / (power - mean_powers + c2)
    return _mean(luminance * structure)


def _blur(maps: Floats, window: Floats, block: int = 32) -> Floats:
    """Return the weighted means of all windows over the last two axes.

    Each axis is a product with a banded matrix, which is faster than adding shifted slices; blocks
    keep the band narrow in large images.
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
    expected = np.dtype(np.float32), images.shape
    if reconstructions is not None and (reconstructions.dtype, reconstructions.shape) != expected:
        raise ValueError(
            f"reconstructions must be float32 {images.shape}, as the images are. "
            f"Received: {reconstructions.dtype} {reconstructions.shape}"
        )
