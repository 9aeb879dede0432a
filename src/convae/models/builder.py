"""A config's layers as a Keras model with two sub-models, `encoder` and `decoder`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from convae.errors import RunError
from convae.layers.summary import layer_names
from convae.models import keras_file
from convae.models.layers import FLOAT32, layer_ops
from convae.runtime.backend import keras

if TYPE_CHECKING:
    from convae.config.schema import Config
    from convae.layers.spec import Model

MOST_VALUES = 2**27  # of one layer for one image in a file that is loaded: 512 MiB


def build_model(config: Config) -> Any:
    """Return the `keras.Model` of a config, with weights that `config.seed` alone decides.

    It maps images (N, H, W, C) in [0, 1] to the outputs of the config's task. Its layers `encoder`
    (images to codes) and `decoder` (codes to outputs) are models themselves. The encoder may give
    more than the code, as a list: a gaussian layer's log-variance, which the decoder does not take,
    or the outputs that the decoder's skips take.
    """
    model = config.model
    names, split = layer_names(model.layers), len(model.encoder)
    layers = [
        layer_ops(spec.type).build(spec, name, [config.seed, index])
        for index, (spec, name) in enumerate(zip(model.layers, names, strict=True))
    ]
    image = x = keras.Input(model.input_shape, **FLOAT32)
    if model.zero_center:
        x = keras.layers.Rescaling(2.0, offset=-1.0, name="zero_center", **FLOAT32)(x)
    by_name: dict[str, Any] = {}
    for name, layer in zip(names[:split], layers[:split], strict=True):
        x = by_name[name] = layer(x)
    code, *more = x if isinstance(x, list) else [x]
    skips = list(dict.fromkeys(spec.skip for spec in model.decoder if spec.skip))
    taken = [code, *(by_name[name] for name in skips)]
    outputs = [*taken, *more]
    encoder = keras.Model(image, outputs if len(outputs) > 1 else code, name="encoder")

    inputs = [keras.Input(output.shape[1:], **FLOAT32) for output in taken]
    x, skipped = inputs[0], dict(zip(skips, inputs[1:], strict=True))
    for spec, layer in zip(model.decoder, layers[split:], strict=True):
        if spec.skip:
            x = keras.layers.Concatenate(**FLOAT32)([x, skipped[spec.skip]])
        x = layer(x)
    decoder = keras.Model(inputs if skips else inputs[0], x, name="decoder")

    image = keras.Input(model.input_shape, name="image", **FLOAT32)
    encoded = encoder(image)
    taken = encoded[: len(inputs)] if isinstance(encoded, list) else [encoded]
    return keras.Model(image, decoder(taken if skips else taken[0]), name="autoencoder")


def layer_stack(model: Any, spec: Model) -> list[Any]:
    """Return the Keras layer that holds the weights of each layer of `spec`, in its order."""
    names, split = layer_names(spec.layers), len(spec.encoder)
    encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
    return [*map(encoder.get_layer, names[:split]), *map(decoder.get_layer, names[split:])]


def save_plain(model: Any, path: str) -> None:
    """Write a `.keras` file of plain float32 layers, without optimizer and without own classes.

    Keras 3.5 and newer load it.
    """
    plain = keras.Model.from_config(model.get_config())  # a clone would keep the optimizer
    plain.set_weights(model.get_weights())
    plain.save(path)
    keras_file.write_for_older_keras(Path(path))


def read_model(path: Path) -> Any:
    """Return the model of a `.keras` file, without an optimizer.

    Raises:
        RunError: The file is damaged, holds anything but plain layers, or lacks a sub-model.
    """
    keras_file.check(path)
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
        outputs = keras.tree.flatten([layer.output for layer in all_layers(model)])
        if max(math.prod(output.shape[1:]) for output in outputs) > MOST_VALUES:
            raise ValueError(f"one of its layers gives more than {MOST_VALUES:,} values")
        return model
    except Exception as error:  # Keras and TensorFlow raise nearly anything at odd settings
        text = " ".join(str(error).split()) or type(error).__name__
        raise RunError(f"{path}: cannot be loaded: {text:.300}") from None


def all_layers(model: Any) -> Iterator[Any]:
    """Yield each layer of a model, sub-models and their layers included."""
    for layer in model.layers:
        yield layer
        yield from all_layers(layer) if isinstance(layer, keras.Model) else ()


def arrays_sha256(arrays: Iterable[NDArray[Any]]) -> str:
    """Return the SHA-256 of the arrays' bytes, in their order: equal for equal bits."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()
