"""A config's layers as a Keras model with two sub-models, `encoder` and `decoder`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from convae.errors import RunError
from convae.layers.spec import Kernel, Layer
from convae.layers.summary import layer_names
from convae.models import keras_file as kerasfile
from convae.runtime.backend import keras

if TYPE_CHECKING:
    from convae.config.schema import Config


MOST_VALUES = 2**27  # of one layer for one image in a file that is loaded: 512 MiB


def build_model(config: Config) -> Any:
    """A functional `keras.Model`: (N, H, W, C) images in [0, 1] to what the task asks for.

    Its layers `encoder` (images to code) and `decoder` (code to outputs) are models themselves.
    If layers of the decoder take skips, the encoder gives a list, the code and then what is
    skipped, and the decoder takes that list.
    Weights are drawn from `config.seed` alone: the same seed gives the same bits.
    """
    model = config.model
    names = layer_names(model.layers)
    makers = [
        _maker(layer, name, seed=[config.seed, index])
        for index, (layer, name) in enumerate(zip(model.layers, names, strict=True))
    ]
    skipped = list(dict.fromkeys(layer.skip for layer in model.decoder if layer.skip))
    split = len(model.encoder)

    start = x = keras.Input(model.input_shape)
    if model.zero_center:
        x = keras.layers.Rescaling(2.0, offset=-1.0, name="zero_center")(x)
    known: dict[str, Any] = {}
    for name, make in zip(names[:split], makers[:split], strict=True):
        x = known[name] = make(x)
    outputs = [x, *(known[name] for name in skipped)]
    encoder = keras.Model(start, outputs if skipped else x, name="encoder")

    starts = [keras.Input(output.shape[1:]) for output in outputs]
    x, joined = starts[0], dict(zip(skipped, starts[1:], strict=True))
    for layer, make in zip(model.decoder, makers[split:], strict=True):
        if layer.skip:
            x = keras.layers.Concatenate()([x, joined[layer.skip]])
        x = make(x)
    decoder = keras.Model(starts if skipped else starts[0], x, name="decoder")

    image = keras.Input(model.input_shape, name="image")
    return keras.Model(image, decoder(encoder(image)), name="autoencoder")


def stack(model: Any) -> list[Any]:
    """The Keras layers that hold kernels, one for each layer of the config, in its order."""
    kernels = {
        layer.name: layer
        for part in (model.get_layer("encoder"), model.get_layer("decoder"))
        for layer in part.layers
        if hasattr(layer, "kernel")
    }
    return list(kernels.values())


def save_plain(model: Any, path: str) -> None:
    """Write a `.keras` file of plain float32 layers: no optimizer, nothing of this package."""
    plain = keras.Model.from_config(model.get_config())  # a clone would keep the optimizer
    plain.set_weights(model.get_weights())
    plain.save(path)


def read_model(path: Path) -> Any:
    """The model in a `.keras` file, without an optimizer, once the file was found to be plain.

    Raises RunError for a file that is damaged, holds anything but plain layers, or is of another
    project: one without the sub-models `encoder` and `decoder`.
    """
    kerasfile.check(path)
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
        if max(_output_sizes(model)) > MOST_VALUES:
            raise ValueError(f"one of its layers gives more than {MOST_VALUES:,} values")
        return model
    except Exception as error:  # what Keras and TensorFlow raise at settings that cannot be
        words = " ".join(str(error).split()) or type(error).__name__
        raise RunError(f"{path}: cannot be loaded: {words:.300}") from None


def _output_sizes(model: Any) -> Iterator[int]:
    """The values that each layer gives for one image, sub-models included."""
    for layer in model.layers:
        yield from (math.prod(output.shape[1:]) for output in keras.tree.flatten(layer.output))
        yield from _output_sizes(layer) if isinstance(layer, keras.Model) else ()


def weights_sha256(model: Any) -> str:
    """A fingerprint of all weights, in their order: equal means equal to the last bit."""
    return arrays_sha256(model.get_weights())


def arrays_sha256(arrays: Sequence[NDArray[Any]]) -> str:
    """The SHA-256 of the arrays' bytes, in their order."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _maker(layer: Layer, name: str, seed: list[int]) -> Callable[[Any], Any]:
    """What to call on a Keras tensor to put `layer` behind it."""
    options = layer.model_dump(include=set(Kernel.model_fields)) | {"name": name}
    for ours in ("type", "skip"):
        del options[ours]
    # An initializer of its own for each layer: a shared one would draw the same numbers again.
    options["kernel_initializer"] = {
        "class_name": layer.kernel_initializer,
        "config": {"seed": int(np.random.SeedSequence(seed).generate_state(1)[0])},
    }
    if layer.type == "conv":
        return cast("Callable[[Any], Any]", keras.layers.Conv2D(**options))
    if layer.type == "conv_transpose":
        return cast(
            "Callable[[Any], Any]",
            keras.layers.Conv2DTranspose(output_padding=layer.output_padding, **options),
        )
    options["strides"] = 1
    if layer.type == "resize_conv":
        grown = keras.layers.UpSampling2D(layer.strides, interpolation=layer.interpolation)
        convolution = keras.layers.Conv2D(**options)
        return lambda x: convolution(grown(x))
    rows, columns = layer.strides
    options["filters"] *= rows * columns
    dealt = keras.layers.Conv2D(**options)

    def deal(x: Any) -> Any:
        # The activation comes before the dealing, which changes no number. Reshape and Permute
        # rather than an operation, so that the file holds layers that every Keras 3 knows.
        x = dealt(x)
        _, height, width, _ = x.shape
        x = keras.layers.Reshape((height, width, rows, columns, layer.filters))(x)
        x = keras.layers.Permute((1, 3, 2, 4, 5))(x)
        return keras.layers.Reshape((height * rows, width * columns, layer.filters))(x)

    return deal
