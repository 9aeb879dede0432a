"""Likelihoods of images under latent variable models. NumPy only.

A latent variable model has codes with a standard normal prior, an encoder that gives the mean and
the log-variance of a normal distribution q(code | image), and a decoder that gives the probability
p of white for each pixel. An image's log-likelihood given p counts its gray values as such
probabilities: its negative is the binary cross-entropy, summed over the pixels, in nats.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log, prod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from convae.arrays import Floats, Images
from convae.console import progress_bar
from convae.tasks.metrics import EPSILON, Scores
from convae.tasks.task import to_bytes

BATCH = 1000  # codes that are decoded at once
ACTIVE = 0.01  # variance of the mean over images: Burda et al. 2016, section 5.2


class LatentModel(Protocol):
    """A latent variable model, for images of one shape (H, W, C)."""

    code_size: int  # D: numbers in a code
    margin: float  # probabilities are clipped to [margin, 1 - margin]

    def encode(self, inputs: Images) -> Sequence[Floats]:
        """Return the mean and the log-variance of the codes of images, (N, D) each."""

    def decode(self, codes: Floats) -> Floats:
        """Return the images of codes (N, D) as probabilities (N, H, W, C)."""


@dataclass(frozen=True)
class Bound:
    """A lower bound of the log-likelihood, the mean over images."""

    nats: float
    error: float  # standard error of the mean
    images: int
    samples: int  # codes drawn for each image


def log_likelihood(
    images: Images, probabilities: Floats, margin: float = EPSILON
) -> NDArray[np.float64]:
    """Return log p(image | code) (N,) in nats; the arrays (N, H, W, C) broadcast.

    Probabilities are clipped to [margin, 1 - margin].
    """
    p = np.clip(probabilities, np.float32(margin), np.float32(1 - margin))
    log_not = np.log1p(-p)
    gray = images / np.float32(255)
    values = gray * (np.log(p) - log_not) + log_not
    return np.asarray(values.sum(axis=(1, 2, 3), dtype=np.float64))


def kl_divergence(mean: Floats, log_variance: Floats) -> NDArray[np.float64]:
    """Return KL(q || N(0, 1)) (N,) in nats, for means and log-variances (N, D).

    Kingma and Welling, "Auto-encoding variational Bayes", ICLR 2014, appendix B.
    """
    m, v = (values.astype(np.float64) for values in (mean, log_variance))
    return np.asarray((np.square(m) + np.exp(v) - 1 - v).sum(axis=1) / 2)


def elbo(model: LatentModel, inputs: Images, targets: Images, noise: Floats) -> Scores:
    """Return the evidence lower bound of each target, with one code each, and its two terms.

    `noise` is standard normal; its values (N, ...) are those of the codes (N, D).
    """
    mean, log_variance = model.encode(inputs)
    codes = np.asarray(mean + np.exp(log_variance / 2) * noise.reshape(mean.shape), np.float32)
    reconstruction = -log_likelihood(targets, model.decode(codes), model.margin)
    kl = kl_divergence(mean, log_variance)
    bound = -reconstruction - kl
    return {
        "elbo": bound,
        "bits_per_dim": -bound / (prod(targets.shape[1:]) * log(2)),
        "reconstruction": reconstruction,
        "kl": kl,
    }


def importance_weighted_bound(
    model: LatentModel, images: Images, samples: int, seed: int
) -> NDArray[np.float64]:
    """Return the importance-weighted lower bound (N,) of log p(image) in nats.

    Burda, Grosse and Salakhutdinov, "Importance weighted autoencoders", ICLR 2016, equation 8: the
    ELBO is that of one sample; with more samples it rises towards log p(image).
    """
    generator = np.random.default_rng([seed, samples])
    means, log_variances = model.encode(images)
    bounds = np.empty(len(images))
    pairs = progress_bar(zip(means, log_variances, strict=True), total=len(images), desc="bound")
    for index, (mean, log_variance) in enumerate(pairs):
        noise = generator.standard_normal((samples, len(mean)), np.float32)
        codes = mean + np.exp(log_variance / 2) * noise
        image = images[index : index + 1]
        parts = [
            log_likelihood(image, model.decode(part), model.margin) for part in _batches(codes)
        ]
        # log p(code) - log q(code | image), without the constants, which are equal
        ratio = np.square(noise) - np.square(codes) + log_variance
        weights = np.concatenate(parts) + ratio.sum(axis=1, dtype=np.float64) / 2
        largest = weights.max()
        bounds[index] = largest + log(np.exp(weights - largest).mean())
    return bounds


def mean_bound(values: NDArray[np.float64], samples: int) -> Bound:
    """Return the mean of the bounds (N,) of images with its standard error."""
    error = values.std() / max(len(values), 1) ** 0.5
    return Bound(float(values.mean()), float(error), len(values), samples)


def active_units(mean: Floats) -> int:
    """Return how many numbers of a code depend on the image, from means (N, D).

    Burda et al. 2016, section 5.2: those whose mean has a variance above 0.01 over the images.
    """
    return int((mean.var(axis=0, dtype=np.float64) > ACTIVE).sum())


def sample_codes(count: int, size: int, seed: int) -> Floats:
    """Return codes (count, size) of the prior; a smaller count gives the first of them."""
    return np.random.default_rng(seed).standard_normal((count, size), np.float32)


def samples(model: LatentModel, count: int, seed: int) -> Images:
    """Return `count` images of random codes, uint8 (count, H, W, C)."""
    codes = sample_codes(count, model.code_size, seed)
    return np.concatenate([to_bytes(model.decode(part)) for part in _batches(codes)])


def binarized(images: Images, generator: np.random.Generator) -> Images:
    """Return `images` with pixels of 0 and 255: white with the probability of the gray value.

    Salakhutdinov and Murray, "On the quantitative analysis of deep belief networks", ICML 2008.
    """
    white = generator.random(images.shape, np.float32) * np.float32(255) < images
    return np.asarray(white * np.uint8(255))


def _batches(codes: Floats) -> Iterator[Floats]:
    for start in range(0, len(codes), BATCH):
        yield codes[start : start + BATCH]
