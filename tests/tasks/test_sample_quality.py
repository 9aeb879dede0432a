import json

import numpy as np
import pytest

from convae.tasks import sample_quality
from convae.tasks.sample_quality import CLASSIFIER, classify, frechet_distance, precision_and_recall
from tests.conftest import SAMPLE

RNG = np.random.default_rng(0)


def test_the_classifier_is_as_good_as_its_card_says() -> None:
    with np.load(SAMPLE) as file:
        images, labels = file["x_test"][..., None], file["y_test"]
    card = json.loads(CLASSIFIER.with_suffix(".json").read_text())
    found = classify(images)
    assert (found.classes == labels).mean() > card["accuracy"]["test"] - 0.01 > 0.98
    assert found.values.shape == (len(images), 64)
    assert CLASSIFIER.stat().st_size == card["bytes"] < 100_000


def test_frechet_distance_of_normal_distributions() -> None:
    """Against the closed form for diagonal covariances: shifts squared, and roots' differences."""
    first = RNG.normal(0, [1, 2, 0.5], (200_000, 3)).astype(np.float32)
    second = RNG.normal([1, 0, 0], [1, 1, 0.25], (200_000, 3)).astype(np.float32)
    expected = 1 + (2 - 1) ** 2 + (0.5 - 0.25) ** 2
    assert frechet_distance(first, second) == pytest.approx(expected, rel=0.02)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_of_correlated_features_is_that_of_the_matrix_root() -> None:
    from scipy.linalg import sqrtm

    first, second = (RNG.normal(size=(500, 6)) @ RNG.normal(size=(6, 6)) for _ in range(2))
    a, b = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    shift = np.square(first.mean(axis=0) - second.mean(axis=0)).sum()
    expected = shift + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-6)  # type: ignore[arg-type]


def test_precision_and_recall_see_missing_and_odd_samples() -> None:
    left, right = (RNG.normal(x, 0.1, (700, 4)).astype(np.float32) for x in (0, 5))
    real = np.concatenate([left[:350], right[:350]])
    same = np.concatenate([left[350:], right[350:]])
    precision, recall = precision_and_recall(real, same)
    assert min(precision, recall) > 0.8
    precision, recall = precision_and_recall(real, left[350:])  # one of two clusters
    assert precision > 0.8
    assert recall == pytest.approx(0.5, abs=0.1)
    precision, recall = precision_and_recall(real, np.concatenate([same, right + 9]))
    assert precision == pytest.approx(0.5, abs=0.1)
    assert recall > 0.8


def test_batches_do_not_change_the_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (RNG.normal(size=(120, 5)).astype(np.float32) for _ in range(2))
    whole = precision_and_recall(first, second)
    monkeypatch.setattr(sample_quality, "BATCH", 7)
    assert precision_and_recall(first, second) == whole
