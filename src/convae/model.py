"""A config's layers as a Keras model with two sub-models, `encoder` and `decoder`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from convae import config as schema
from convae.backend import keras
from convae.lab.ledger import layer_names

if TYPE_CHECKING:
    from convae.config import Config


def build_model(config: Config) -> Any:
    """A functional `keras.Model`: (N, H, W, C) images in [0, 1] to reconstructions of that shape.

    Its layers `encoder` (images to code) and `decoder` (code to images) are models themselves.
    Weights are drawn from `config.seed` alone: the same seed gives the same bits.
    """
    names = layer_names(config.model.layers)
    layers = [
        _keras_layer(layer, name, seed=[config.seed, index])
        for index, (layer, name) in enumerate(zip(config.model.layers, names, strict=True))
    ]
    split = len(config.model.encoder)
    encoder = _chain("encoder", config.model.input_shape, layers[:split])
    decoder = _chain("decoder", encoder.output.shape[1:], layers[split:])
    image = keras.Input(config.model.input_shape, name="image")
    return keras.Model(image, decoder(encoder(image)), name="autoencoder")


def stack(model: Any) -> list[Any]:
    """The Keras layers that an image passes, in their order, encoder first."""
    parts = (model.get_layer("encoder"), model.get_layer("decoder"))
    return [
        layer
        for part in parts
        for layer in part.layers
        if not isinstance(layer, keras.layers.InputLayer)
    ]


def save_plain(model: Any, path: str) -> None:
    """Write a `.keras` file of plain float32 layers: no optimizer, nothing of this package."""
    plain = keras.Model.from_config(model.get_config())  # a clone would keep the optimizer
    plain.set_weights(model.get_weights())
    plain.save(path)


def weights_sha256(model: Any) -> str:
    """A fingerprint of all weights, in their order: equal means equal to the last bit."""
    digest = hashlib.sha256()
    for weights in model.get_weights():
        digest.update(np.ascontiguousarray(weights).tobytes())
    return digest.hexdigest()


def _chain(name: str, shape: Sequence[int], layers: Sequence[Any]) -> Any:
    start = x = keras.Input(shape)
    for layer in layers:
        x = layer(x)
    return keras.Model(start, x, name=name)


def _keras_layer(layer: schema.Layer, name: str, seed: list[int]) -> Any:
    options = layer.model_dump(exclude={"type", "name", "kernel_initializer"})
    # An initializer of its own for each layer: a shared one would draw the same numbers again.
    options["kernel_initializer"] = {
        "class_name": layer.kernel_initializer,
        "config": {"seed": int(np.random.SeedSequence(seed).generate_state(1)[0])},
    }
    if isinstance(layer, schema.ConvTranspose):
        return keras.layers.Conv2DTranspose(name=name, **options)
    return keras.layers.Conv2D(name=name, **options)
