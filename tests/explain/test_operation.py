"""All methods of the operation agree with each other and with the installed Keras."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from itertools import product
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from convae.arrays import Array
from convae.errors import ConvaeError
from convae.explain import operation
from convae.explain.operation import ConvOptions
from convae.explain.worked_example import EXAMPLES
from convae.layers import arithmetic

NO_DILATION = "do not yet support dilation"  # TensorFlow on a CPU without oneDNN
Drawn = tuple[Array, Array, ConvOptions]


def drawn(conv: bool = False) -> st.SearchStrategy[Drawn]:
    """An input (n, h, w, in), a kernel and a options, legal or not."""
    return st.integers(0, 2**32 - 1).map(lambda seed: made(np.random.default_rng(seed), conv))


def made(random: np.random.Generator, conv: bool) -> Drawn:
    """Kernels 1 to 5, strides 1 to 4, both paddings, dilation, channels, batches, not square."""
    n, h, w, a, b = (int(i) for i in random.integers(1, [4, 7, 7, 4, 4]))
    kh, kw = (int(i) for i in random.integers(1, 6, 2))

    def pair(high: int) -> tuple[int, int]:
        return int(random.integers(1, high)), int(random.integers(1, high))

    dilation = pair(4) if random.random() < 0.25 else (1, 1)
    strides = (1, 1) if max(dilation) > 1 and random.random() < 0.7 else pair(5)
    over = random.random() < 0.05  # now and then as large as the stride, which is refused
    rows, columns = (int(random.integers(0, s + over)) for s in strides)
    extra = None if conv or random.random() < 0.4 else (rows, columns)
    padding: arithmetic.Padding = "same" if random.random() < 0.5 else "valid"
    kernel = random.normal(size=(kh, kw, a, b) if conv else (kh, kw, b, a))
    return random.normal(size=(n, h, w, a)), kernel, ConvOptions(strides, padding, extra, dilation)


def in_keras(name: str, *arguments: Any) -> Array | str:
    """Return the result in the process that imports Keras, or its error."""
    try:
        found: Array = getattr(operation, name)(*arguments)
    except Exception as error:
        return str(error)
    return found


def gradient(x: Array, y: Array, kernel: Array, options: ConvOptions) -> Array:
    """The gradient of <Conv2D(x), y> with respect to x, by TensorFlow."""
    from convae.runtime.backend import tf

    layer_input = tf.Variable(x, dtype=tf.float32)
    with tf.GradientTape() as tape:
        out = tf.nn.conv2d(
            layer_input,
            tf.constant(kernel, tf.float32),
            options.strides,
            str(options.padding).upper(),
        )
        total = tf.reduce_sum(out * tf.constant(y, tf.float32))
    return np.asarray(tape.gradient(total, layer_input))


@pytest.fixture(scope="module")
def keras() -> Iterator[ProcessPoolExecutor]:
    """A process of its own for TensorFlow: oneDNN, which dilation needs, is chosen at its start."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool


def compare(pool: ProcessPoolExecutor, one: Drawn, conv: bool) -> bool:
    """Return whether our options are legal, and assert that Keras gives the same."""
    run, name = (
        (operation.conv, "conv_by_keras")
        if conv
        else (operation.conv_transpose, "transpose_by_keras")
    )
    theirs = pool.submit(in_keras, name, *one).result()
    ours: Array | None = None
    with suppress(ConvaeError):
        ours = run(*one)
    if ours is None:  # an image of no pixels is no answer either
        assert isinstance(theirs, str) or theirs.size == 0, "Keras computes what we refuse"
        return False
    if isinstance(theirs, str):
        assert NO_DILATION in theirs
        return False
    assert theirs.shape == ours.shape
    strides = one[2].strides
    if conv and strides[0] != strides[1] and ours.shape[-2] == 1:
        return True  # oneDNN 3.x computes other numbers here on some processors with AVX-512
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-5)
    return True


def test_transposed_convolution_equals_keras(keras: ProcessPoolExecutor) -> None:
    legal = []

    @settings(
        max_examples=700,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(drawn())
    def agrees(one: Drawn) -> None:
        legal.append(compare(keras, one, conv=False))

    agrees()
    assert sum(legal) >= 500
    assert not all(legal)


def test_convolution_equals_keras(keras: ProcessPoolExecutor) -> None:
    legal = []

    @settings(
        max_examples=120,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(drawn(conv=True))
    def agrees(one: Drawn) -> None:
        legal.append(compare(keras, one, conv=True))

    agrees()
    assert sum(legal) >= 60


def test_gradient_of_a_convolution_is_the_transposed_one(keras: ProcessPoolExecutor) -> None:
    paddings: tuple[arithmetic.Padding, ...] = ("valid", "same")
    for padding, k, s in product(paddings, (1, 2, 3, 4), (1, 2, 3)):
        random = np.random.default_rng(k + 10 * s)
        small = random.normal(size=(2, 3, 4, 3))
        kernel = random.normal(size=(k, k, 2, 3))  # (h, w, in, out) there, (h, w, OUT, in) here
        options = ConvOptions((s, s), padding)
        back = operation.conv_transpose(small, kernel, options)
        theirs = keras.submit(gradient, np.zeros(back.shape), small, kernel, options).result()
        assert theirs.shape == back.shape
        np.testing.assert_allclose(theirs, back, rtol=0, atol=1e-5)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(drawn(), st.sampled_from([None, 0, 1, 2]))
def test_methods_agree_exactly_on_integers(one: Drawn, number: int | None) -> None:
    x, kernel, options = (one[0] * 9).astype(int), (one[1] * 9).astype(int), one[2]
    if number is not None:
        options = ConvOptions(
            options.strides, number, options.output_padding, options.dilation_rate
        )
    try:
        first, *others = (
            operation.conv_transpose(x, kernel, options, method)
            for method in operation.TRANSPOSE_METHODS.values()
        )
    except ConvaeError:
        assume(False)
    assert first.dtype == np.int64
    for other in others:
        np.testing.assert_array_equal(first, other)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(drawn(conv=True))
def test_convolution_methods_agree_and_the_transpose_is_the_adjoint(one: Drawn) -> None:
    x, kernel, options = (one[0] * 9).astype(int), (one[1] * 9).astype(int), one[2]
    try:
        first, *others = (
            operation.conv(x, kernel, options, method) for method in operation.CONV_METHODS.values()
        )
    except ConvaeError:
        assume(False)
    for other in others:
        np.testing.assert_array_equal(first, other)
    try:
        back = operation.conv_transpose(first, kernel, options)
    except ConvaeError:
        assume(False)
    assume(back.shape == x.shape)
    y = np.arange(first.size).reshape(first.shape)
    assert (first * y).sum() == (x * operation.conv_transpose(y, kernel, options)).sum()


def test_outputs_have_the_axes_of_the_input() -> None:
    kernel = np.ones((2, 2), int)
    assert operation.conv_transpose(np.ones((3, 3), int), kernel).shape == (4, 4)
    assert operation.conv_transpose(np.ones((3, 3, 1), int), kernel).shape == (4, 4, 1)
    assert operation.conv_transpose(np.ones((5, 3, 3, 1), int), kernel).shape == (5, 4, 4, 1)
    assert operation.conv_transpose(np.ones((3, 3, 2)), np.ones((2, 2, 7, 2))).shape == (4, 4, 7)
    with pytest.raises(ConvaeError, match="takes 3 channels"):
        operation.conv_transpose(np.ones((3, 3, 2)), np.ones((2, 2, 7, 3)))
    with pytest.raises(ConvaeError, match="must have 2 or 3 or 4 axes"):
        operation.conv(np.ones(3), kernel)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (ConvOptions((2, 2), "valid", (2, 0)), "smaller than strides 2"),
        (ConvOptions((2, 1), "valid", None, (1, 2)), "cannot both be above 1"),  # across the axes
        (ConvOptions((1, 1), "same", (0, 0)), "an even kernel"),
        (ConvOptions((1, 1), 2), "leaves nothing of a canvas of 4"),
        (ConvOptions((1, 1), -1), "padding must be"),
        (ConvOptions((0, 1)), "strides must be 1 or more"),
    ],
)
def test_errors_name_the_reason(options: ConvOptions, text: str) -> None:
    with pytest.raises(ConvaeError, match=text):
        operation.conv_transpose(np.ones((3, 3)), np.ones((2, 2)), options)


def test_examples_have_the_sizes_of_the_article() -> None:
    cases = {name: case for name, (_, case) in EXAMPLES.items()}
    assert cases["basic"].result().tolist() == [[0, 0, 1], [0, 4, 6], [4, 12, 9]]
    assert cases["1"].padded().shape == (8, 8)
    assert cases["1"].result().shape == (4, 4)
    assert [cases[n].zero_grid().shape for n in "234"] == [(7, 7)] * 3
    assert [cases[n].result().shape for n in "234"] == [(6, 6), (6, 6), (4, 4)]
