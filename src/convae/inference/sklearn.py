"""`ConvAutoencoder`: a convolutional autoencoder as a scikit-learn transformer."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from numbers import Real
from typing import Any, Literal, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convae.config.schema import Config, Training
from convae.errors import UnsupportedError
from convae.layers.spec import Conv, ConvTranspose, Layer, Model

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError:
    raise UnsupportedError(
        "ConvAutoencoder needs scikit-learn: pip install 'convae[sklearn]'"
    ) from None

Shape = tuple[int, int, Literal[1, 3]]  # height, width, channels
SMALLEST = 4  # an axis is halved while it is longer than this
FILTERS, WIDEST = 16, 64  # of the first layer, and at most: each halving doubles them


class ConvAutoencoder(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc] # scikit-learn has no types
    TransformerMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """Encode rows of pixels as `code_size` numbers, and decode them, as PCA does.

    The model is built, trained and run by the same code as those of a YAML config: convolutions of
    stride 2, then one that covers what is left, and the mirror image of these. The pixels are
    scaled to [0, 1] by the lowest and highest value in `fit`, *of all features together*, and kept
    as 256 gray levels. For features of different scales, put a MinMaxScaler in front. Values
    outside the range of `fit` are clipped.

    Args:
        code_size: Numbers in a code.
        input_shape: (height, width, channels) of the image in a row, channels 1 or 3; None for a
            square gray one, or one of height 1 if the number of features is no square.
        epochs: Passes over the rows.
        batch_size: Rows in a batch.
        learning_rate: Of Adam.
        random_state: An int for the same bits each time.

    Attributes:
        config_: The config, as `convae.load_config` would give it.
        state_: The arrays of the model's weights, then of the optimizer.
        history_: The mean loss of each epoch, binary cross-entropy in nats per pixel.
        data_min_: The lowest value in `fit`.
        data_max_: The highest value in `fit`.
        n_features_in_: Pixels in a row.

    >>> import numpy as np
    >>> from convae import ConvAutoencoder
    >>> X = np.random.default_rng(0).random((20, 64))
    >>> estimator = ConvAutoencoder(code_size=4, epochs=2, random_state=0).fit(X)
    >>> estimator.transform(X).shape, estimator.inverse_transform(estimator.transform(X)).shape
    ((20, 4), (20, 64))
    """

    def __init__(
        self,
        code_size: int = 8,
        *,
        input_shape: tuple[int, int, int] | None = None,
        epochs: int = 25,
        batch_size: int = 100,
        learning_rate: float = 1e-3,
        random_state: Any = None,
    ) -> None:
        self.code_size = code_size
        self.input_shape = input_shape
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: object = None) -> Self:  # noqa: N803
        """Train a new model on the rows of `X` (N, features); `y` is ignored."""
        self._check_parameters()
        values = self._validate(X, reset=True)
        self._begin(values)
        return self._train(values, self.epochs)

    def partial_fit(self, X: ArrayLike, y: object = None) -> Self:  # noqa: N803
        """Train for one more epoch; the first call sets the scale and shape."""
        self._check_parameters()
        first = not hasattr(self, "state_")
        values = self._validate(X, reset=first)
        if first:
            self._begin(values)
        return self._train(values, 1)

    def transform(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """Return the codes (N, code_size) of the rows of `X`, in the dtype of `X`."""
        check_is_fitted(self)
        values = self._validate(X)
        with self._compiled() as model:
            codes = model.autoencoder.encode(self._images(values))
        return np.asarray(codes.reshape(len(codes), -1), values.dtype)

    def inverse_transform(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """Return the rows (N, features), in the scale of the data, of codes (N, code_size)."""
        check_is_fitted(self)
        codes = np.asarray(X)
        if codes.ndim != 2 or codes.shape[1] != self._n_features_out:
            raise ValueError(
                f"codes must be (N, {self._n_features_out}), as transform gives them. "
                f"Received: {codes.shape}"
            )
        with self._compiled() as model:
            images = model.autoencoder.decode(codes[:, None, None])
        return self._rows(images)

    def score(self, X: ArrayLike, y: object = None) -> float:  # noqa: N803
        """Return the negative mean squared error of the reconstructions of `X`.

        It is in the scale of the data; larger is better, as in scikit-learn's model selection.
        """
        check_is_fitted(self)
        values = self._validate(X)
        with self._compiled() as model:
            outputs = model.autoencoder.reconstruct(self._images(values))
        return -float(np.square(self._rows(outputs) - values).mean())

    @property
    def _n_features_out(self) -> int:
        return int(self.config_.model.encoder[-1].filters)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _check_parameters(self) -> None:
        for name in ("code_size", "epochs", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be an integer of 1 or more. Received: {value!r}")
        rate: Any = self.learning_rate
        number = isinstance(rate, Real) and not isinstance(rate, bool)
        if not number or not 0 < float(rate) < math.inf:
            raise ValueError(f"learning_rate must be a number above 0. Received: {rate!r}")

    def _validate(self, X: ArrayLike, *, reset: bool = False) -> NDArray[Any]:  # noqa: N803
        return np.asarray(validate_data(self, X, reset=reset, dtype=[np.float64, np.float32]))

    def _begin(self, values: NDArray[Any]) -> None:
        """Set the scale, the config, and the initial weights and optimizer."""
        self.data_min_, self.data_max_ = float(values.min()), float(values.max())
        seed = int(check_random_state(self.random_state).randint(2**31))
        shape = image_shape(self.n_features_in_, self.input_shape)
        model = build(shape, int(self.code_size))
        training = Training(
            epochs=int(self.epochs),
            batch_size=int(self.batch_size),
            learning_rate=float(self.learning_rate),
        )
        self.config_ = Config(name="estimator", seed=seed, model=model, training=training)
        self.history_: list[float] = []
        self.state_ = _compiled_model(self.config_).initial_state(self.config_)

    def _train(self, values: NDArray[Any], epochs: int) -> Self:
        from convae.training.batches import epoch_order

        images = self._images(values)
        count, size = len(images), int(self.batch_size)
        with self._compiled() as model:
            model.optimizer.learning_rate = self.learning_rate
            for _ in range(epochs):
                order = epoch_order(self.config_.seed, len(self.history_), count, count)
                batches = [images[order[start : start + size]] for start in range(0, count, size)]
                losses = [model.engine.step(batch, batch) * len(batch) for batch in batches]
                self.history_.append(math.fsum(losses) / count)
            self.state_ = model.state
        return self

    def _images(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        scale = (self.data_max_ - self.data_min_) or 1.0
        scaled = np.clip((values - self.data_min_) / scale, 0, 1)
        shape = self.config_.model.input_shape
        return np.rint(scaled * 255).astype(np.uint8).reshape(-1, *shape)

    def _rows(self, images: NDArray[Any]) -> NDArray[Any]:
        rows = images.reshape(len(images), -1).astype(np.float64)
        return rows * (self.data_max_ - self.data_min_) + self.data_min_

    def _compiled(self) -> Any:
        return _compiled_model(self.config_).holding(self.state_)


def image_shape(features: int, given: Sequence[int] | None) -> Shape:
    """Return the shape of the image in a row of `features` pixels; ValueError if it cannot be."""
    if given is None:
        side = math.isqrt(features)
        return (side, side, 1) if side * side == features else (1, features, 1)
    sizes = list(given) if isinstance(given, Sequence | np.ndarray) else []
    whole = all(isinstance(s, int | np.integer) and not isinstance(s, bool) for s in sizes)
    shape = tuple(int(size) for size in sizes) if whole else ()
    if len(shape) != 3 or min(shape) < 1 or shape[2] not in {1, 3} or math.prod(shape) != features:
        raise ValueError(
            f"input_shape must be (height, width, 1 or 3) with a product of {features}, the number "
            f"of features. Received: {given!r}"
        )
    return cast(Shape, shape)


def build(shape: Shape, code_size: int) -> Model:
    """Return the layers for images of any `shape` and codes of 1x1x`code_size`."""
    size: tuple[int, int] = shape[:2]
    levels: list[tuple[tuple[int, int], tuple[int, int], tuple[int, int]]] = []
    while max(size) > SMALLEST:
        strides = (1 + (size[0] > SMALLEST), 1 + (size[1] > SMALLEST))
        smaller = (-(-size[0] // strides[0]), -(-size[1] // strides[1]))
        # A transposed convolution with an odd kernel gives (smaller - 1) * strides + 1 pixels.
        missing = (
            size[0] - (smaller[0] - 1) * strides[0] - 1,
            size[1] - (smaller[1] - 1) * strides[1] - 1,
        )
        levels.append((strides, missing, (3 if size[0] > 1 else 1, 3 if size[1] > 1 else 1)))
        size = smaller
    widths = [min(FILTERS * 2**level, WIDEST) for level in range(len(levels))]
    relu: dict[str, Any] = {"activation": "relu", "kernel_initializer": "he_normal"}
    encoder: list[Layer] = [
        Conv(type="conv", filters=f, kernel_size=k, strides=s, padding="same", **relu)
        for (s, _, k), f in zip(levels, widths, strict=True)
    ]
    encoder.append(Conv(type="conv", filters=code_size, kernel_size=size))
    # The outputs of the decoder's layers mirror the inputs of the encoder's.
    outputs = [{"filters": width, **relu} for width in reversed(widths)]
    outputs.append({"filters": shape[2], "activation": "sigmoid"})
    places: list[dict[str, Any]] = [{"kernel_size": size}]
    places += [
        {"kernel_size": k, "strides": s, "padding": "same", "output_padding": missing}
        for s, missing, k in reversed(levels)
    ]
    decoder = [
        ConvTranspose(type="conv_transpose", **place, **output)
        for place, output in zip(places, outputs, strict=True)
    ]
    return Model(input_shape=shape, encoder=tuple(encoder), decoder=tuple(decoder))


class _CompiledModel:
    """A compiled model that estimators take turns to use with their own weights.

    Compiling takes a second; a grid search of a hundred fits does it once. An estimator holds
    only arrays, which can be pickled and copied.
    """

    def __init__(self, config: Config) -> None:
        from convae.inference.autoencoder import Autoencoder, make_plan
        from convae.models.builder import build_model
        from convae.runtime.backend import float32, keras
        from convae.training.engine import Engine

        model = build_model(config)
        plan = make_plan(config)
        if math.prod(config.model.input_shape) < 400:
            # Small images gain little from several threads, and one is compiled sooner.
            plan = replace(plan, threads=1)
        with float32():  # its learning rate
            self.optimizer = keras.optimizers.Adam()
        self.engine = Engine(model, config, plan, self.optimizer)
        self.autoencoder = Autoencoder(model, config)
        self._variables = (*model.weights, *self.optimizer.variables)
        self._lock = threading.Lock()

    def initial_state(self, config: Config) -> list[NDArray[Any]]:
        """Return the weights of the config's seed, and zeros for the optimizer."""
        from convae.models.builder import build_model

        zeros = [np.zeros(v.shape, v.dtype) for v in self.optimizer.variables]
        return [*build_model(config).get_weights(), *zeros]

    @property
    def state(self) -> list[NDArray[Any]]:
        """The weights, then the optimizer's variables."""
        return [np.array(variable) for variable in self._variables]

    @contextmanager
    def holding(self, state: Sequence[NDArray[Any]]) -> Iterator[_CompiledModel]:
        """Yield the model with the values of `state`, for one thread at a time."""
        with self._lock:
            for variable, array in zip(self._variables, state, strict=True):
                variable.assign(array)
            yield self


def _compiled_model(config: Config) -> _CompiledModel:
    """Return the compiled model of a config, for any seed, learning rate and number of epochs."""
    training = Training(batch_size=config.training.batch_size)
    return _cached_model(config.model_copy(update={"seed": 0, "training": training}))


_cached_model = lru_cache(maxsize=8)(_CompiledModel)
