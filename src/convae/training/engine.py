"""The compiled steps: a batch in micro-batches that fit the cache, in parallel shards, one a core.

A step over a batch of B images computes what one step over the whole batch computes: the gradients
of all micro-batches are summed and applied once. The slices and the order of the sums are fixed, so
the same inputs give the same bits. With several replicas each takes its part of the batch in this
way, and the gradients of all are summed before they are applied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from convae.arrays import Floats, Images
from convae.layers.summary import layer_names
from convae.models.builder import layer_stack
from convae.models.layers import layer_ops
from convae.runtime.backend import keras, tf
from convae.runtime.replicas import SINGLE, Replicas
from convae.runtime.start import pin_threads

if TYPE_CHECKING:
    from convae.config.schema import Config
    from convae.runtime.plan import Plan

Activation = Callable[[Any], Any]


class Engine:
    """Trains, evaluates and predicts with the model of a config.

    Inputs are images, uint8 (N, H, W, C). Targets are images of the config's `output_shape`, or
    with the loss sparse_categorical_crossentropy the class of each pixel, uint8 (N, H, W, 1).

    Args:
        model: The Keras model that `build_model` returns for `config`.
        config: Its `model`, `training.loss` and `task` decide what is computed.
        plan: The precision, the number of shards (`threads`) and the size of a micro-batch.
        optimizer: A Keras optimizer; None if only `evaluate` and `predict` are called.
        replicas: The copies of the model that train together.
    """

    def __init__(
        self,
        model: Any,
        config: Config,
        plan: Plan,
        optimizer: Any = None,
        replicas: Replicas = SINGLE,
    ) -> None:
        self._plan, self._zero_center = plan, config.model.zero_center
        self._specs = config.model.layers
        self._names, self._stack = layer_names(self._specs), layer_stack(model, config.model)
        self._loss = partial(LOSSES[config.training.loss], **config.task.loss_options)
        self._dtype = tf.bfloat16 if plan.precision == "mixed_bfloat16" else tf.float32
        self._variables = model.trainable_variables
        self._optimizer, self._replicas = optimizer, replicas
        if optimizer is not None:
            with replicas.scope():
                optimizer.build(self._variables)
        self._shape = tuple(model.output_shape[1:])
        classes = config.training.loss == "sparse_categorical_crossentropy"
        inputs = tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)
        targets = tf.TensorSpec(
            (None, *self._shape[:2], 1 if classes else self._shape[2]), tf.uint8
        )
        # Workers must not trace apart, whatever parts they have: it would count as a collective.
        count_and_stop = tf.TensorSpec((2,), tf.float32)
        self._train = self._compile(self._train_step, inputs, targets, count_and_stop)
        self._evaluate = self._compile(self._loss_sum, inputs, targets)
        self._predict = self._compile(self._outputs, inputs)

    def _compile(self, function: Callable[..., Any], *specs: Any) -> Callable[..., Any]:
        """Return a function of arrays that runs one graph for every batch size."""
        traced = tf.function(
            function, input_signature=specs, jit_compile=self._plan.jit_compile, autograph=False
        )

        @cache
        def graph() -> Any:
            found = traced.get_concrete_function()
            pin_threads(self._plan)  # by now TensorFlow has started its threads
            return found

        # Not `traced` itself: its search among its graphs takes 1 ms a call, and a step may take 5.
        return lambda *arrays: graph()(*map(tf.constant, arrays))

    def step(
        self, inputs: Images, targets: Images, count: int | None = None, *, stop: bool = False
    ) -> tuple[float, bool]:
        """Update the weights by one batch of all workers. A collective: see replicas.py.

        Args:
            inputs: This worker's part of the batch.
            targets: The targets of `inputs`.
            count: The number of examples of the batch on all workers together, if not len(inputs).
            stop: Whether this worker requests to stop.

        Returns:
            The mean loss over the whole batch, from before the update, and whether any worker
            requests to stop.
        """
        count_and_stop = np.array([count or len(inputs), stop], np.float32)
        loss, stops = self._train(inputs, targets, count_and_stop).numpy()
        return float(loss), bool(stops)

    def evaluate(self, inputs: Images, targets: Images, batch_size: int = 1000) -> float:
        """Return the mean loss over all inputs. A collective: each worker takes its part."""
        mine = self._replicas.worker_slice(len(inputs))
        starts = range(mine.start, mine.stop, batch_size)
        batches = (slice(start, min(start + batch_size, mine.stop)) for start in starts)
        total = sum(float(self._evaluate(inputs[batch], targets[batch])) for batch in batches)
        total, count = self._replicas.all_reduce_sum([total, mine.stop - mine.start])
        return total / count

    def predict(self, inputs: Images, batch_size: int = 1000) -> Floats:
        """Return the model's outputs clipped to [0, 1], float32 (N, H, W, C)."""
        result = np.empty((len(inputs), *self._shape), np.float32)
        for start in range(0, len(inputs), batch_size):
            result[start : start + batch_size] = self._predict(inputs[start : start + batch_size])
        return result

    def _train_step(self, inputs: Any, targets: Any, count_and_stop: Any) -> Any:
        count, stop = count_and_stop[0], count_and_stop[1]

        def replica() -> Any:
            variables = [variable.value for variable in self._variables]

            def gradients(batch: Any, target: Any) -> list[Any]:
                with tf.GradientTape() as tape:
                    (loss,) = self._losses(batch, target)
                return [loss, *tape.gradient(loss, variables)]

            zeros = [tf.zeros(()), *(tf.zeros(v.shape) for v in variables)]
            examples = self._replicas.replica_shard((inputs, targets))
            loss, *sums = self._sum(gradients, examples, zeros)
            # Divided by the count of all replicas: the optimizer sums the gradients of all.
            self._optimizer.apply([gradient / count for gradient in sums], self._variables)
            return tf.stack([loss / count, stop])

        return self._replicas.run_and_sum(replica)

    def _loss_sum(self, inputs: Any, targets: Any) -> Any:
        def replica() -> Any:
            examples = self._replicas.replica_shard((inputs, targets))
            return self._sum(self._losses, examples, [tf.zeros(())])[0]

        return self._replicas.run_and_sum_local(replica)

    def _losses(self, batch: Any, target: Any) -> list[Any]:
        return [tf.reduce_sum(self._loss(target, *self._forward(batch)))]

    def _outputs(self, inputs: Any) -> Any:
        def shard(start: Any, stop: Any) -> Any:
            size = self._plan.micro_batch_size
            count = -(-(stop - start) // size)

            def body(i: Any, results: Any) -> Any:
                begin = start + i * size
                logits, activation = self._forward(inputs[begin : tf.minimum(begin + size, stop)])
                # A linear last layer may leave [0, 1], which no image does.
                outputs = tf.clip_by_value(activation(logits), 0.0, 1.0)
                return i + 1, results.write(i, outputs)

            results = tf.TensorArray(
                tf.float32, count, infer_shape=False, element_shape=(None, *self._shape)
            )
            loop = tf.while_loop(lambda i, _: i < count, body, (0, results), parallel_iterations=1)
            return loop[1].concat()

        return tf.concat([shard(*bounds) for bounds in self._bounds(inputs)], axis=0)

    def _sum(
        self, function: Callable[..., list[Any]], arrays: Sequence[Any], zeros: list[Any]
    ) -> list[Any]:
        """Return the sums of `function` over all micro-batches, with the shards in parallel."""
        size = self._plan.micro_batch_size

        def shard(start: Any, stop: Any) -> Any:
            def body(begin: Any, sums: list[Any]) -> Any:
                batch = [array[begin : tf.minimum(begin + size, stop)] for array in arrays]
                return begin + size, [a + b for a, b in zip(sums, function(*batch), strict=True)]

            # Shards share no data, so TensorFlow runs these loops at the same time.
            return tf.while_loop(
                lambda begin, _: begin < stop, body, (start, zeros), parallel_iterations=1
            )[1]

        shards = [shard(*bounds) for bounds in self._bounds(arrays[0])]
        return [tf.add_n(list(sums)) for sums in zip(*shards, strict=True)]

    def _bounds(self, images: Any) -> list[tuple[Any, Any]]:
        """Return where each shard of a batch begins and ends."""
        count, shards = tf.shape(images)[0], self._plan.threads
        return [(count * s // shards, count * (s + 1) // shards) for s in range(shards)]

    def _forward(self, inputs: Any) -> tuple[Any, Activation]:
        """Return the last layer's values before its activation, in float32, and that activation.

        With mixed_bfloat16 everything between the input and the last layer's values is bfloat16.
        The weights stay float32 and are cast where they are used; the loss is float32.
        """
        x = _scaled(inputs)
        x = tf.cast(2.0 * x - 1.0 if self._zero_center else x, self._dtype)
        identity = keras.activations.linear
        outputs: dict[str, Any] = {}
        last, activation = "image", identity
        for name, spec, layer in zip(self._names, self._specs, self._stack, strict=True):
            x = outputs[last] = activation(x)
            if spec.skip:
                x = tf.concat([x, outputs[spec.skip]], axis=-1)
            x = layer_ops(spec.type).forward(spec, layer, x)
            last, activation = name, getattr(layer, "activation", identity)
        return tf.cast(x, tf.float32), activation


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
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    if weight != 1.0:  # the last class is the background
        losses *= tf.where(labels < logits.shape[-1] - 1, weight, 1.0)
    return tf.reduce_mean(losses, axis=(1, 2))


# Each returns one value per image, from the targets as bytes, the last layer's values before its
# activation, and that activation.
LOSSES: dict[str, Callable[..., Any]] = {
    "binary_crossentropy": _binary_crossentropy,
    "mean_squared_error": _mean_squared_error,
    "sparse_categorical_crossentropy": _sparse_categorical_crossentropy,
}


def _scaled(images: Any) -> Any:
    """Return uint8 pixels as float32 in [0, 1], inside the graph: in memory they stay bytes."""
    return tf.cast(images, tf.float32) / 255.0
