import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from convae.arrays import Floats, Images
from convae.tasks import likelihood
from convae.tasks.latent_baselines import gaussian_pca, mean_image
from convae.tasks.metrics import EPSILON
from tests.conftest import SAMPLE

RNG = np.random.default_rng(0)


@dataclass
class Linear:
    """A latent variable model of one number, whose likelihood can be integrated numerically."""

    code_size: int = 1
    margin: float = EPSILON
    spread: float = 0.3  # log-variance of the encoder

    def encode(self, inputs: Images) -> tuple[Floats, Floats]:
        mean = inputs.reshape(len(inputs), -1).mean(axis=1, keepdims=True) / np.float32(255) - 0.5
        return mean.astype(np.float32), np.full_like(mean, self.spread)

    def decode(self, codes: Floats) -> Floats:
        slopes = np.linspace(-2, 2, 6, dtype=np.float32)
        p = 1 / (1 + np.exp(-(codes * slopes + 0.3)))
        return np.asarray(p.reshape(-1, 2, 3, 1), np.float32)


BITS = np.array([0, 255, 255, 0, 0, 255], np.uint8).reshape(1, 2, 3, 1)


def exact(model: Linear, images: Images) -> float:
    codes = np.linspace(-9, 9, 20_001, dtype=np.float64)[:, None]
    prior = np.exp(-np.square(codes[:, 0]) / 2) / math.sqrt(2 * math.pi)
    p = likelihood.log_likelihood(images, model.decode(codes.astype(np.float32)))
    return math.log((np.exp(p) * prior).sum() * (codes[1, 0] - codes[0, 0]))


@given(
    arrays(np.float32, (4, 3), elements=st.floats(-3, 3, width=32)),
    arrays(np.float32, (4, 3), elements=st.floats(-3, 2, width=32)),
)
def test_kl_divergence_is_the_integral(mean: Floats, log_variance: Floats) -> None:
    found = likelihood.kl_divergence(mean, log_variance)
    x = np.linspace(-25, 25, 4001)
    total = np.zeros(4)
    for m, v in zip(mean.T.astype(float), log_variance.T.astype(float), strict=True):
        log_q = -0.5 * ((x - m[:, None]) ** 2 / np.exp(v)[:, None] + v[:, None])
        q = np.exp(log_q) / math.sqrt(2 * math.pi)
        total += (q * (log_q + x**2 / 2)).sum(axis=1) * (x[1] - x[0])
    np.testing.assert_allclose(found, total, rtol=1e-6, atol=1e-6)
    zeros = np.zeros((1, 5), np.float32)
    assert likelihood.kl_divergence(zeros, zeros) == 0


def test_log_likelihood_is_minus_the_cross_entropy_of_metrics() -> None:
    from convae.tasks.metrics import image_scores

    images = RNG.integers(0, 256, (7, 5, 4, 3), np.uint8)
    outputs = RNG.random((7, 5, 4, 3), np.float32)
    outputs[0] = images[0] / 255  # zeros and ones are clipped
    expected = image_scores(images, outputs, ssim=False)["bce"] * 60
    np.testing.assert_allclose(-likelihood.log_likelihood(images, outputs), expected, rtol=1e-5)


def test_the_bounds_rise_to_the_log_likelihood() -> None:
    model, images = Linear(), np.repeat(BITS, 3000, axis=0)
    truth = exact(model, BITS)
    noise = RNG.standard_normal((3000, 1), np.float32)
    elbo = likelihood.elbo(model, images, images, noise)["elbo"].mean()
    one = likelihood.importance_weighted_bound(model, images, 1, seed=0).mean()
    ten = likelihood.importance_weighted_bound(model, images[:600], 10, seed=0).mean()
    many = likelihood.importance_weighted_bound(model, images[:20], 2500, seed=0)
    assert elbo == pytest.approx(one, abs=0.06)
    assert elbo < ten < truth + 0.02
    assert many.mean() == pytest.approx(truth, abs=0.02)
    assert likelihood.mean_bound(many, 2500).error < 0.02


def test_bits_per_dimension_are_the_bound_over_the_pixels() -> None:
    found = likelihood.elbo(Linear(), BITS, BITS, np.zeros((1, 1), np.float32))
    np.testing.assert_allclose(found["elbo"], -found["reconstruction"] - found["kl"])
    np.testing.assert_allclose(found["bits_per_dim"] * 6 * math.log(2), -found["elbo"])


def test_active_units_are_those_that_vary() -> None:
    mean = RNG.normal(0, [1, 0.2, 0.05, 0], (500, 4)).astype(np.float32)
    assert likelihood.active_units(mean) == 2


def test_samples_follow_from_the_seed_and_begin_alike() -> None:
    first, more = (likelihood.samples(Linear(), count, seed=3) for count in (5, 1500))
    np.testing.assert_array_equal(more[:5], first)
    assert more.shape == (1500, 2, 3, 1)
    assert more.dtype == np.uint8
    assert not np.array_equal(likelihood.samples(Linear(), 5, seed=4), first)


def test_binarized_pixels_have_the_gray_value_as_their_probability() -> None:
    gray = np.tile(np.array([0, 51, 204, 255], np.uint8), (4000, 1)).reshape(4000, 2, 2, 1)
    bits = likelihood.binarized(gray, np.random.default_rng(0))
    assert set(np.unique(bits)) == {0, 255}
    means = bits.mean(axis=0).reshape(-1) / 255
    np.testing.assert_allclose(means, [0, 0.2, 0.8, 1], atol=0.02)


def test_the_baselines_are_latent_models() -> None:
    with np.load(SAMPLE) as file:
        digits = file["x_train"][:1000, ..., None]
    pca, mean = gaussian_pca(digits, 12), mean_image(digits)
    codes, log_variance = pca.encode(digits)
    assert codes.shape == log_variance.shape == (1000, 12)
    # Probabilistic PCA: the mean of the posteriors' second moments is the prior's, which is 1.
    moments = (np.square(codes) + np.exp(log_variance)).mean(axis=0)
    np.testing.assert_allclose(moments, 1, atol=0.01)
    assert np.square(pca.outputs(digits) - digits / 255).mean() < 0.04
    assert mean.encode(digits)[0].shape == (1000, 0)
    np.testing.assert_allclose(mean.decode(codes)[3], digits.mean(axis=0) / 255, atol=1e-5)
    assert likelihood.kl_divergence(*mean.encode(digits)).max() == 0
