import sys
from typing import Any

import numpy as np
import pytest

from convae.config.loader import load_config
from convae.errors import ConvaeError
from convae.evaluation import latent
from convae.tasks import build_task
from tests.conftest import ROOT

MNIST = ROOT / "configs/mnist.yaml"
BOTTLENECK = [
    "model.encoder=[{type: conv, filters: 4, kernel_size: 5, strides: 4, padding: same},"
    "{type: conv, filters: 6, kernel_size: 7}]",
    "model.decoder=[{type: conv_transpose, filters: 4, kernel_size: 7},"
    "{type: conv_transpose, filters: 1, kernel_size: 4, strides: 4, activation: sigmoid}]",
]


def test_a_bottleneck_is_a_smaller_code_without_skip_connections() -> None:
    small = build_task(load_config(MNIST, BOTTLENECK))
    assert latent.has_bottleneck(small)
    assert not latent.has_bottleneck(build_task(load_config(MNIST)))  # 3,872 numbers for 784 pixels
    around = ["model.encoder.0.name=small", "model.decoder.1.skip=small"]
    assert not latent.has_bottleneck(build_task(load_config(MNIST, [*BOTTLENECK, *around])))


def test_codes_and_images_come_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from convae.models.builder import build_model
    from convae.training.engine import Engine
    from tests.training.test_engine import PLAN

    config = load_config(MNIST, BOTTLENECK)
    model = build_model(config)
    trained = latent.TrainedModel(model, Engine(model, config, PLAN))
    images = np.random.default_rng(0).integers(0, 256, (23, 28, 28, 1), np.uint8)
    whole, *_ = trained.encode(images)
    assert whole.shape == (23, 6)
    monkeypatch.setattr(latent, "BLOCK", 7)
    np.testing.assert_allclose(trained.encode(images)[0], whole, atol=1e-6)
    expected = model.predict_on_batch(images / np.float32(255))
    np.testing.assert_allclose(trained.decode(whole), expected, atol=1e-6)


def test_codes_maps_and_metrics_of_an_analysis() -> None:
    from convae.models.builder import build_model
    from convae.training.engine import Engine
    from tests.training.test_engine import PLAN

    config = load_config(MNIST, BOTTLENECK)
    images = np.random.default_rng(0).integers(0, 256, (30, 28, 28, 1), np.uint8)
    labels = np.arange(30) % 3
    model = build_model(config)
    trained = latent.TrainedModel(model, Engine(model, config, PLAN))
    found = latent.analyze(trained, config, images, labels)
    assert found.codes.shape == (30, 6)
    assert [points.shape for points in found.maps.values()] == [(30, 2)]
    assert set(found.measures) == {
        "code_size", "images", "neighbors_same_class", "neighbors_same_class_pixels",
    }  # fmt: skip
    unknown = latent.analyze(trained, config, images, None)
    assert unknown.measures == {"code_size": 6, "images": 30}


@pytest.mark.parametrize("bytes_", [False, True])
def test_neighbors_are_those_of_the_definition(
    bytes_: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    points: Any = generator.normal(size=(50, 4)).astype(np.float32)
    if bytes_:
        points = generator.integers(0, 256, (50, 3, 3, 1), np.uint8)
    flat = points.reshape(50, -1).astype(float)
    distances = ((flat[:, None] - flat[None]) ** 2).sum(axis=-1)
    np.fill_diagonal(distances, np.inf)
    queries = np.array([0, 7, 49])
    expected = np.argsort(distances[queries], axis=1)[:, :5]
    np.testing.assert_array_equal(latent.nearest(points, queries), expected)
    for block in (3, 16):  # blocks smaller than the number of neighbors, too
        monkeypatch.setattr(latent, "BLOCK", block)
        np.testing.assert_array_equal(latent.nearest(points, queries), expected)


def test_the_share_of_neighbors_of_the_same_class() -> None:
    labels = np.arange(60) % 3
    apart = (labels[:, None] * 100 + np.random.default_rng(0).normal(size=(60, 2))).astype("f4")
    assert latent.same_class_share(apart, labels) == 1
    assert latent.same_class_share(apart, np.arange(60)) == 0


def test_the_map_keeps_the_axes_of_most_variance() -> None:
    codes = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    codes *= np.array([1, 10, 0.1, 5, 0.5], np.float32)
    points, share = latent.principal_map(codes)
    centered = codes - codes.mean(axis=0)
    variances = np.linalg.svd(centered, compute_uv=False) ** 2
    assert share == pytest.approx(variances[:2].sum() / variances.sum(), rel=1e-4)
    np.testing.assert_allclose(points.var(axis=0), variances[:2] / 200, rtol=1e-4)
    assert np.corrcoef(points[:, 0], codes[:, 1])[0, 1] > 0.99  # and no sign turned
    single, share = latent.principal_map(codes[:, :1])
    assert single.shape == (200, 2)
    assert share == pytest.approx(1)
    assert not single[:, 1].any()


def test_umap_is_refused_without_a_bottleneck_or_the_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConvaeError, match="smaller than its images"):
        latent.check_umap(build_task(load_config(MNIST)))
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ConvaeError, match=r"pip install 'convae\[umap\]'"):
        latent.check_umap(build_task(load_config(MNIST, BOTTLENECK)))


@pytest.mark.slow
def test_the_seed_decides_the_map_by_umap() -> None:
    pytest.importorskip("umap")
    codes = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    points = latent.umap_map(codes, 3)
    assert points.shape == (60, 2)
    np.testing.assert_array_equal(latent.umap_map(codes, 3), points)
