"""The Keras and TensorFlow side of each layer type: how it is built, and its compiled forward pass.

A new layer type needs a row in `LAYER_OPS`. TensorFlow is imported inside the functions, because
keras_file.py takes the names of the Keras layers from here and works without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from convae.errors import UnsupportedError

if TYPE_CHECKING:
    from convae.layers.spec import Layer

_CONVOLUTION_OPTIONS = {
    "filters", "kernel_size", "strides", "padding", "dilation_rate", "activation", "use_bias",
}  # fmt: skip


@dataclass(frozen=True)
class LayerOps:
    """What a layer type is in Keras and TensorFlow.

    `build(spec, name, seed)` returns a function from a Keras tensor to a Keras tensor; the Keras
    layer called `name` holds the weights. `forward(spec, layer, x)` returns the same values before
    the activation, from that Keras layer and a tensor x (N, H, W, C), in the dtype of `x`.
    `keras_layers` are the classes that `build` writes into a `.keras` file.
    """

    build: Callable[[Any, str, Sequence[int]], Callable[[Any], Any]]
    forward: Callable[[Any, Any, Any], Any]
    keras_layers: frozenset[str]


def layer_ops(layer_type: str) -> LayerOps:
    """Return the row of `layer_type`, the `type` of a layer in a config.

    Raises:
        UnsupportedError: if LAYER_OPS has no such row.
    """
    try:
        return LAYER_OPS[layer_type]
    except KeyError:
        raise UnsupportedError(
            f"layer type {layer_type}: has no row in LAYER_OPS of convae.models.layers, which has "
            f"{', '.join(LAYER_OPS)}"
        ) from None


def _build_conv(spec: Layer, name: str, seed: Sequence[int], **changes: Any) -> Any:
    from convae.runtime.backend import keras

    return keras.layers.Conv2D(**_convolution_options(spec, name, seed) | changes)


def _build_conv_transpose(spec: Any, name: str, seed: Sequence[int]) -> Any:
    from convae.runtime.backend import keras

    options = _convolution_options(spec, name, seed)
    return keras.layers.Conv2DTranspose(output_padding=spec.output_padding, **options)


def _build_resize_conv(spec: Any, name: str, seed: Sequence[int]) -> Any:
    from convae.runtime.backend import keras

    upsample = keras.layers.UpSampling2D(spec.strides, interpolation=spec.interpolation)
    convolution = _build_conv(spec, name, seed, strides=1)
    return lambda x: convolution(upsample(x))


def _build_depth_to_space(spec: Layer, name: str, seed: Sequence[int]) -> Any:
    from convae.runtime.backend import keras

    rows, columns = spec.strides
    filters = spec.filters * rows * columns
    convolution = _build_conv(spec, name, seed, strides=1, filters=filters)

    def build(x: Any) -> Any:
        # Reshape and Permute rather than an operation: every Keras 3 can load these layers.
        x = convolution(x)
        _, height, width, _ = x.shape
        x = keras.layers.Reshape((height, width, rows, columns, spec.filters))(x)
        x = keras.layers.Permute((1, 3, 2, 4, 5))(x)
        return keras.layers.Reshape((height * rows, width * columns, spec.filters))(x)

    return build


def _convolution_options(spec: Layer, name: str, seed: Sequence[int]) -> dict[str, Any]:
    # Each layer has an initializer of its own: a shared one would draw the same numbers again.
    initializer = {
        "class_name": spec.kernel_initializer,
        "config": {"seed": int(np.random.SeedSequence(seed).generate_state(1)[0])},
    }
    options = spec.model_dump(include=_CONVOLUTION_OPTIONS)
    return {**options, "name": name, "kernel_initializer": initializer}


def _forward_conv(_: Layer, layer: Any, x: Any) -> Any:
    from convae.runtime.backend import keras

    return _convolve(layer, x, lambda x, kernel: keras.ops.conv(x, kernel, **_keras_options(layer)))


def _forward_conv_transpose(_: Layer, layer: Any, x: Any) -> Any:
    from convae.runtime.backend import keras, tf

    def transpose(x: Any, kernel: Any) -> Any:
        unchanged = max(layer.strides) == 1 and layer.padding == "valid"
        if x.dtype != tf.bfloat16 or not unchanged or layer.output_padding is not None:
            options = _keras_options(layer)
            return keras.ops.conv_transpose(
                x, kernel, output_padding=layer.output_padding, **options
            )
        # A transposed convolution of stride 1 is a convolution of the padded input with the flipped
        # kernel. In bfloat16 oneDNN fuses that with bias and ReLU; in float32 its own is faster.
        height, width = (size - 1 for size in layer.kernel_size)
        padded = tf.pad(x, [[0, 0], [height, height], [width, width], [0, 0]])
        flipped = tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])
        return tf.nn.conv2d(padded, flipped, 1, "VALID")

    return _convolve(layer, x, transpose)


def _forward_resize_conv(spec: Any, layer: Any, x: Any) -> Any:
    return _forward_conv(spec, layer, _upsample(x, spec.strides, spec.interpolation))


def _forward_depth_to_space(spec: Layer, layer: Any, x: Any) -> Any:
    # Before the activation, which is the same for each pixel.
    return _depth_to_space(_forward_conv(spec, layer, x), spec.strides)


def _convolve(layer: Any, x: Any, operation: Callable[[Any, Any], Any]) -> Any:
    """Apply `operation(x, kernel)` and the bias, with float32 weights cast to the dtype of `x`."""
    from convae.runtime.backend import tf

    dtype = x.dtype
    if max(layer.dilation_rate) > 1:  # TensorFlow's CPU kernels have its gradient in float32 alone
        x = tf.cast(x, tf.float32)
    y = operation(x, tf.cast(layer.kernel.value, x.dtype))
    if layer.use_bias:
        y = tf.nn.bias_add(y, tf.cast(layer.bias.value, y.dtype))
    return tf.cast(y, dtype)


def _keras_options(layer: Any) -> dict[str, Any]:
    return {
        "strides": layer.strides,
        "padding": layer.padding,
        "dilation_rate": layer.dilation_rate,
    }


def _upsample(x: Any, strides: tuple[int, int], interpolation: str) -> Any:
    """Enlarge images (N, H, W, C) `strides` times, as keras.layers.UpSampling2D does."""
    from convae.runtime.backend import tf

    (rows, columns), (_, height, width, channels) = strides, x.shape
    if interpolation == "nearest":
        # Copies side by side in memory: first of each pixel, then of each line. tf.repeat tiles
        # shapes in int32, of which oneDNN complains on processors without AVX-512.
        x = tf.reshape(tf.concat([x] * columns, axis=3), (-1, height, width * columns, channels))
        x = tf.concat([x] * rows, axis=2)
        return tf.reshape(x, (-1, height * rows, width * columns, channels))
    size = (height * rows, width * columns)
    return tf.cast(tf.image.resize(x, size, interpolation), x.dtype)


def _depth_to_space(x: Any, strides: tuple[int, int]) -> Any:
    """Rearrange (N, H, W, C * rows * columns) to (N, H * rows, W * columns, C)."""
    from convae.runtime.backend import tf

    rows, columns = strides
    _, height, width, channels = x.shape
    x = tf.reshape(x, (-1, height, width, rows, columns, channels // (rows * columns)))
    x = tf.transpose(x, (0, 1, 3, 2, 4, 5))
    return tf.reshape(x, (-1, height * rows, width * columns, channels // (rows * columns)))


LAYER_OPS = {
    "conv": LayerOps(_build_conv, _forward_conv, frozenset({"Conv2D"})),
    "conv_transpose": LayerOps(
        _build_conv_transpose, _forward_conv_transpose, frozenset({"Conv2DTranspose"})
    ),
    "resize_conv": LayerOps(
        _build_resize_conv, _forward_resize_conv, frozenset({"UpSampling2D", "Conv2D"})
    ),
    "depth_to_space": LayerOps(
        _build_depth_to_space, _forward_depth_to_space, frozenset({"Conv2D", "Reshape", "Permute"})
    ),
}
