import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from convae.config.loader import load_config
from convae.runtime.plan import Plan
from tests.conftest import ROOT, SAMPLE
from tests.models.test_builder import STACKS

PLAN = Plan("cpu", "test", "float32", jit_compile=False, threads=2, micro_batch_size=7)


def build(overrides: Sequence[str] = (), optimizer: Any = None, **changes: Any) -> tuple[Any, Any]:
    """A model with an engine that trains it, by plain gradient descent unless told otherwise."""
    from convae.models.builder import build_model
    from convae.runtime.backend import keras
    from convae.training.engine import Engine

    config = load_config(ROOT / "configs/mnist.yaml", overrides)
    model, plan = build_model(config), dataclasses.replace(PLAN, **changes)
    return model, Engine(model, config, plan, optimizer or keras.optimizers.SGD(0.01))


def images(count: int, shape: tuple[int, ...] = (28, 28, 1)) -> Any:
    if shape == (28, 28, 1):
        with np.load(SAMPLE) as file:
            return file["x_train"][:count, ..., None]
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "global_clipnorm": 0.1}])
def test_thirty_steps_are_keras_train_on_batch(options: dict[str, float]) -> None:
    """Also of what one update of a vector of all weights needs all of: the norm of the gradient."""
    from convae.runtime.backend import keras

    def optimizer() -> Any:
        return keras.optimizers.SGD(0.01, **options)

    model, engine = build(optimizer=optimizer())
    theirs = keras.models.clone_model(model)
    theirs.set_weights(model.get_weights())
    theirs.compile(optimizer(), "binary_crossentropy", jit_compile=False)
    digits = images(61)  # two shards of 30 and 31: the last micro-batches hold 2 and 3
    scaled = digits / np.float32(255)
    for step in range(30):
        batch = slice(0, 61 if step % 2 else 40)
        expected = float(theirs.train_on_batch(scaled[batch], scaled[batch]))
        loss = engine.step(digits[batch], digits[batch])
        assert loss == pytest.approx(expected, abs=1e-6)
    for ours, reference in zip(model.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(ours, reference, atol=1e-6)


@pytest.mark.parametrize("name", STACKS)
def test_any_layers_of_the_schema_run(name: str) -> None:
    model, engine = build(STACKS[name])
    data = images(9, model.input_shape[1:])
    expected = model.predict_on_batch(data / np.float32(255)).clip(0, 1)
    np.testing.assert_allclose(engine.predict(data, batch_size=4), expected, atol=2e-6)
    losses = [engine.step(data, data) for _ in range(8)]
    assert losses[-1] < losses[0]


def test_evaluate_is_the_mean_over_all_images() -> None:
    from convae.tasks.metrics import image_scores

    _, engine = build()
    digits = images(23)
    expected = image_scores(digits, engine.predict(digits))["bce"].mean()
    found = engine.evaluate(digits, digits, batch_size=10)
    assert found == {"loss": pytest.approx(expected, abs=1e-6)}


@pytest.mark.parametrize(("shards", "micro_batch_size"), [(1, 50), (2, 50), (2, 3), (3, 1), (5, 2)])
def test_slices_do_not_change_the_step(shards: int, micro_batch_size: int) -> None:
    digits = images(13)
    whole, engine = build(threads=1, micro_batch_size=13)
    engine.step(digits, digits)
    model, engine = build(threads=shards, micro_batch_size=micro_batch_size)
    engine.step(digits, digits)
    for ours, reference in zip(model.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(ours, reference, atol=1e-7)


def test_fewer_images_than_threads() -> None:
    _, engine = build(threads=5)
    assert np.isfinite(engine.step(images(2), images(2)))
    assert engine.predict(images(1)).shape == (1, 28, 28, 1)


@pytest.mark.parametrize("name", ["article", *STACKS])
def test_bfloat16_is_float32_but_for_rounding(name: str) -> None:
    model, engine = build(STACKS.get(name, []))
    _, rounded = build(STACKS.get(name, []), precision="mixed_bfloat16")
    data = images(9, model.input_shape[1:])
    exact = engine.predict(data)
    np.testing.assert_allclose(rounded.predict(data), exact, atol=0.03)
    assert np.abs(rounded.predict(data) - exact).max() > 0  # it did run in bfloat16
    assert rounded.step(data, data) == pytest.approx(engine.step(data, data), rel=0.02)
    assert rounded.predict(data).dtype == np.float32


def test_a_transposed_convolution_of_stride_1_is_a_convolution() -> None:
    """The rewriting that bfloat16 uses, checked in float32, where rounding cannot hide a fault."""
    from convae.runtime.backend import keras, tf

    layer = keras.layers.Conv2DTranspose(3, (2, 4), use_bias=False)
    x = tf.random.stateless_normal((2, 5, 6, 4), seed=(0, 1))
    expected = layer(x)
    flipped = tf.transpose(tf.reverse(layer.kernel.value, [0, 1]), [0, 1, 3, 2])
    y = tf.nn.conv2d(tf.pad(x, [[0, 0], [1, 1], [3, 3], [0, 0]]), flipped, 1, "VALID")
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_muon_gets_kernels_as_matrices_and_others_one_vector() -> None:
    from convae.runtime.backend import keras
    from convae.training.optimizers import update_shapes

    model, _ = build()
    shapes = update_shapes(model.trainable_variables, keras.optimizers.Muon())
    assert shapes[:4] == [(9, 32), (32,), (288, 16), (16,)]
    assert update_shapes(model.trainable_variables, keras.optimizers.Adam()) == [(12_785,)]
