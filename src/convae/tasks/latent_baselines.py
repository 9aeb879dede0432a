"""Baselines of the task generate: latent variable models that need no training."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from convae.arrays import Floats, Images
from convae.tasks import metrics
from convae.tasks.baselines import Baseline, principal_axes


@dataclass(frozen=True)
class LatentBaseline(Baseline):
    """A baseline that is a likelihood.LatentModel."""

    code_size: int
    encode: Callable[[Images], tuple[Floats, Floats]]
    decode: Callable[[Floats], Floats]
    margin: float = metrics.EPSILON


def mean_image(images: Images) -> LatentBaseline:
    """Return the mean of `images` for every image; its code has no numbers."""
    mean = metrics.mean_image(images)

    def encode(inputs: Images) -> tuple[Floats, Floats]:
        empty = np.zeros((len(inputs), 0), np.float32)
        return empty, empty

    def decode(codes: Floats | Images) -> Floats:
        return np.broadcast_to(mean, (len(codes), *mean.shape))

    description = "the mean of the training images"
    return LatentBaseline("mean image", description, decode, 0, encode, decode)


def gaussian_pca(images: Images, components: int) -> LatentBaseline:
    """Return probabilistic PCA of `images`: PCA whose codes have a normal distribution.

    Tipping and Bishop, "Probabilistic principal component analysis", Journal of the Royal
    Statistical Society B 61, 1999. What it decodes is clipped to [0, 1].
    """
    mean, variances, axes = principal_axes(images)
    kept, axes = variances[-components:], axes[:, -components:]
    noise = variances[:-components].mean()  # in each direction that is left out
    scale = np.sqrt(kept - noise)
    shape, pixels = images.shape[1:], prod(images.shape[1:])

    def encode(inputs: Images) -> tuple[Floats, Floats]:
        flat = inputs.reshape(len(inputs), pixels) / np.float32(255) - mean
        codes = (flat @ axes) * (scale / kept)
        return codes, np.broadcast_to(np.log(noise / kept), codes.shape)

    def decode(codes: Floats) -> Floats:
        flat = ((codes * scale) @ axes.T + mean).clip(0, 1)
        return np.asarray(flat.reshape(-1, *shape), np.float32)

    def outputs(inputs: Images) -> Floats:
        return decode(encode(inputs)[0])

    description = f"PCA with {components} components and a normal distribution of their values"
    return LatentBaseline("PCA", description, outputs, components, encode, decode)
