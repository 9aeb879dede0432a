"""The compiled steps: a batch in micro-batches that fit the cache, in parallel shards, one a core.

A step over a batch of B images computes what one step over the whole batch computes: the gradients
of all micro-batches are summed and applied once. The slices and the order of the sums are fixed, so
the same inputs give the same bits. With several replicas each takes its part of the batch in this
way, and the gradients of all are summed before they are applied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from convae.arrays import Floats, Images
from convae.layers.summary import layer_names
from convae.models.builder import layer_stack
from convae.models.layers import layer_ops
from convae.runtime.backend import float32, keras, tf
from convae.runtime.replicas import SINGLE, Replicas
from convae.runtime.start import pin_threads
from convae.training.optimizers import update_shapes

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
            with replicas.scope(), float32():
                self._updated = [
                    keras.Variable(np.zeros(shape, np.float32), dtype="float32")
                    for shape in update_shapes(self._variables, optimizer)
                ]
                optimizer.build(self._updated)
        self._shape = tuple(model.output_shape[1:])
        classes = config.training.loss == "sparse_categorical_crossentropy"
        inputs = tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)
        targets = tf.TensorSpec(
            (None, *self._shape[:2], 1 if classes else self._shape[2]), tf.uint8
        )
        # Workers must not trace apart, whatever parts they have: it would count as a collective.
        sizes, stop = tf.TensorSpec((None, 2), tf.int32), tf.TensorSpec((), tf.float32)
        self._train = self._compile(self._train_steps, inputs, targets, sizes, stop)
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

    def step(self, inputs: Images, targets: Images) -> float:
        """Update the weights by one batch; return its mean loss, from before the update."""
        return float(self.steps(inputs, targets, [(len(inputs), len(inputs))])[0][0])

    def steps(
        self, inputs: Images, targets: Images, sizes: Sequence[tuple[int, int]], stop: bool = False
    ) -> tuple[Floats, bool]:
        """Update the weights by several batches in one call. A collective: see replicas.py.

        Args:
            inputs: This worker's parts of all batches, one after the other.
            targets: The targets of `inputs`.
            sizes: For each batch the number of its examples on this worker, and on all workers.
            stop: Whether this worker requests to stop.

        Returns:
            The mean loss over each batch, from before its update, and whether any worker requests
            to stop.
        """
        result = self._train(inputs, targets, np.array(sizes, np.int32), np.float32(stop)).numpy()
        return result[:-1], bool(result[-1])

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the model the moving averages of its weights, if the optimizer keeps them."""
        if not self._optimizer.use_ema:
            yield
            return
        held = [variable.numpy() for variable in self._variables]
        self._optimizer.finalize_variable_values(self._updated)
        _copy(self._updated, self._variables)
        try:
            yield
        finally:
            for variable, value in zip(self._variables, held, strict=True):
                variable.assign(value)

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

    def _train_steps(self, inputs: Any, targets: Any, sizes: Any, stop: Any) -> Any:
        """Update the weights by several batches; return each one's mean loss, and the stops."""
        _copy(self._variables, self._updated)

        def body(step: Any, begin: Any, losses: Any, _: Any) -> Any:
            mine, count = sizes[step, 0], tf.cast(sizes[step, 1], tf.float32)
            examples = [array[begin : begin + mine] for array in (inputs, targets)]
            summed = self._replicas.run_and_sum(lambda: self._gradient(examples, count, stop))
            with float32():  # muon computes a factor in floatx
                self._optimizer.apply(_split(summed[2:], self._updated), self._updated)
            return step + 1, begin + mine, losses.write(step, summed[0]), summed[1]

        count = tf.shape(sizes)[0]
        losses = tf.TensorArray(tf.float32, count, element_shape=())
        _, _, losses, stops = tf.while_loop(
            lambda step, *_: step < count, body, (0, 0, losses, 0.0), parallel_iterations=1
        )
        _copy(self._updated, self._variables)
        return tf.concat([losses.stack(), [stops]], 0)

    def _gradient(self, examples: Sequence[Any], count: Any, stop: Any) -> Any:
        """Return this replica's share of mean loss, stops and gradient, in one vector."""
        weights = _split(_join(self._updated), self._variables)

        def loss_and_gradient(batch: Any, target: Any) -> Any:
            held = [tf.identity(value) for value in weights]  # a tape sees no outer graph's tensors
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(held)
                with keras.StatelessScope(list(zip(self._variables, held, strict=True))):
                    loss = self._losses(batch, target)
            gradients = tape.gradient(loss, held)
            return tf.concat([loss, _join(gradients)], 0)

        zeros = tf.zeros(1 + sum(math.prod(variable.shape) for variable in self._variables))
        sums = self._sum(loss_and_gradient, self._replicas.replica_shard(examples), zeros) / count
        return tf.concat([sums[:1], [stop], sums[1:]], 0)

    def _loss_sum(self, inputs: Any, targets: Any) -> Any:
        def replica() -> Any:
            examples = self._replicas.replica_shard((inputs, targets))
            return self._sum(self._losses, examples, tf.zeros(1))[0]

        return self._replicas.run_and_sum_local(replica)

    def _losses(self, batch: Any, target: Any) -> Any:
        return tf.reduce_sum(self._loss(target, *self._forward(batch)))[tf.newaxis]

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

    def _sum(self, function: Callable[..., Any], arrays: Sequence[Any], zeros: Any) -> Any:
        """Return the sum of `function` over all micro-batches, with the shards in parallel."""
        size = self._plan.micro_batch_size

        @partial(tf.function, autograph=False)  # traced once for all shards
        def shard(start: Any, stop: Any) -> Any:
            def body(begin: Any, total: Any) -> Any:
                batch = [array[begin : tf.minimum(begin + size, stop)] for array in arrays]
                return begin + size, total + function(*batch)

            # Shards share no data, so TensorFlow runs these loops at the same time.
            return tf.while_loop(
                lambda begin, _: begin < stop, body, (start, zeros), parallel_iterations=1
            )[1]

        return tf.add_n([shard(*bounds) for bounds in self._bounds(arrays[0])])

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


def _join(values: Sequence[Any]) -> Any:
    """Return the numbers of variables or tensors in one vector."""
    return tf.concat([tf.reshape(value, [-1]) for value in values], 0)


def _split(vector: Any, shaped: Sequence[Any]) -> list[Any]:
    """Return the parts of `vector` in the shapes of the variables `shaped`."""
    parts = tf.split(vector, [math.prod(variable.shape) for variable in shaped])
    return [tf.reshape(part, v.shape) for part, v in zip(parts, shaped, strict=True)]


def _copy(source: Sequence[Any], target: Sequence[Any]) -> None:
    """Assign the numbers of variables to others, whose shapes may divide them differently."""
    for variable, value in zip(target, _split(_join(source), target), strict=True):
        variable.assign(value)


def _scaled(images: Any) -> Any:
    """Return uint8 pixels as float32 in [0, 1], inside the graph: in memory they stay bytes."""
    return tf.cast(images, tf.float32) / 255.0
