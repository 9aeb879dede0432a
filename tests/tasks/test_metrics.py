import os
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from convae.tasks import metrics

Pair = tuple[NDArray[np.uint8], NDArray[np.float32]]

DATA = os.environ.get("CONVAE_DATA")
needs_mnist = pytest.mark.skipif(not DATA, reason="CONVAE_DATA names no full mnist.npz")


def pairs(*shape: int, seed: int = 0, noise: float = 0.1) -> Pair:
    """Smooth images with black, white and gray pixels, and noisy reconstructions of them."""
    rng = np.random.default_rng(seed)
    waves = np.cumsum(rng.normal(0, 0.3, shape), axis=1) + 0.5
    images = (np.clip(waves, 0, 1) * 255).astype(np.uint8)
    blurred = images / 255 + rng.normal(0, noise, shape)
    return images, np.clip(blurred, 0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def mnist() -> dict[str, NDArray[np.uint8]]:
    assert DATA is not None
    with np.load(DATA, allow_pickle=False) as file:
        return {part: file[part][..., None] for part in ("x_train", "x_test")}


small = st.tuples(*(st.integers(1, n) for n in (4, 12, 12)), st.sampled_from([1, 3])).flatmap(
    lambda shape: st.tuples(
        arrays(np.uint8, shape), arrays(np.float32, shape, elements=st.floats(0, 1, width=32))
    )
)


@pytest.mark.parametrize("shape", [(5, 28, 28, 1), (3, 11, 40, 3), (2, 75, 53, 3)])
def test_agrees_with_tensorflow_and_keras(shape: tuple[int, ...]) -> None:
    import keras
    import tensorflow as tf

    images, reconstructions = pairs(*shape)
    reconstructions[:, ::3] = np.round(reconstructions[:, ::3])  # where the clip matters
    original = (images / 255).astype(np.float32)
    scores = metrics.image_scores(images, reconstructions)
    bce = keras.losses.BinaryCrossentropy(reduction=None)(
        original.reshape(shape[0], -1), reconstructions.reshape(shape[0], -1)
    )
    np.testing.assert_allclose(scores["bce"], bce, rtol=1e-5)
    for name in ("psnr", "ssim"):
        expected = getattr(tf.image, name)(original, reconstructions, max_val=1.0)
        np.testing.assert_allclose(scores[name], expected, atol=1e-4)


def test_metrics_equal_their_definitions() -> None:
    images = np.array([[0, 255], [51, 204]], np.uint8).reshape(1, 2, 2, 1)
    reconstructions = np.array([[0.25, 0.5], [0.2, 1]], np.float32).reshape(1, 2, 2, 1)
    scores = metrics.image_scores(images, reconstructions)
    entropy = -(0.2 * np.log(0.2) + 0.8 * np.log(0.8))
    clipped = -0.2 * np.log(1.1920929e-07)  # 1 - 1e-7 as a float32, as in Keras
    bce = (-np.log(0.75) - np.log(0.5) + entropy + clipped) / 4
    assert tuple(scores) == metrics.SCORES
    assert scores["floor"] == pytest.approx(2 * entropy / 4)
    assert scores["bce"] == pytest.approx(bce, rel=1e-6)
    assert scores["excess"] == pytest.approx(bce - 2 * entropy / 4, rel=1e-6)
    assert scores["mse"] == pytest.approx((0.25**2 + 0.5**2 + 0.2**2) / 4)
    assert scores["psnr"] == pytest.approx(10 * np.log10(1 / scores["mse"]))


@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (2, 7, 5, 1), (2, 28, 28, 1), (2, 9, 200, 3)])
def test_a_perfect_reconstruction(shape: tuple[int, ...]) -> None:
    images, _ = pairs(*shape)
    scores = metrics.image_scores(images, (images / 255).astype(np.float32))
    assert np.all(scores["excess"] < 2e-7)  # the clip's share
    assert np.all(scores["mse"] < 1e-14)
    assert np.all(scores["psnr"] == metrics.PSNR_CAP)
    np.testing.assert_allclose(scores["ssim"], 1, atol=1e-6)


def test_ssim_window_by_window() -> None:
    """The definition, with loops: an image wider than one block and one below the window."""
    for shape in [(1, 13, 50, 2), (1, 6, 9, 1)]:
        images, reconstructions = pairs(*shape)
        size = min(11, (min(shape[1:3]) - 1) // 2 * 2 + 1)
        ramp = np.arange(size) - size // 2
        window = np.exp(-(ramp[:, None] ** 2 + ramp**2) / (2 * 1.5**2))
        window /= window.sum()
        values = []
        for i in range(shape[1] - size + 1):
            for j in range(shape[2] - size + 1):
                for c in range(shape[3]):
                    at = (0, slice(i, i + size), slice(j, j + size), c)
                    x, y = images[at] / 255, reconstructions[at].astype(float)
                    mx, my = (window * x).sum(), (window * y).sum()
                    vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
                    cov = (window * (x - mx) * (y - my)).sum()
                    luminance = (2 * mx * my + 1e-4) / (mx**2 + my**2 + 1e-4)
                    values.append(luminance * (2 * cov + 9e-4) / (vx + vy + 9e-4))
        got = metrics.image_scores(images, reconstructions)["ssim"]
        np.testing.assert_allclose(got, np.mean(values), atol=1e-12)


@given(small)
@settings(deadline=None, max_examples=60)
def test_bounds_hold_for_any_images(pair: Pair) -> None:
    images, reconstructions = pair
    scores = metrics.image_scores(images, reconstructions)
    assert all(np.all(np.isfinite(values)) for values in scores.values())
    assert np.all(scores["excess"] >= 0)
    assert np.all(scores["floor"] <= np.log(2) + 1e-12)
    assert np.all(scores["psnr"] <= metrics.PSNR_CAP)
    assert np.all(np.abs(scores["ssim"]) <= 1 + 1e-9)
    # Pinsker: a mean KL of at least twice the mean squared error, so 0 only where all is equal.
    assert np.all(scores["excess"] >= 2 * scores["mse"] - 1e-6)


@given(small, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=30)
def test_each_image_is_scored_by_itself(pair: Pair, random: Any) -> None:
    images, reconstructions = pair
    order = random.sample(range(len(images)), len(images))
    scores = metrics.image_scores(images, reconstructions)
    permuted = metrics.image_scores(images[order], reconstructions[order])
    for name in metrics.SCORES:
        np.testing.assert_allclose(permuted[name], scores[name][order], rtol=1e-12, atol=1e-15)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images, reconstructions = pairs(23, 16, 16, 1)
    whole = metrics.image_scores(images, reconstructions)
    mean = metrics.mean_image(images)
    monkeypatch.setattr(metrics, "CHUNK", 5 * 256)
    parts = metrics.image_scores(images, reconstructions)
    for name in metrics.SCORES:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-12)
    np.testing.assert_array_equal(metrics.mean_image(images), mean)


def test_memory_does_not_grow_with_the_images() -> None:
    images, reconstructions = pairs(3000, 28, 28, 1)
    tracemalloc.start()
    metrics.image_scores(images, reconstructions)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * 2**20  # the images alone would take 18 MiB in float64


def test_mean_image_is_exact_and_a_baseline() -> None:
    images, _ = pairs(300, 8, 8, 3)
    mean = metrics.mean_image(images)
    assert mean.dtype == np.float32
    np.testing.assert_array_equal(mean, (images.sum(0, dtype=int) / (255 * 300)).astype("float32"))
    np.testing.assert_array_equal(metrics.mean_image(images[::-1]), mean)
    assert metrics.mean_image(np.full((7, 2, 2, 1), 255, np.uint8)).tolist() == [[[1.0]] * 2] * 2

    def bce(guess: NDArray[np.float32]) -> float:
        spread = np.broadcast_to(guess, images.shape)
        return metrics.summarize(metrics.image_scores(images, spread))["bce"]

    assert bce(mean) < bce(np.full_like(mean, mean.mean())) < bce(np.zeros_like(mean))


def test_summaries_are_means_of_their_images() -> None:
    images, reconstructions = pairs(40, 12, 12, 1)
    scores = metrics.image_scores(images, reconstructions)
    labels = np.arange(40) % 3
    whole = metrics.summarize(scores)
    assert whole["psnr"] == pytest.approx(scores["psnr"].mean())
    assert whole["bce"] - whole["floor"] == pytest.approx(whole["excess"])
    classes = metrics.per_class(scores, labels, ["cat", "dog", "owl", "unseen"])
    assert list(classes) == ["cat", "dog", "owl"]
    assert classes["dog"] == metrics.summarize(scores, labels == 1)
    assert classes["dog"]["mse"] == pytest.approx(scores["mse"][1::3].mean())
    counts = np.bincount(labels)
    for name in metrics.SCORES:
        weighted = np.average([part[name] for part in classes.values()], weights=counts)
        assert weighted == pytest.approx(whole[name])


def test_a_diverged_model_scores_nan() -> None:
    images, reconstructions = pairs(3, 12, 12, 1)
    reconstructions[1, 0, 0, 0] = np.nan
    scores = metrics.image_scores(images, reconstructions)
    for name in set(metrics.SCORES) - {"floor"}:
        assert np.isnan(scores[name]).tolist() == [False, True, False], name


def test_wrong_shapes_and_dtypes_are_refused() -> None:
    images, reconstructions = pairs(3, 12, 12, 1)
    with pytest.raises(ValueError, match=r"uint8 \(N, H, W, C\). Received: float32"):
        metrics.image_scores(reconstructions, reconstructions)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Received: uint8 \(3, 12, 12\)"):
        metrics.mean_image(images[..., 0])
    with pytest.raises(ValueError, match=r"Received: float32 \(2, 12, 12, 1\)"):
        metrics.image_scores(images, reconstructions[:2])
    with pytest.raises(ValueError, match="no images"):
        metrics.mean_image(images[:0])
    with pytest.raises(ValueError, match="no images"):
        metrics.summarize(metrics.image_scores(images, reconstructions), np.zeros(3, bool))


@needs_mnist
def test_known_values_of_mnist(mnist: dict[str, NDArray[np.uint8]]) -> None:
    train, test = mnist["x_train"], mnist["x_test"]
    mean = metrics.mean_image(train)
    began = time.perf_counter()
    baseline = metrics.image_scores(test, np.broadcast_to(mean, test.shape))
    assert time.perf_counter() - began < 10  # 0.8 s on one core: no image by image loop
    assert metrics.summarize(baseline)["bce"] == pytest.approx(0.2625, abs=5e-5)
    assert baseline["floor"].mean() == pytest.approx(0.05808, abs=5e-6)
    constant = np.broadcast_to(np.float32(test.mean() / 255), test.shape)
    scores = metrics.image_scores(test, constant)
    assert metrics.summarize(scores)["bce"] == pytest.approx(0.391, abs=5e-4)


def test_without_ssim_the_other_scores_are_the_same() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 12, 12, 1), np.uint8)
    reconstructions = np.full(images.shape, 0.4, np.float32)
    scores = metrics.image_scores(images, reconstructions)
    fewer = metrics.image_scores(images, reconstructions, ssim=False)
    assert set(scores) - set(fewer) == {"ssim"}
    for name, values in fewer.items():
        np.testing.assert_array_equal(values, scores[name])


@given(st.data())
def test_auroc_is_the_share_of_pairs_in_order(data: st.DataObject) -> None:
    levels = st.integers(0, 5)  # few, so that there are ties
    above, below = (
        np.array(data.draw(st.lists(levels, min_size=1, max_size=12))) / 4 for _ in range(2)
    )
    expected = np.mean([(p > n) + (p == n) / 2 for p in above for n in below])
    scores = np.concatenate([above, below])
    positive = np.arange(len(scores)) < len(above)
    order = np.array(data.draw(st.permutations(range(len(scores)))))
    assert metrics.auroc(scores[order], positive[order]) == pytest.approx(expected)


@pytest.mark.parametrize("positive", [[True, True], [False, False]])
def test_auroc_needs_both_kinds(positive: list[bool]) -> None:
    with pytest.raises(ValueError, match="positives and negatives"):
        metrics.auroc(np.array([0.1, 0.2]), np.array(positive))


def test_confusion_and_intersection_over_union_by_hand() -> None:
    truth = np.array([[[0, 0, 1], [1, 1, 2]], [[0, 0, 0], [0, 0, 0]]], np.uint8)
    found = np.array([[[0, 1, 1], [1, 2, 2]], [[0, 0, 0], [0, 0, 1]]])
    counts = metrics.confusion(truth, found, 4)
    assert counts.shape == (2, 4, 4)
    np.testing.assert_array_equal(
        counts[0], [[1, 1, 0, 0], [0, 2, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    )
    np.testing.assert_array_equal(counts[1, 0], [5, 1, 0, 0])
    assert counts.sum() == truth.size
    iou = metrics.intersection_over_union(counts.sum(axis=0))
    np.testing.assert_allclose(iou, [6 / 8, 2 / 5, 1 / 2, np.nan])
