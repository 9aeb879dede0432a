"""The public class of a trained autoencoder: encode, decode, reconstruct, score."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from html import escape
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convae.arrays import Array, Floats, Images
from convae.config.schema import Config, Data
from convae.console import format_shape
from convae.data.image_file import ImageReader, explained
from convae.errors import ConfigError, ConvaeError, DataError, RunError, UnsupportedError
from convae.layers.summary import memory
from convae.models.builder import read_model
from convae.runs import pretrained
from convae.runs.run import Run
from convae.runtime.backend import tf
from convae.runtime.plan import Plan
from convae.runtime.start import start_in_float32
from convae.tasks import build_task
from convae.tasks.likelihood import sample_codes
from convae.training.engine import Engine

BATCH = 100  # images at once, for a Keras model without a config


def load(name: str | Path, runs_dir: str = "outputs") -> Autoencoder:
    """Load the trained autoencoder of a run, of shipped weights, or of a `.keras` file.

    Args:
        name: A run's folder, id or name, "latest", the name of weights that come with the package
            (`pretrained:NAME` where a run has the same name), or the path of a `.keras` file with
            sub-models called `encoder` and `decoder`.
        runs_dir: The folder of the runs.

    Raises:
        RunError: There is no such run or file, it has no weights, or it is damaged.

    >>> import convae
    >>> autoencoder = convae.load("mnist")
    >>> autoencoder.model.count_params()
    12785
    """
    path = Path(name)
    if path.suffix == ".keras":
        if not path.is_file():
            raise RunError(f"{path}: no such file")
        has_config = path.with_name("config.yaml").is_file()
        return Autoencoder(read_model(path), Run(path.parent).config if has_config else None)
    try:
        run = Run.find(str(name), runs_dir)
    except ConvaeError:
        if str(name) not in pretrained.names():
            raise
        run = Run.find(f"{pretrained.PREFIX}{name}", runs_dir)
    return Autoencoder(read_model(run.best), run.config)


class Autoencoder:
    """A model with its `encoder` and `decoder`, for arrays of images.

    Images are uint8 (N, H, W, C), (N, H, W) if they are gray, or a single one without N, which
    counts as a batch of one. Other integers must lie in 0 to 255. Floats must lie in [0, 1] and are
    rounded to the nearest of the 256 gray levels, as in training. Everything is computed in
    float32, in batches, so that N may be large.

    Attributes:
        model: The Keras model.
        config: The config that it was trained with, or None if that is not known.
    """

    def __init__(self, model: Any, config: Config | None = None) -> None:
        self.model = model
        self.config = config
        self._encoder, self._decoder = model.get_layer("encoder"), model.get_layer("decoder")
        self._batch, self._engine = BATCH, None
        if config is not None:
            plan = make_plan(config)
            self._batch, self._engine = plan.micro_batch_size, Engine(model, config, plan)
        self._model = _compile(model)
        self._encode, self._decode = _compile(self._encoder), _compile(self._decoder)

    def read_images(self, files: Iterable[str | Path]) -> Images:
        """Return image files as inputs of the model, uint8 (N, H, W, C).

        They are resized, cropped and drawn on a background as the images of the training were.

        Raises:
            DataError: A file cannot be read as an image.

        >>> import convae
        >>> from PIL import Image
        >>> Image.new("RGB", (60, 40)).save("photo.png")
        >>> convae.load("mnist").read_images(["photo.png"]).shape
        (1, 28, 28, 1)
        """
        shape = tuple(self.model.input_shape[1:])
        task = build_task(self.config) if self.config else None
        reader = task.reader if task else ImageReader(Data(), shape)
        read = task.read_input if task else reader.read
        images: list[Images] = []
        for path in map(Path, files):
            with explained(path):
                images.append(read(path))
        reader.log_losses(len(images))
        return np.stack(images) if images else np.empty((0, *shape), np.uint8)

    @property
    def generates(self) -> bool:
        """Whether the codes have a known distribution, so that `sample` makes images."""
        # Only a gaussian layer makes the encoder give more than the decoder takes.
        return len(self._encoder.outputs) > len(self._decoder.inputs)

    def encode(self, images: ArrayLike) -> Floats:
        """Return the codes of images, float32 (N, height, width, channels).

        >>> import convae, numpy as np
        >>> convae.load("mnist").encode(np.zeros((2, 28, 28), np.uint8)).shape
        (2, 22, 22, 8)
        """
        pixels = self._to_pixels(images)
        return self._run(self._encode, pixels, self._encoder.outputs[0].shape[1:], 255)

    def decode(self, codes: ArrayLike) -> Floats:
        """Return the images of codes, float32 (N, H, W, C) in [0, 1].

        Raises:
            DataError: The codes have another shape than those of `encode`, or are not finite.
            UnsupportedError: The model has skip connections, so that a code alone has no image.

        >>> import convae, numpy as np
        >>> convae.load("mnist").decode(np.zeros((3, 22, 22, 8))).shape
        (3, 28, 28, 1)
        """
        if len(self._decoder.inputs) > 1:
            raise UnsupportedError(
                "this model has skip connections, so its decoder needs more than the code. "
                "Use reconstruct(images)"
            )
        shape = tuple(self._decoder.inputs[0].shape[1:])
        values = np.asarray(codes)
        if values.dtype.kind not in "fiu" or not np.isfinite(values).all():
            raise DataError(f"codes must be finite numbers. Received: {values.dtype}")
        values = values[None] if values.shape == shape else values
        if values.shape[1:] != shape:
            raise DataError(
                f"codes must be {format_shape(('N', *shape))}, as encode gives them. "
                f"Received: {format_shape(values.shape)}"
            )
        return self._run(self._decode, values, self._decoder.outputs[0].shape[1:])

    def reconstruct(self, images: ArrayLike) -> Floats:
        """Return the outputs of the model for images, float32 (N, H', W', C') in [0, 1].

        These are the reconstructions of an autoencoder, the denoised or larger images of a model
        that denoises or upscales, or the probability of each class for each pixel.

        >>> import convae, numpy as np
        >>> output = convae.load("mnist").reconstruct(np.zeros((28, 28), np.uint8))
        >>> output.shape, output.dtype
        ((1, 28, 28, 1), dtype('float32'))
        """
        pixels = self._to_pixels(images)
        if self._engine is not None:
            return np.asarray(self._engine.predict(pixels))
        return self._run(self._model, pixels, self.model.output_shape[1:], 255)

    def sample(self, count: int, seed: int = 0) -> Floats:
        """Return new images, float32 (count, H, W, C) in [0, 1]: those of random codes.

        Args:
            count: The number of images.
            seed: The same seed gives the same images; a smaller count gives the first of them.

        Raises:
            UnsupportedError: The model was not trained to generate images.
            ConfigError: The count or the seed is negative, or memory cannot hold the images.

        >>> import convae
        >>> convae.load("generate").sample(3, seed=0).shape
        (3, 28, 28, 1)
        """
        if not self.generates:
            raise UnsupportedError(
                "this model does not generate images: its codes have no known distribution to "
                "sample from. convae train generate trains one that does"
            )
        shape, image = self._decoder.inputs[0].shape[1:], self._decoder.outputs[0].shape[1:]
        for name, value, least in (("the number of samples", count, 1), ("the seed", seed, 0)):
            if value < least:
                raise ConfigError(f"{name} must be at least {least}. Received: {value}")
        need = 4 * count * (2 * prod(image) + prod(shape))  # in floats, and once more for pictures
        if need > memory():
            raise ConfigError(
                f"the number of samples must fit in memory: {count:,} need {need / 2**30:,.0f} "
                f"GiB, and there are {memory() / 2**30:,.0f} GiB"
            )
        codes = sample_codes(count, prod(shape), seed).reshape(count, *shape)
        return self._run(self._decode, codes, image)

    def score(self, images: ArrayLike, targets: ArrayLike | None = None) -> NDArray[np.float64]:
        """Return the mean squared error (N,) of each output, in values of [0, 1]; 0 is perfect.

        Args:
            images: The inputs. A large error means that an image is unlike the training data.
            targets: The images to compare with, by default the inputs.

        Raises:
            UnsupportedError: The model segments.
            DataError: The targets are missing for a model that upscales, or have another shape.

        >>> import convae, numpy as np
        >>> digits = np.zeros((4, 28, 28), np.uint8)
        >>> convae.load("mnist").score(digits).shape
        (4,)
        """
        if self.config is not None and not build_task(self.config).outputs_images:
            raise UnsupportedError("this model gives classes, which have no squared error")
        output, input_ = tuple(self.model.output_shape[1:]), tuple(self.model.input_shape[1:])
        if targets is None and output != input_:
            raise DataError(
                f"this model turns {format_shape(input_)} into {format_shape(output)}: "
                "score needs the targets, score(images, targets)"
            )
        outputs = self.reconstruct(images)
        pixels = to_pixels(images if targets is None else targets, output, "targets")
        if len(pixels) != len(outputs):
            raise DataError(f"{len(outputs):,} images, but {len(pixels):,} targets")
        errors = np.square(outputs - pixels / np.float32(255))
        return np.asarray(errors.mean(axis=(1, 2, 3), dtype=np.float64))

    def _to_pixels(self, images: ArrayLike) -> Images:
        return to_pixels(images, tuple(self.model.input_shape[1:]), "images")

    def _run(
        self, function: Callable[[Any], Any], values: Array, shape: tuple[int, ...], scale: int = 1
    ) -> Floats:
        """Return the outputs (N, *shape) of a compiled model, in batches, for values / scale."""
        outputs = np.empty((len(values), *shape), np.float32)
        for start in range(0, len(values), self._batch):
            batch = values[start : start + self._batch].astype(np.float32)
            outputs[start : start + len(batch)] = function(batch / np.float32(scale))[0]
        return outputs

    def __repr__(self) -> str:
        name = self.config.name if self.config else self.model.name
        image, code = self.model.input_shape[1:], self._encoder.outputs[0].shape[1:]
        return f"<Autoencoder {name}: {format_shape(image)} to a code of {format_shape(code)}>"

    def _repr_html_(self) -> str:
        """Return the line of `repr` and the model summary, for a notebook."""
        summary = self.config.model_summary._repr_html_() if self.config else ""
        return f"<p>{escape(repr(self)[1:-1])}</p>{summary}"


def to_pixels(images: ArrayLike, shape: tuple[int, ...], name: str) -> Images:
    """Return images of `shape` (H, W, C) as uint8 (N, H, W, C); DataError calls them `name`."""
    values = np.asarray(images)
    expected = f"{name} must be {format_shape(('N', *shape))}"
    gray = shape[2] == 1
    if gray:
        expected += f" or {format_shape(('N', *shape[:2]))}"
    if values.shape == shape or (gray and values.shape == shape[:2]):
        values = values.reshape(1, *shape)
    elif gray and values.ndim == 3 and values.shape[1:] == shape[:2]:
        values = values[..., None]
    if values.ndim != 4 or values.shape[1:] != shape:
        received = format_shape(values.shape) or "a single number"
        raise DataError(f"{expected}. Received: {received}")
    if values.dtype == np.uint8:
        return values
    kind = values.dtype.kind
    if kind not in "fiu":
        raise DataError(f"{name} must be uint8, or floats in [0, 1]. Received: {values.dtype}")
    if not values.size:
        return values.astype(np.uint8)
    low, high, limit = values.min(), values.max(), 1 if kind == "f" else 255
    if not (low >= 0 and high <= limit):  # NaN fails, too
        allowed = "floats must lie in [0, 1]" if kind == "f" else "integers: 0 to 255"
        raise DataError(f"{name} as {allowed}. Received: {low:g} to {high:g}")
    return (np.rint(values * 255.0) if kind == "f" else values).astype(np.uint8)


def make_plan(config: Config) -> Plan:
    """Return the plan of `config` in float32; the caller's random numbers stay as they were."""
    # Keras seeds NumPy and Python too: right for a command, not for a library.
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        return start_in_float32(config)
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def _compile(model: Any) -> Callable[..., list[Any]]:
    """Return a Keras model as one function of any batch size that gives a list of arrays."""
    inputs = [tf.TensorSpec((None, *i.shape[1:]), tf.float32) for i in model.inputs]

    def call(*values: Any) -> list[Any]:
        outputs = model(list(values) if len(values) > 1 else values[0], training=False)
        return list(outputs) if isinstance(outputs, list | tuple) else [outputs]

    compiled: Callable[..., list[Any]] = tf.function(call, input_signature=inputs)
    return compiled
