"""Baselines: simple alternatives to a model that are evaluated beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from convae.arrays import Floats, Images
from convae.tasks import metrics

if TYPE_CHECKING:
    from convae.config.schema import Config

Filter = Callable[[Images], Floats]  # from inputs uint8 (N, H, W, C) to outputs in [0, 1]
PCA_PIXELS = 4096  # values an image may have for its covariance matrix to stay below 128 MiB


@dataclass(frozen=True)
class Baseline:
    """A simple alternative to a model."""

    label: str  # in figures
    description: str
    outputs: Filter


def mean_image_baseline(images: Images) -> Baseline:
    """Return the baseline whose output is always the mean of `images`."""
    mean = metrics.mean_image(images)
    return Baseline(
        "mean image",
        "the mean of the training images",
        lambda inputs: np.broadcast_to(mean, (len(inputs), *mean.shape)),
    )


def code_size(config: Config) -> int:
    """Return how many numbers of an image reach the decoder: the code and skip connections."""
    summary = config.model_summary
    skips = {layer.skip for layer in config.model.decoder if layer.skip}
    skipped = sum(prod(row.output_shape) for row in summary.encoder if row.name in skips)
    return skipped + summary.code_size


def principal_components(images: Images, components: int) -> Baseline:
    """Return PCA with that many components, the best linear code of that size, of `images`."""
    pixels = prod(images.shape[1:])
    mean = metrics.mean_image(images).reshape(1, pixels)
    covariance = np.zeros((pixels, pixels))
    for start in range(0, len(images), 2000):
        flat = images[start : start + 2000].reshape(-1, pixels) / np.float32(255) - mean
        covariance += flat.T @ flat
    vectors = np.linalg.eigh(covariance)[1][:, -components:].astype(np.float32)

    def outputs(inputs: Images) -> Floats:
        flat = inputs.reshape(len(inputs), pixels) / np.float32(255) - mean
        return ((flat @ vectors) @ vectors.T + mean).clip(0, 1).reshape(inputs.shape)

    return Baseline(
        "PCA", f"PCA with {components} components (fitted on the training images)", outputs
    )


def interpolation(name: str, size: tuple[int, int]) -> Baseline:
    """Return the interpolation `name` of Pillow ("nearest", "bicubic") to (height, width)."""
    method = Image.Resampling[name.upper()]

    def outputs(inputs: Images) -> Floats:
        planes = np.moveaxis(inputs, 3, 1).astype(np.float32) / 255
        resized = [
            [np.asarray(Image.fromarray(plane).resize(size[::-1], method)) for plane in image]
            for image in planes
        ]
        return np.moveaxis(np.asarray(resized, np.float32), 1, 3).clip(0, 1)

    return Baseline(name, f"{name} interpolation", outputs)


def tuned_filters(inputs: Images, targets: Images) -> dict[str, Baseline]:
    """Return denoising filters, each at the strength of the highest PSNR on these examples.

    Empty without scikit-image: pip install 'convae[filters]'.
    """
    try:
        families = _filters()
    except ImportError:
        return {}
    found = {}
    for name, label, parameter, strengths, make in families:

        def psnr(strength: float, make: Callable[[float], Filter] = make) -> float:
            outputs = make(strength)(inputs)
            return float(metrics.image_scores(targets, outputs, ssim=False)["psnr"].mean())

        best = max(strengths, key=psnr)
        found[name] = Baseline(
            label,
            f"{label} of {parameter} {best:g} (the best of {len(strengths)} on validation images)",
            make(best),
        )
    return found


def _filters() -> Iterable[tuple[str, str, str, list[float], Callable[[float], Filter]]]:
    """Return (name, label, parameter, strengths to try, strength -> filter) of each filter."""
    from scipy import ndimage
    from skimage.restoration import denoise_tv_chambolle

    def median(size: float) -> Filter:
        window = (1, int(size), int(size), 1)
        return lambda inputs: ndimage.median_filter(to_floats(inputs), window)

    def gaussian(sigma: float) -> Filter:
        return lambda inputs: ndimage.gaussian_filter(to_floats(inputs), (0, sigma, sigma, 0))

    def total_variation(weight: float) -> Filter:
        def outputs(inputs: Images) -> Floats:
            images = (
                denoise_tv_chambolle(image, weight, channel_axis=-1) for image in to_floats(inputs)
            )
            return np.asarray(np.stack(list(images)).clip(0, 1), np.float32)

        return outputs

    weights = [0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8]
    return [
        ("median", "median filter", "size", [3, 5, 7], median),
        ("gaussian", "Gaussian filter", "sigma", [0.6, 0.8, 1, 1.2, 1.5, 2], gaussian),
        # Chambolle, "An algorithm for total variation minimization and applications", 2004.
        ("total_variation", "total variation filter", "weight", weights, total_variation),
    ]


def to_floats(images: Images) -> Floats:
    """Return uint8 images as float32 in [0, 1]."""
    return np.asarray(images / np.float32(255))
