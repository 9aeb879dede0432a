"""A trained autoencoder in use: images to codes, codes to images, and how well that goes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convae.config.schema import Config
from convae.console import format_shape
from convae.errors import ConvaeError, DataError, RunError
from convae.models.builder import read_model
from convae.runs import pretrained
from convae.runs.run import Run
from convae.runtime.backend import tf
from convae.runtime.plan import Plan
from convae.runtime.start import start_in_float32
from convae.tasks import build_task
from convae.training.engine import Engine

Floats = NDArray[np.float32]
BATCH = 100  # images that a bare Keras model is given at once


def load(name: str | Path, outputs: str = "outputs") -> Autoencoder:
    """The trained autoencoder of a run, or of a `.keras` file.

    `name` is a run's folder, id or name in the folder `outputs`, "latest", the name of weights
    that come with the package (see docs/pretrained.md; `pretrained:NAME` means these even where
    there is a run of that name), or the path of a `.keras` file whose layers include models called
    `encoder` and `decoder`.
    Raises RunError if there is none, or the file is damaged or of another make.

    >>> import convae
    >>> autoencoder = convae.load("mnist")
    >>> autoencoder.model.count_params()
    12785
    """
    if Path(name).suffix != ".keras":
        run = _run_or_shipped(str(name), outputs)
        return Autoencoder(read_model(run.best), run.config)
    path = Path(name)
    if not path.is_file():
        raise RunError(f"{path}: no such file")
    beside = Run(path.parent)
    known = (beside.path / "config.yaml").is_file()
    return Autoencoder(read_model(path), beside.config if known else None)


def _run_or_shipped(name: str, outputs: str) -> Run:
    try:
        return Run.find(name, outputs)
    except ConvaeError:
        if name not in pretrained.names():
            raise
        return Run.find(f"{pretrained.PREFIX}{name}", outputs)


class Autoencoder:
    """A model with its `encoder` and `decoder`, for arrays of images.

    Images are taken as uint8 (N, H, W, C), (N, H, W) if they are gray, or a single one without N,
    which counts as a batch of one. Other integers must lie in 0 to 255. Floats must lie in [0, 1]
    and are rounded to the nearest of the 256 gray levels, which is what the model was trained on.
    Everything is computed in float32, in slices that fit the processor's cache, so that N may be
    large.

    `model` is the Keras model, `config` the config that it was trained with, or None if that is
    not known.
    """

    def __init__(self, model: Any, config: Config | None = None) -> None:
        self.model = model
        self.config = config
        self._encoder, self._decoder = model.get_layer("encoder"), model.get_layer("decoder")
        self._batch = BATCH
        self._reconstruct = _compiled(model)
        if config is not None:
            plan = plan_of(config)
            self._batch = plan.micro_batch_size
            self._reconstruct = Engine(model, config, plan).predict
        self._encode, self._decode = _compiled(self._encoder), _compiled(self._decoder)

    def encode(self, images: ArrayLike) -> Floats:
        """The codes of `images`: float32 (N, height, width, channels) of the encoder's output.

        >>> import convae, numpy as np
        >>> convae.load("mnist").encode(np.zeros((2, 28, 28), np.uint8)).shape
        (2, 22, 22, 8)
        """
        pixels = self._images(images)
        shape = self._encoder.outputs[0].shape[1:]
        codes = np.empty((len(pixels), *shape), np.float32)
        for part in self._slices(len(pixels)):
            codes[part] = self._encode(pixels[part] / np.float32(255))[0]
        return codes

    def decode(self, codes: ArrayLike) -> Floats:
        """The images of `codes` (N, ...) as `encode` gives them: float32 (N, H, W, C) in [0, 1].

        Raises RunError for codes of another shape, and for a model whose decoder also needs what
        its encoder saw on the way (skip connections): that one has no image of a code alone.

        >>> import convae, numpy as np
        >>> convae.load("mnist").decode(np.zeros((3, 22, 22, 8))).shape
        (3, 28, 28, 1)
        """
        if len(self._decoder.inputs) > 1:
            raise RunError(
                "this model's decoder takes more than the code: skip connections lead around it. "
                "Use reconstruct(images)"
            )
        shape = tuple(self._decoder.inputs[0].shape[1:])
        values = np.asarray(codes)
        if values.dtype.kind not in "fiu" or not np.isfinite(values).all():
            raise RunError(f"codes must be finite numbers. Received: {values.dtype}")
        values = values[None] if values.shape == shape else values
        if values.shape[1:] != shape:
            raise RunError(
                f"codes must be {format_shape(('N', *shape))}, as encode gives them. "
                f"Received: {format_shape(values.shape)}"
            )
        images = np.empty((len(values), *self._decoder.outputs[0].shape[1:]), np.float32)
        for part in self._slices(len(values)):
            images[part] = self._decode(values[part].astype(np.float32))[0]
        return images

    def reconstruct(self, images: ArrayLike) -> Floats:
        """What the model makes of `images`: float32 (N, H', W', C') in [0, 1].

        The reconstructions of an autoencoder, or the denoised or otherwise changed images of a
        model that was trained for that; H', W' and C' are those of the images but for such.

        >>> import convae, numpy as np
        >>> again = convae.load("mnist").reconstruct(np.zeros((28, 28), np.uint8))
        >>> again.shape, again.dtype
        ((1, 28, 28, 1), dtype('float32'))
        """
        pixels = self._images(images)
        if self.config is not None:
            return np.asarray(self._reconstruct(pixels))
        result = np.empty((len(pixels), *self.model.output_shape[1:]), np.float32)
        for part in self._slices(len(pixels)):
            result[part] = self._reconstruct(pixels[part] / np.float32(255))[0]
        return result

    def score(self, images: ArrayLike, targets: ArrayLike | None = None) -> NDArray[np.float64]:
        """The mean squared error of each image, of gray values in [0, 1]: (N,), 0 is perfect.

        What the model makes of `images` is compared with `targets`, or with the images themselves,
        where a large value means: unlike what the model was trained on. Raises RunError for a
        model that segments, whose outputs are no images, and for one that upscales if there are no
        targets.

        >>> import convae, numpy as np
        >>> digits = np.zeros((4, 28, 28), np.uint8)
        >>> convae.load("mnist").score(digits).shape
        (4,)
        """
        if self.config is not None and not build_task(self.config).outputs_images:
            raise RunError("a model that segments has no squared error: compare its classes")
        shape, made_of = tuple(self.model.output_shape[1:]), tuple(self.model.input_shape[1:])
        if targets is None and shape != made_of:
            raise RunError(
                f"this model makes {format_shape(shape)} of {format_shape(made_of)}: "
                "score needs the targets, score(images, targets)"
            )
        made = self.reconstruct(images)
        wanted = pixels_of(images if targets is None else targets, made.shape[1:], "targets")
        if len(wanted) != len(made):
            raise RunError(f"{len(made):,} images, but {len(wanted):,} targets")
        errors = np.square(made - wanted / np.float32(255))
        return np.asarray(errors.mean(axis=(1, 2, 3), dtype=np.float64))

    def _images(self, images: ArrayLike) -> NDArray[np.uint8]:
        return pixels_of(images, tuple(self.model.input_shape[1:]), "images")

    def _slices(self, count: int) -> Iterator[slice]:
        for start in range(0, count, self._batch):
            yield slice(start, start + self._batch)

    def __repr__(self) -> str:
        name = self.config.name if self.config else self.model.name
        image, code = self.model.input_shape[1:], self._encoder.outputs[0].shape[1:]
        return f"<Autoencoder {name}: {format_shape(image)} to a code of {format_shape(code)}>"


def pixels_of(images: ArrayLike, shape: tuple[int, ...], what: str) -> NDArray[np.uint8]:
    """Images of `shape` (H, W, C) as uint8 (N, H, W, C). Raises DataError, calling them `what`."""
    values = np.asarray(images)
    wanted = f"{what} must be {format_shape(('N', *shape))}"
    if shape[2] == 1:
        wanted += f" or {format_shape(('N', *shape[:2]))}"
    gray = shape[2] == 1
    if values.shape == shape or (gray and values.shape == shape[:2]):
        values = values.reshape(1, *shape)
    elif gray and values.ndim == 3 and values.shape[1:] == shape[:2]:
        values = values[..., None]
    if values.ndim != 4 or values.shape[1:] != shape:
        raise DataError(f"{wanted}. Received: {format_shape(values.shape) or 'a single number'}")
    if values.dtype == np.uint8:
        return values
    kind = values.dtype.kind
    if kind not in "fiu":
        raise DataError(f"{what} must be uint8, or floats in [0, 1]. Received: {values.dtype}")
    if not values.size:
        return values.astype(np.uint8)
    low, high, limit = values.min(), values.max(), 1 if kind == "f" else 255
    if not (low >= 0 and high <= limit):  # a NaN, too, is neither
        raise DataError(
            f"{what} as {'floats must lie in [0, 1]' if kind == 'f' else 'integers: 0 to 255'}. "
            f"Received: {low:g} to {high:g}"
        )
    return (np.rint(values * 255.0) if kind == "f" else values).astype(np.uint8)


def plan_of(config: Config) -> Plan:
    """The runtime of `config`, but in float32; the caller's random numbers stay as they were."""
    with _own_randomness():
        return start_in_float32(config)


@contextmanager
def _own_randomness() -> Iterator[None]:
    # Keras seeds NumPy and Python too: right for a command, not for a library.
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def _compiled(part: Any) -> Any:
    """A Keras model as one function of any batch size, giving a list of arrays."""
    inputs = [tf.TensorSpec((None, *i.shape[1:]), tf.float32) for i in part.inputs]

    def call(*values: Any) -> list[Any]:
        made = part(list(values) if len(values) > 1 else values[0], training=False)
        return list(made) if isinstance(made, list | tuple) else [made]

    return tf.function(call, input_signature=inputs)
