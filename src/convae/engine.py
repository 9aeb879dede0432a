"""The compiled steps: a batch in micro-batches that fit the cache, on one strand per core.

A step over a batch of B images is the mathematics of one whole-batch step: the gradients of all
micro-batches are summed and applied once. The slices and the order of the sums are fixed, so the
same inputs give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convae.backend import keras, tf
from convae.model import stack

if TYPE_CHECKING:
    from convae.runtime import Plan

Images = NDArray[np.uint8]  # (N, H, W, C)


class Engine:
    """Trains, evaluates and predicts with one model; images go in as uint8 (N, H, W, C)."""

    def __init__(self, model: Any, loss: str, plan: Plan, optimizer: Any = None) -> None:
        self._layers = stack(model)
        self._loss = LOSSES[loss]
        self._plan = plan
        self._dtype = tf.bfloat16 if plan.precision == "mixed_bfloat16" else tf.float32
        self._variables = model.trainable_variables
        self._optimizer = optimizer
        if optimizer is not None:
            optimizer.build(self._variables)
        self._shape = tuple(model.output_shape[1:])
        images = tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)

        def compiled(function: Callable[..., Any]) -> Any:
            # One trace for every batch size: the last batch of an epoch may be smaller.
            return tf.function(function, input_signature=[images], jit_compile=plan.jit_compile)

        self._train = compiled(self._train_step)
        self._evaluate = compiled(self._loss_sum)
        self._predict = compiled(self._reconstruct)

    def train_step(self, images: Images) -> float:
        """One optimizer step on a batch; returns its mean loss, from before the step."""
        return float(self._train(images))

    def evaluate(self, images: Images, batch_size: int = 1000) -> float:
        """The mean loss over `images`."""
        total = sum(float(self._evaluate(batch)) for batch in _batches(images, batch_size))
        return total / len(images)

    def predict(self, images: Images, batch_size: int = 1000) -> NDArray[np.float32]:
        """Reconstructions in [0, 1], float32 (N, H, W, C)."""
        result = np.empty((len(images), *self._shape), np.float32)
        for start in range(0, len(images), batch_size):
            result[start : start + batch_size] = self._predict(images[start : start + batch_size])
        return result

    def _train_step(self, images: Any) -> Any:
        variables = [variable.value for variable in self._variables]

        def gradients(batch: Any) -> list[Any]:
            target = _scaled(batch)
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(self._loss(target, *self._forward(target)))
            return [loss, *tape.gradient(loss, variables)]

        zeros = [tf.zeros(()), *(tf.zeros(v.shape) for v in variables)]
        count = tf.cast(tf.shape(images)[0], tf.float32)
        loss, *summed = self._sum(gradients, images, zeros)
        self._optimizer.apply([gradient / count for gradient in summed], self._variables)
        return loss / count

    def _loss_sum(self, images: Any) -> Any:
        def loss(batch: Any) -> list[Any]:
            target = _scaled(batch)
            return [tf.reduce_sum(self._loss(target, *self._forward(target)))]

        return self._sum(loss, images, [tf.zeros(())])[0]

    def _reconstruct(self, images: Any) -> Any:
        def strand(start: Any, stop: Any) -> Any:
            size = self._plan.micro_batch
            slices = -(-(stop - start) // size)

            def body(i: Any, parts: Any) -> Any:
                begin = start + i * size
                logits, activation = self._forward(
                    _scaled(images[begin : tf.minimum(begin + size, stop)])
                )
                return i + 1, parts.write(i, activation(logits))

            parts = tf.TensorArray(
                tf.float32, slices, infer_shape=False, element_shape=(None, *self._shape)
            )
            loop = tf.while_loop(lambda i, _: i < slices, body, (0, parts), parallel_iterations=1)
            return loop[1].concat()

        return tf.concat([strand(*bounds) for bounds in self._bounds(images)], axis=0)

    def _sum(self, function: Callable[..., list[Any]], images: Any, zeros: list[Any]) -> list[Any]:
        """The sum of `function` over all micro-batches, strands side by side."""
        size = self._plan.micro_batch

        def strand(start: Any, stop: Any) -> Any:
            def body(begin: Any, sums: list[Any]) -> Any:
                batch = images[begin : tf.minimum(begin + size, stop)]
                return begin + size, [a + b for a, b in zip(sums, function(batch), strict=True)]

            # Strands share no data, so TensorFlow runs these loops at the same time.
            return tf.while_loop(
                lambda begin, _: begin < stop, body, (start, zeros), parallel_iterations=1
            )[1]

        strands = [strand(*bounds) for bounds in self._bounds(images)]
        return [tf.add_n(list(parts)) for parts in zip(*strands, strict=True)]

    def _bounds(self, images: Any) -> list[tuple[Any, Any]]:
        """Where each strand's share of a batch begins and ends."""
        count, strands = tf.shape(images)[0], self._plan.strands
        return [(count * s // strands, count * (s + 1) // strands) for s in range(strands)]

    def _forward(self, x: Any) -> tuple[Any, Callable[..., Any]]:
        """The last layer's values before its activation, in float32, and that activation.

        With mixed_bfloat16 the kernels, which stay float32, are cast where they are used, and all
        that lies between the input and the last layer's values is bfloat16. The loss is not.
        """
        x = tf.cast(x, self._dtype)
        *body, last = self._layers
        for layer in body:
            x = layer.activation(_linear(layer, x))
        return tf.cast(_linear(last, x), tf.float32), last.activation


def _linear(layer: Any, x: Any) -> Any:
    """A layer up to its activation, in the dtype of `x`: the operations that Keras' layer calls."""
    dtype = x.dtype
    if max(layer.dilation_rate) > 1:  # TensorFlow's CPU kernels have its gradient in float32 alone
        x = tf.cast(x, tf.float32)
    kernel = tf.cast(layer.kernel.value, x.dtype)
    options = {
        "strides": layer.strides,
        "padding": layer.padding,
        "dilation_rate": layer.dilation_rate,
    }
    if not isinstance(layer, keras.layers.Conv2DTranspose):
        y = keras.ops.conv(x, kernel, **options)
    elif x.dtype == tf.bfloat16 and _is_plain(layer):
        # A transposed convolution of stride 1 is a convolution of the padded input with the flipped
        # kernel. In bfloat16 oneDNN fuses that with bias and ReLU; in float32 its own is faster.
        height, width = (size - 1 for size in layer.kernel_size)
        padded = tf.pad(x, [[0, 0], [height, height], [width, width], [0, 0]])
        flipped = tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])
        y = tf.nn.conv2d(padded, flipped, 1, "VALID")
    else:
        y = keras.ops.conv_transpose(x, kernel, output_padding=layer.output_padding, **options)
    if layer.use_bias:
        y = tf.nn.bias_add(y, tf.cast(layer.bias.value, y.dtype))
    return tf.cast(y, dtype)


def _is_plain(layer: Any) -> bool:
    """Stride 1, and nothing is cut off or added."""
    strided = max(layer.strides) > 1 or layer.padding != "valid"
    return not strided and layer.output_padding is None


def _binary_crossentropy(target: Any, logits: Any, _: Callable[..., Any]) -> Any:
    # From the logits, in float32: log(sigmoid(z)) of a large z would round to log(1).
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=target, logits=logits)
    return tf.reduce_mean(losses, axis=(1, 2, 3))


def _mean_squared_error(target: Any, logits: Any, activation: Callable[..., Any]) -> Any:
    return tf.reduce_mean(tf.square(activation(logits) - target), axis=(1, 2, 3))


# Each gives one value per image, from the targets in [0, 1], the last layer's values before its
# activation, and the activation.
LOSSES: dict[str, Callable[..., Any]] = {
    "binary_crossentropy": _binary_crossentropy,
    "mean_squared_error": _mean_squared_error,
}


def _scaled(images: Any) -> Any:
    """uint8 pixels to float32 in [0, 1], inside the graph: in memory they stay bytes."""
    return tf.cast(images, tf.float32) / 255.0


def _batches(images: Images, size: int) -> Sequence[Images]:
    return [images[start : start + size] for start in range(0, len(images), size)]
