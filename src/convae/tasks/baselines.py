"""Baselines: simple alternatives to a model that are evaluated beside it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np
from PIL import Image

from convae.arrays import Floats, Images
from convae.config.schema import Config
from convae.tasks import metrics

Filter = Callable[[Images], Floats]  # from inputs uint8 (N, H, W, C) to outputs in [0, 1]
PCA_PIXELS = 4096  # values an image may have for its covariance matrix to stay below 128 MiB


@dataclass(frozen=True)
class Baseline:
    """A simple alternative to a model."""

    label: str  # in figures
    description: str
    outputs: Filter


def code_size(config: Config) -> int:
    """Return how many numbers of an image reach the decoder: the code and skip connections."""
    summary = config.model_summary
    skips = {layer.skip for layer in config.model.decoder if layer.skip}
    skipped = sum(prod(row.output_shape) for row in summary.encoder if row.name in skips)
    return skipped + summary.code_size


def principal_axes(images: Images) -> tuple[Floats, Floats, Floats]:
    """Return the mean (1, P) of images of P values in [0, 1], and their variances along its axes.

    The variances (P,) rise; the axes are the columns of the last array (P, P).
    """
    pixels = prod(images.shape[1:])
    mean = metrics.mean_image(images).reshape(1, pixels)
    covariance = np.zeros((pixels, pixels))
    for start in range(0, len(images), 2000):
        flat = images[start : start + 2000].reshape(-1, pixels) / np.float32(255) - mean
        covariance += flat.T @ flat
    variances, axes = np.linalg.eigh(covariance)
    return mean, (variances / len(images)).astype(np.float32), axes.astype(np.float32)


def principal_components(images: Images, components: int) -> Baseline:
    """Return PCA with that many components, the best linear code of that size, of `images`."""
    pixels = prod(images.shape[1:])
    mean, _, axes = principal_axes(images)
    vectors = axes[:, -components:]

    def outputs(inputs: Images) -> Floats:
        flat = inputs.reshape(len(inputs), pixels) / np.float32(255) - mean
        return ((flat @ vectors) @ vectors.T + mean).clip(0, 1).reshape(inputs.shape)

    description = f"PCA with {components} components (fitted on the training images)"
    return Baseline("PCA", description, outputs)


def interpolation(name: str, size: tuple[int, int]) -> Baseline:
    """Return the interpolation `name` of Pillow ("nearest", "bicubic") to (height, width)."""
    method = Image.Resampling[name.upper()]

    def resize(plane: Floats) -> Floats:
        return np.asarray(Image.fromarray(plane).resize(size[::-1], method), np.float32)

    def outputs(inputs: Images) -> Floats:
        planes = np.moveaxis(inputs, 3, 1).astype(np.float32) / 255
        resized = [[resize(plane) for plane in image] for image in planes]
        return np.moveaxis(np.asarray(resized), 1, 3).clip(0, 1)

    return Baseline(name, f"{name} interpolation", outputs)


def tuned_filters(inputs: Images, targets: Images) -> dict[str, Baseline]:
    """Return denoising filters, each at the strength of the highest PSNR on these examples.

    Empty without scikit-image: pip install 'convae[filters]'.
    """
    try:
        from scipy import ndimage
        from skimage.restoration import denoise_tv_chambolle
    except ImportError:
        return {}

    def median(size: float, inputs: Images) -> Any:
        return ndimage.median_filter(to_floats(inputs), (1, int(size), int(size), 1))

    def gaussian(sigma: float, inputs: Images) -> Any:
        return ndimage.gaussian_filter(to_floats(inputs), (0, sigma, sigma, 0))

    def total_variation(weight: float, inputs: Images) -> Any:
        images = to_floats(inputs)
        filtered = [denoise_tv_chambolle(image, weight, channel_axis=-1) for image in images]
        return np.stack(filtered).clip(0, 1).astype(np.float32)

    families: list[tuple[str, Callable[[float, Images], Any], str, list[float]]] = [
        ("median filter", median, "size", [3, 5, 7]),
        ("Gaussian filter", gaussian, "sigma", [0.6, 0.8, 1, 1.2, 1.5, 2]),
        # Chambolle, "An algorithm for total variation minimization and applications", 2004.
        (
            "total variation filter", total_variation,
            "weight", [0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8],
        ),
    ]  # fmt: skip
    found = {}
    for label, denoise, parameter, strengths in families:
        psnr = {}
        for strength in strengths:
            scores = metrics.image_scores(targets, denoise(strength, inputs), ssim=False)
            psnr[strength] = scores["psnr"].mean()
        best = max(psnr, key=psnr.__getitem__)
        found[denoise.__name__] = Baseline(
            label,
            f"{label} of {parameter} {best:g} (the best of {len(psnr)} on validation images)",
            partial(denoise, best),
        )
    return found


def to_floats(images: Images) -> Floats:
    """Return uint8 images as float32 in [0, 1]."""
    return np.asarray(images / np.float32(255))
