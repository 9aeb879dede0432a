"""The compiled steps: a batch in micro-batches that fit the cache, on one shard per core.

A step over a batch of B images is the mathematics of one whole-batch step: the gradients of all
micro-batches are summed and applied once. The slices and the order of the sums are fixed, so the
same inputs give the same bits. With several replicas each takes its part of the batch in this way,
and the gradients of all are summed before they are applied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convae.layers.summary import layer_names
from convae.models.builder import stack
from convae.runtime import plan as runtime
from convae.runtime.backend import keras, tf
from convae.runtime.replicas import ALONE, Replicas

if TYPE_CHECKING:
    from convae.config.schema import Config
    from convae.layers.spec import Layer
    from convae.runtime.plan import Plan

Images = NDArray[np.uint8]  # (N, H, W, C)
Activation = Callable[[Any], Any]


class Engine:
    """Trains, evaluates and predicts with one model of a config; images are uint8 (N, H, W, C).

    Targets are images of the config's `output_shape`, or for a sparse_categorical_crossentropy
    the class of each pixel, uint8 (N, H, W, 1).
    """

    def __init__(
        self,
        model: Any,
        config: Config,
        plan: Plan,
        optimizer: Any = None,
        replicas: Replicas = ALONE,
    ) -> None:
        loss = config.training.loss
        names = layer_names(config.model.layers)
        self._layers = list(zip(names, config.model.layers, stack(model), strict=True))
        self._centerd = config.model.zero_center
        self._loss = LOSSES[loss]
        if config.task.type == "segment":
            self._loss = partial(self._loss, weight=config.task.foreground_weight)
        self._plan = plan
        self._dtype = tf.bfloat16 if plan.precision == "mixed_bfloat16" else tf.float32
        self._variables = model.trainable_variables
        self._optimizer = optimizer
        self._replicas = replicas
        if optimizer is not None:
            with replicas.scope():
                optimizer.build(self._variables)
        self._shape = tuple(model.output_shape[1:])
        classes = loss == "sparse_categorical_crossentropy"
        inputs = tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)
        targets = tf.TensorSpec(
            (None, *self._shape[:2], 1 if classes else self._shape[2]), tf.uint8
        )

        def compiled(function: Callable[..., Any], *specs: Any) -> Callable[..., Any]:
            # One graph for every batch size: the last batch of an epoch may be smaller. It is
            # called directly, for tf.function's search among its graphs takes 1 ms a call, which
            # is much where a step takes 5.
            traced = tf.function(
                function, input_signature=specs, jit_compile=plan.jit_compile, autograph=False
            )

            @cache
            def graph() -> Any:
                found = traced.get_concrete_function()
                runtime.pin_threads(plan)  # by now TensorFlow has started its threads
                return found

            return lambda *arrays: graph()(*map(tf.constant, arrays))

        # Nor must workers trace apart, whatever parts they have: that would count as a collective.
        self._train = compiled(self._train_step, inputs, targets, tf.TensorSpec((2,), tf.float32))
        self._evaluate = compiled(self._loss_sum, inputs, targets)
        self._predict = compiled(self._outputs, inputs)

    def train_step(self, inputs: Images, targets: Images) -> float:
        """One optimizer step on a batch; returns its mean loss, from before the step."""
        return self.step(inputs, targets, len(inputs))[0]

    def step(
        self, inputs: Images, targets: Images, count: int, *, stop: bool = False
    ) -> tuple[float, bool]:
        """One optimizer step on a batch of `count` examples, of which these are this worker's part.

        Returns the mean loss over the whole batch, from before the step, and whether any worker
        wishes to `stop`. A collective: see replicas.py.
        """
        loss, wishes = self._train(inputs, targets, np.array([count, stop], np.float32)).numpy()
        return float(loss), bool(wishes)

    def evaluate(self, inputs: Images, targets: Images, batch_size: int = 1000) -> float:
        """The mean loss over all inputs, of which each worker takes its part. A collective."""
        mine = self._replicas.part(len(inputs))
        starts = range(mine.start, mine.stop, batch_size)
        batches = (slice(start, min(start + batch_size, mine.stop)) for start in starts)
        total = sum(float(self._evaluate(inputs[batch], targets[batch])) for batch in batches)
        total, count = self._replicas.sum([total, mine.stop - mine.start])
        return total / count

    def predict(self, inputs: Images, batch_size: int = 1000) -> NDArray[np.float32]:
        """What the model makes of the inputs, clipped to [0, 1], float32 (N, H, W, C)."""
        result = np.empty((len(inputs), *self._shape), np.float32)
        for start in range(0, len(inputs), batch_size):
            result[start : start + batch_size] = self._predict(inputs[start : start + batch_size])
        return result

    def _train_step(self, inputs: Any, targets: Any, asked: Any) -> Any:
        count, stop = asked[0], asked[1]

        def replica() -> Any:
            variables = [variable.value for variable in self._variables]

            def gradients(batch: Any, target: Any) -> list[Any]:
                with tf.GradientTape() as tape:
                    loss = tf.reduce_sum(self._loss(target, *self._forward(batch)))
                return [loss, *tape.gradient(loss, variables)]

            zeros = [tf.zeros(()), *(tf.zeros(v.shape) for v in variables)]
            share = self._replicas.share((inputs, targets))
            loss, *summed = self._sum(gradients, share, zeros)
            # By the count of all replicas: the optimizer adds up what each of them hands in.
            self._optimizer.apply([gradient / count for gradient in summed], self._variables)
            return tf.stack([loss / count, stop])

        return self._replicas.total(replica)

    def _loss_sum(self, inputs: Any, targets: Any) -> Any:
        def loss(batch: Any, target: Any) -> list[Any]:
            return [tf.reduce_sum(self._loss(target, *self._forward(batch)))]

        def replica() -> Any:
            share = self._replicas.share((inputs, targets))
            return self._sum(loss, share, [tf.zeros(())])[0]

        return self._replicas.total_here(replica)

    def _outputs(self, inputs: Any) -> Any:
        def shard(start: Any, stop: Any) -> Any:
            size = self._plan.micro_batch_size
            slices = -(-(stop - start) // size)

            def body(i: Any, parts: Any) -> Any:
                begin = start + i * size
                logits, activation = self._forward(inputs[begin : tf.minimum(begin + size, stop)])
                # A linear last layer may leave the gray scale, which no picture does.
                outputs = tf.clip_by_value(activation(logits), 0.0, 1.0)
                return i + 1, parts.write(i, outputs)

            parts = tf.TensorArray(
                tf.float32, slices, infer_shape=False, element_shape=(None, *self._shape)
            )
            loop = tf.while_loop(lambda i, _: i < slices, body, (0, parts), parallel_iterations=1)
            return loop[1].concat()

        return tf.concat([shard(*bounds) for bounds in self._bounds(inputs)], axis=0)

    def _sum(
        self, function: Callable[..., list[Any]], arrays: Sequence[Any], zeros: list[Any]
    ) -> list[Any]:
        """The sum of `function` over all micro-batches, shards side by side."""
        size = self._plan.micro_batch_size

        def shard(start: Any, stop: Any) -> Any:
            def body(begin: Any, sums: list[Any]) -> Any:
                parts = [array[begin : tf.minimum(begin + size, stop)] for array in arrays]
                return begin + size, [a + b for a, b in zip(sums, function(*parts), strict=True)]

            # Shards share no data, so TensorFlow runs these loops at the same time.
            return tf.while_loop(
                lambda begin, _: begin < stop, body, (start, zeros), parallel_iterations=1
            )[1]

        shards = [shard(*bounds) for bounds in self._bounds(arrays[0])]
        return [tf.add_n(list(parts)) for parts in zip(*shards, strict=True)]

    def _bounds(self, images: Any) -> list[tuple[Any, Any]]:
        """Where each shard's share of a batch begins and ends."""
        count, shards = tf.shape(images)[0], self._plan.threads
        return [(count * s // shards, count * (s + 1) // shards) for s in range(shards)]

    def _forward(self, inputs: Any) -> tuple[Any, Activation]:
        """The last layer's values before its activation, in float32, and that activation.

        With mixed_bfloat16 the kernels, which stay float32, are cast where they are used, and all
        that lies between the input and the last layer's values is bfloat16. The loss is not.
        """
        x = _scaled(inputs)
        x = tf.cast(2.0 * x - 1.0 if self._centerd else x, self._dtype)
        known: dict[str, Any] = {}
        for name, spec, layer in self._layers[:-1]:
            x = known[name] = layer.activation(_linear(spec, layer, _joined(x, spec, known)))
        _, spec, layer = self._layers[-1]
        return tf.cast(_linear(spec, layer, _joined(x, spec, known)), tf.float32), layer.activation


def _joined(x: Any, spec: Layer, known: Mapping[str, Any]) -> Any:
    return tf.concat([x, known[spec.skip]], axis=-1) if spec.skip else x


def _linear(spec: Layer, layer: Any, x: Any) -> Any:
    """A layer up to its activation, in the dtype of `x`: the operations that Keras' layers call."""
    dtype = x.dtype
    if max(layer.dilation_rate) > 1:  # TensorFlow's CPU kernels have its gradient in float32 alone
        x = tf.cast(x, tf.float32)
    if spec.type == "resize_conv":
        x = _grown(x, spec.strides, spec.interpolation)
    kernel = tf.cast(layer.kernel.value, x.dtype)
    options = {
        "strides": layer.strides,
        "padding": layer.padding,
        "dilation_rate": layer.dilation_rate,
    }
    if spec.type != "conv_transpose":
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
    if spec.type == "depth_to_space":  # its activation, which is to come, changes no order
        y = _dealt(y, spec.strides)
    return tf.cast(y, dtype)


def _grown(x: Any, strides: tuple[int, int], interpolation: str) -> Any:
    """Images (N, H, W, C) `strides` times as large, as keras.layers.UpSampling2D makes them."""
    (rows, columns), (_, height, width, channels) = strides, x.shape
    if interpolation == "nearest":
        # Copies side by side in memory: first of each pixel, then of each line. tf.repeat tiles
        # shapes in int32, of which oneDNN complains on processors without AVX-512.
        x = tf.reshape(tf.concat([x] * columns, axis=3), (-1, height, width * columns, channels))
        x = tf.concat([x] * rows, axis=2)
        return tf.reshape(x, (-1, height * rows, width * columns, channels))
    size = (height * rows, width * columns)
    return tf.cast(tf.image.resize(x, size, "bilinear"), x.dtype)


def _dealt(x: Any, strides: tuple[int, int]) -> Any:
    """The channels of (N, H, W, C * rows * columns) as blocks of rows * columns pixels."""
    rows, columns = strides
    _, height, width, channels = x.shape
    x = tf.reshape(x, (-1, height, width, rows, columns, channels // (rows * columns)))
    x = tf.transpose(x, (0, 1, 3, 2, 4, 5))
    return tf.reshape(x, (-1, height * rows, width * columns, channels // (rows * columns)))


def _is_plain(layer: Any) -> bool:
    """Stride 1, and nothing is cut off or added."""
    strided = max(layer.strides) > 1 or layer.padding != "valid"
    return not strided and layer.output_padding is None


def _binary_crossentropy(target: Any, logits: Any, _: Activation) -> Any:
    # From the logits, in float32: log(sigmoid(z)) of a large z would round to log(1).
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=_scaled(target), logits=logits)
    return tf.reduce_mean(losses, axis=(1, 2, 3))


def _mean_squared_error(target: Any, logits: Any, activation: Activation) -> Any:
    return tf.reduce_mean(tf.square(activation(logits) - _scaled(target)), axis=(1, 2, 3))


def _sparse_categorical_crossentropy(
    target: Any, logits: Any, _: Activation, weight: float = 1.0
) -> Any:
    labels = tf.cast(target[..., 0], tf.int32)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    if weight != 1.0:  # the last class is the background, of which there is most
        losses *= tf.where(labels < logits.shape[-1] - 1, weight, 1.0)
    return tf.reduce_mean(losses, axis=(1, 2))


# Each gives one value per image, from the targets as bytes, the last layer's values before its
# activation, and the activation.
LOSSES: dict[str, Callable[..., Any]] = {
    "binary_crossentropy": _binary_crossentropy,
    "mean_squared_error": _mean_squared_error,
    "sparse_categorical_crossentropy": _sparse_categorical_crossentropy,
}


def _scaled(images: Any) -> Any:
    """uint8 pixels to float32 in [0, 1], inside the graph: in memory they stay bytes."""
    return tf.cast(images, tf.float32) / 255.0
