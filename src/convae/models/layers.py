"""The Keras and TensorFlow side of each layer type: how it is built, and its compiled forward pass.

A new layer type needs a row in `LAYER_OPS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from convae.errors import UnsupportedError
from convae.runtime.backend import keras, tf

if TYPE_CHECKING:
    from convae.layers.spec import Layer


# Said for each layer and operation. Keras takes from its process what is not said: from
# ~/.keras/keras.json, or from what a notebook has set before.
FLOAT32, CHANNELS_LAST = {"dtype": "float32"}, {"data_format": "channels_last"}


@dataclass(frozen=True)
class LayerOps:
    """What a layer type is in Keras and TensorFlow.

    `build(spec, name, seed)` returns a function from a Keras tensor to a Keras tensor; the Keras
    layer called `name` holds the weights. `forward(spec, layer, x)` returns the same values before
    the activation, from that Keras layer and a tensor x (N, H, W, C), in the dtype of `x`.

    A stochastic layer builds a list of tensors, of which the first is its output without noise.
    `sample(x, noise)` returns its output for what `forward` gives, and the terms that it adds to
    the loss, (N,) by name. `noise` is standard normal and has the shape of the output; without it
    the output is not random.
    """

    build: Callable[[Any, str, Sequence[int]], Callable[[Any], Any]]
    forward: Callable[[Any, Any, Any], Any]
    sample: Callable[[Any, Any], tuple[Any, dict[str, Any]]] | None = None


def layer_ops(layer_type: str) -> LayerOps:
    """Return the row of `layer_type`, the `type` of a layer in a config.

    Raises:
        UnsupportedError: LAYER_OPS has no such row.
    """
    if layer_type in LAYER_OPS:
        return LAYER_OPS[layer_type]
    raise UnsupportedError(
        f"layer type {layer_type}: has no row in LAYER_OPS of convae.models.layers, which has "
        f"{', '.join(LAYER_OPS)}"
    )


def _build_conv(spec: Layer, name: str, seed: Sequence[int], **changes: Any) -> Any:
    return keras.layers.Conv2D(**_convolution_options(spec, name, seed) | changes)


def _build_conv_transpose(spec: Any, name: str, seed: Sequence[int]) -> Any:
    options = _convolution_options(spec, name, seed)
    return keras.layers.Conv2DTranspose(output_padding=spec.output_padding, **options)


def _build_resize_conv(spec: Any, name: str, seed: Sequence[int]) -> Any:
    upsample = keras.layers.UpSampling2D(
        spec.strides, interpolation=spec.interpolation, **FLOAT32, **CHANNELS_LAST
    )
    convolution = _build_conv(spec, name, seed, strides=1)
    return lambda x: convolution(upsample(x))


def _build_depth_to_space(spec: Any, name: str, seed: Sequence[int]) -> Any:
    rows, columns = spec.strides
    filters = spec.filters * rows * columns
    convolution = _build_conv(spec, name, seed, strides=1, filters=filters)

    def build(x: Any) -> Any:
        # Reshape and Permute rather than an operation: every Keras 3 can load these layers.
        x = convolution(x)
        _, height, width, _ = x.shape
        x = keras.layers.Reshape((height, width, rows, columns, spec.filters), **FLOAT32)(x)
        x = keras.layers.Permute((1, 3, 2, 4, 5), **FLOAT32)(x)
        return keras.layers.Reshape((height * rows, width * columns, spec.filters), **FLOAT32)(x)

    return build


def _build_gaussian(spec: Any, name: str, seed: Sequence[int]) -> Any:
    convolution = _build_conv(spec, name, seed, filters=2 * spec.filters)

    def build(x: Any) -> list[Any]:
        # Reshape and Cropping2D rather than an operation: every Keras 3 can load these layers.
        x = convolution(x)
        _, height, width, _ = x.shape
        x = keras.layers.Reshape((height * width, 2, spec.filters), **FLOAT32)(x)
        halves = []
        for half, crop in (("mean", (0, 1)), ("log_variance", (1, 0))):
            y = keras.layers.Cropping2D(((0, 0), crop), **FLOAT32, **CHANNELS_LAST)(x)
            shape = (height, width, spec.filters)
            halves.append(keras.layers.Reshape(shape, name=f"{name}_{half}", **FLOAT32)(y))
        return halves

    return build


def _convolution_options(spec: Layer, name: str, seed: Sequence[int]) -> dict[str, Any]:
    same_in_keras = {
        "filters", "kernel_size", "strides", "padding", "dilation_rate", "activation", "use_bias",
    }  # fmt: skip
    # Each layer has an initializer of its own: a shared one would draw the same numbers again.
    initializer = {
        "class_name": spec.kernel_initializer,
        "config": {"seed": int(np.random.SeedSequence(seed).generate_state(1)[0])},
    }
    options = spec.model_dump(include=same_in_keras)
    named = {"name": name, "kernel_initializer": initializer}
    return {**options, **named, **FLOAT32, **CHANNELS_LAST}


def _forward_conv(_: Layer, layer: Any, x: Any) -> Any:
    return _convolve(layer, x, lambda x, kernel: keras.ops.conv(x, kernel, **_keras_options(layer)))


def _forward_conv_transpose(_: Layer, layer: Any, x: Any) -> Any:
    def transpose(x: Any, kernel: Any) -> Any:
        unchanged = max(layer.strides) == 1 and layer.padding == "valid"
        if x.dtype != tf.bfloat16 or not unchanged or layer.output_padding is not None:
            options = {**_keras_options(layer), "output_padding": layer.output_padding}
            return keras.ops.conv_transpose(x, kernel, **options)
        # A transposed convolution of stride 1 is a convolution of the padded input with the flipped
        # kernel. In bfloat16 oneDNN fuses that with bias and ReLU; in float32 its own is faster.
        height, width = (size - 1 for size in layer.kernel_size)
        padded = tf.pad(x, [[0, 0], [height, height], [width, width], [0, 0]])
        flipped = tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])
        return tf.nn.conv2d(padded, flipped, 1, "VALID")

    return _convolve(layer, x, transpose)


def _forward_resize_conv(spec: Any, layer: Any, x: Any) -> Any:
    (rows, columns), (_, height, width, channels) = spec.strides, x.shape
    if spec.interpolation == "nearest":
        # Copies side by side in memory: first of each pixel, then of each line. tf.repeat tiles
        # shapes in int32, of which oneDNN complains on processors without AVX-512.
        x = tf.reshape(tf.concat([x] * columns, axis=3), (-1, height, width * columns, channels))
        x = tf.concat([x] * rows, axis=2)
        x = tf.reshape(x, (-1, height * rows, width * columns, channels))
    else:
        size = (height * rows, width * columns)
        x = tf.cast(tf.image.resize(x, size, spec.interpolation), x.dtype)
    return _forward_conv(spec, layer, x)


def _forward_depth_to_space(spec: Any, layer: Any, x: Any) -> Any:
    x = _forward_conv(spec, layer, x)
    (rows, columns), (_, height, width, _) = spec.strides, x.shape
    # Before the activation, which is the same for each pixel.
    x = tf.reshape(x, (-1, height, width, rows, columns, spec.filters))
    x = tf.transpose(x, (0, 1, 3, 2, 4, 5))
    return tf.reshape(x, (-1, height * rows, width * columns, spec.filters))


def _sample_gaussian(x: Any, noise: Any) -> tuple[Any, dict[str, Any]]:
    """Return mean + standard deviation * noise, and the KL divergence from a standard normal."""
    mean, log_variance = tf.split(x, 2, axis=-1)
    variance = tf.exp(log_variance)
    divergence = 0.5 * tf.reduce_sum(
        tf.square(mean) + variance - 1.0 - log_variance, axis=(1, 2, 3)
    )
    code = mean if noise is None else mean + tf.sqrt(variance) * noise
    return code, {"kl": divergence}


def _convolve(layer: Any, x: Any, operation: Callable[[Any, Any], Any]) -> Any:
    """Apply `operation(x, kernel)` and the bias, with float32 weights cast to the dtype of `x`."""
    dtype = x.dtype
    if max(layer.dilation_rate) > 1:  # TensorFlow's CPU kernels have its gradient in float32 alone
        x = tf.cast(x, tf.float32)
    y = operation(x, tf.cast(layer.kernel.value, x.dtype))
    if layer.use_bias:
        y = tf.nn.bias_add(y, tf.cast(layer.bias.value, y.dtype))
    return tf.cast(y, dtype)


def _keras_options(layer: Any) -> dict[str, Any]:
    options = ("strides", "padding", "dilation_rate", "data_format")
    return {key: getattr(layer, key) for key in options}


LAYER_OPS = {
    "conv": LayerOps(_build_conv, _forward_conv),
    "conv_transpose": LayerOps(_build_conv_transpose, _forward_conv_transpose),
    "resize_conv": LayerOps(_build_resize_conv, _forward_resize_conv),
    "depth_to_space": LayerOps(_build_depth_to_space, _forward_depth_to_space),
    "gaussian": LayerOps(_build_gaussian, _forward_conv, _sample_gaussian),
}
