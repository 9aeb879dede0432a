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

from convae.arrays import Array, Floats, Images
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
    with the loss sparse_categorical_crossentropy the class of each pixel, uint8 (N, H, W, 1). A
    model with a stochastic layer also takes noise, float32 in the shape of its codes. The arrays of
    examples are these, in this order.

    Attributes:
        loss_names: What a loss consists of: `loss`, and then its terms by the names that stochastic
            layers give them.

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
        self._terms = config.task.loss_terms
        self.loss_names = ("loss", *self._terms)
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
        self._scale = float(math.prod(self._shape)) if config.task.sums_loss else 1.0
        self._first_of_decoder = len(config.model.encoder)
        classes = config.training.loss == "sparse_categorical_crossentropy"
        inputs = tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)
        targets = tf.TensorSpec(
            (None, *self._shape[:2], 1 if classes else self._shape[2]), tf.uint8
        )
        examples = [inputs, targets]
        codes = tf.TensorSpec((None, *config.model_summary.code_shape), tf.float32)
        if config.task.stochastic:
            examples.append(codes)  # the noise
        # Workers must not trace apart, whatever parts they have: it would count as a collective.
        sizes, stop = tf.TensorSpec((None, 2), tf.int32), tf.TensorSpec((), tf.float32)
        self._train = self._compile(self._train_steps, sizes, stop, *examples)
        self._evaluate = self._compile(self._loss_sum, *examples)
        self._predict = self._compile(partial(self._outputs, self._forward), inputs)
        self._decode = self._compile(partial(self._outputs, self._forward_decoder), codes)

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

    def step(self, *examples: Array) -> float:
        """Update the weights by one batch; return its mean loss, from before the update."""
        count = len(examples[0])
        return float(self.steps(examples, [(count, count)])[0][0, 0])

    def steps(
        self, examples: Sequence[Array], sizes: Sequence[tuple[int, int]], stop: bool = False
    ) -> tuple[Floats, bool]:
        """Update the weights by several batches in one call. A collective: see replicas.py.

        Args:
            examples: The arrays of this worker's parts of all batches, one after the other.
            sizes: For each batch the number of its examples on this worker, and on all workers.
            stop: Whether this worker requests to stop.

        Returns:
            The mean loss over each batch and its terms (batches, loss_names), from before its
            update, and whether any worker requests to stop.
        """
        result = self._train(np.array(sizes, np.int32), np.float32(stop), *examples).numpy()
        return result[:-1].reshape(len(sizes), -1), bool(result[-1])

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

    def evaluate(self, *examples: Array, batch_size: int = 1000) -> dict[str, float]:
        """Return the mean loss over all examples, and its terms, by `loss_names`.

        Terms have the weight that they have after the warm-up. A collective: each worker takes its
        part.
        """
        mine = self._replicas.worker_slice(len(examples[0]))
        starts = range(mine.start, mine.stop, batch_size)
        batches = (slice(start, min(start + batch_size, mine.stop)) for start in starts)
        sums = np.zeros(len(self.loss_names))
        for batch in batches:
            sums += self._evaluate(*(array[batch] for array in examples)).numpy()
        *totals, count = self._replicas.all_reduce_sum([*sums, mine.stop - mine.start])
        return {name: value / count for name, value in zip(self.loss_names, totals, strict=True)}

    def predict(self, inputs: Images, batch_size: int = 1000) -> Floats:
        """Return the model's outputs clipped to [0, 1], float32 (N, H, W, C)."""
        return self._batched(self._predict, inputs, batch_size)

    def decode(self, codes: Floats, batch_size: int = 1000) -> Floats:
        """Return the outputs of codes (N, h, w, c), clipped to [0, 1], float32 (N, H, W, C)."""
        return self._batched(self._decode, codes, batch_size)

    def _batched(self, function: Callable[..., Any], inputs: Array, batch_size: int) -> Floats:
        result = np.empty((len(inputs), *self._shape), np.float32)
        for start in range(0, len(inputs), batch_size):
            result[start : start + batch_size] = function(inputs[start : start + batch_size])
        return result

    def _train_steps(self, sizes: Any, stop: Any, *arrays: Any) -> Any:
        """Update the weights by several batches; return each one's mean losses, and the stops."""
        _copy(self._variables, self._updated)

        def body(step: Any, begin: Any, losses: Any, _: Any) -> Any:
            mine, count = sizes[step, 0], tf.cast(sizes[step, 1], tf.float32)
            examples = [array[begin : begin + mine] for array in arrays]
            summed = self._replicas.run_and_sum(lambda: self._gradient(examples, count, stop))
            with float32():  # muon computes a factor in floatx
                self._optimizer.apply(_split(summed[kinds + 1 :], self._updated), self._updated)
            return step + 1, begin + mine, losses.write(step, summed[:kinds]), summed[kinds]

        count, kinds = tf.shape(sizes)[0], len(self.loss_names)
        losses = tf.TensorArray(tf.float32, count, element_shape=(kinds,))
        _, _, losses, stops = tf.while_loop(
            lambda step, *_: step < count, body, (0, 0, losses, 0.0), parallel_iterations=1
        )
        _copy(self._updated, self._variables)
        return tf.concat([tf.reshape(losses.stack(), [-1]), [stops]], 0)

    def _gradient(self, examples: Sequence[Any], count: Any, stop: Any) -> Any:
        """Return this replica's share of mean losses, stops and gradient, in one vector."""
        weights = _split(_join(self._updated), self._variables)

        done = tf.cast(self._optimizer.iterations.value, tf.float32)

        def losses_and_gradient(*batch: Any) -> Any:
            held = [tf.identity(value) for value in weights]  # a tape sees no outer graph's tensors
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(held)
                with keras.StatelessScope(list(zip(self._variables, held, strict=True))):
                    loss, *terms = self._losses(done, *batch)
            gradients = tape.gradient(loss, held)
            return tf.concat([tf.stack([loss, *terms]), _join(gradients)], 0)

        kinds = len(self.loss_names)
        zeros = tf.zeros(kinds + sum(math.prod(variable.shape) for variable in self._variables))
        sums = self._sum(losses_and_gradient, self._replicas.replica_shard(examples), zeros) / count
        return tf.concat([sums[:kinds], [stop], sums[kinds:]], 0)

    def _loss_sum(self, *arrays: Any) -> Any:
        def replica() -> Any:
            examples = self._replicas.replica_shard(arrays)

            def losses(*batch: Any) -> Any:
                return tf.stack(self._losses(math.inf, *batch))  # the weights after the warm-up

            return self._sum(losses, examples, tf.zeros(len(self.loss_names)))

        return self._replicas.run_and_sum_local(replica)

    def _losses(self, step: Any, batch: Any, target: Any, noise: Any = None) -> list[Any]:
        """Return the sums of `loss_names` over a micro-batch, with the weights at a step."""
        logits, activation, added = self._forward(batch, noise)
        loss = self._scale * tf.reduce_sum(self._loss(target, logits, activation))
        terms = [tf.reduce_sum(added[name]) for name in self._terms]
        for (weight, warmup), term in zip(self._terms.values(), terms, strict=True):
            loss += weight * (tf.minimum(step / warmup, 1.0) if warmup else 1.0) * term
        return [loss, *terms]

    def _outputs(self, forward: Callable[[Any], Any], inputs: Any) -> Any:
        def shard(start: Any, stop: Any) -> Any:
            size = self._plan.micro_batch_size
            count = -(-(stop - start) // size)

            def body(i: Any, results: Any) -> Any:
                begin = start + i * size
                logits, activation, _ = forward(inputs[begin : tf.minimum(begin + size, stop)])
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

    def _forward(self, inputs: Any, noise: Any = None) -> tuple[Any, Activation, dict[str, Any]]:
        """Return the values of `_apply` for images."""
        x = _scaled(inputs)
        return self._apply(2.0 * x - 1.0 if self._zero_center else x, 0, noise)

    def _forward_decoder(self, codes: Any) -> tuple[Any, Activation, dict[str, Any]]:
        """Return the values of `_apply` for codes."""
        return self._apply(codes, self._first_of_decoder)

    def _apply(
        self, x: Any, first: int, noise: Any = None
    ) -> tuple[Any, Activation, dict[str, Any]]:
        """Apply the layers from `first` on.

        Return the last layer's values before its activation, in float32, that activation, and the
        terms (N,) that stochastic layers add to the loss. Without noise they are not random.

        With mixed_bfloat16 everything between the input and the last layer's values is bfloat16.
        The weights stay float32 and are cast where they are used; the loss is float32.
        """
        x = tf.cast(x, self._dtype)
        identity = keras.activations.linear
        outputs: dict[str, Any] = {}
        terms: dict[str, Any] = {}
        last, activation = "image", identity
        layers = list(zip(self._names, self._specs, self._stack, strict=True))
        for name, spec, layer in layers[first:]:
            x = outputs[last] = activation(x)
            if spec.skip:
                x = tf.concat([x, outputs[spec.skip]], axis=-1)
            ops = layer_ops(spec.type)
            x = ops.forward(spec, layer, x)
            if ops.sample:
                x, added = ops.sample(tf.cast(x, tf.float32), noise)
                x, terms = tf.cast(x, self._dtype), terms | added
            last, activation = name, getattr(layer, "activation", identity)
        return tf.cast(x, tf.float32), activation, terms


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
