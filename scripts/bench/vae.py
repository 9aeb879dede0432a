"""Train other variational autoencoders for four times as long as convae's, and measure all alike.

python -m scripts.bench.vae [--only NAME ...] [key=value ...]

- convae: configs/generate.yaml with the overrides, for one epoch;
- keras.io: architecture and settings of the example "Variational AutoEncoder" of keras.io, a code
  of 2 numbers, batches of 128, Adam at 0.001, by `fit`; and once more with convae's size of a code;
- pythae: its VAE with its default networks and the same size of a code, batches of 100, Adam at
  0.001 (pip install pythae).

Time is processor time, all cores together, so that other programs on the machine count little. All
train on the same digits, and are measured on the same test digits with the same random numbers.
Results are added to outputs/vae.json, and printed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from convae.arrays import Floats, Images
from convae.config.loader import load_config
from convae.config.schema import Config
from convae.data.loading import load_test, load_training
from convae.tasks import likelihood, sample_quality
from convae.tasks.baselines import to_floats
from convae.tasks.likelihood import LatentModel
from convae.tasks.metrics import EPSILON
from scripts.project import CONFIGS, ROOT, describe_machine, exit_with, format_markdown, write_json

RESULTS = ROOT / "outputs/vae.json"
TIMES = 4  # as long as convae, the others train
KERAS_IO_DIM, KERAS_IO_BATCH, BATCH, RATE = 2, 128, 100, 1e-3
BLOCK = 1000  # images encoded at once


@dataclass
class Trained:
    """A trained model as a LatentModel, from functions of floats in [0, 1] in batches."""

    code_size: int
    encode_batch: Callable[[Floats], tuple[Any, Any]]
    decode: Callable[[Floats], Floats]
    seconds: float
    epochs: float
    margin: float = EPSILON

    def encode(self, inputs: Images) -> tuple[Floats, Floats]:
        """Return the mean and the log-variance of the codes, (N, D) each."""
        starts = range(0, len(inputs), BLOCK)
        parts = [self.encode_batch(to_floats(inputs[s : s + BLOCK])) for s in starts]
        mean, log_variance = (
            np.concatenate([np.asarray(p) for p in half]) for half in zip(*parts, strict=True)
        )
        return mean.reshape(len(inputs), -1), log_variance.reshape(len(inputs), -1)


def train_convae(config: Config) -> Trained:
    """Train `config` to its end."""
    from convae.runtime.backend import keras
    from convae.training.trainer import train

    class Clock(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_begin(self, logs: Any = None) -> None:
            self.began = time.process_time()

        def on_train_end(self, logs: Any = None) -> None:
            self.seconds = time.process_time() - self.began

    clock = Clock()
    run = train(config, callbacks=[clock])
    from convae.models.builder import read_model

    model = read_model(run.best)
    encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
    shape = decoder.input_shape[1:]
    return Trained(
        config.model_summary.code_size, encoder,
        lambda codes: np.asarray(decoder(codes.reshape(-1, *shape))),
        clock.seconds, config.training.epochs,
    )  # fmt: skip


def train_keras_io(size: int, images: Images, budget: float) -> Trained:
    """Train the model of the example for `budget` seconds."""
    from convae.runtime.backend import keras, tf

    layers = keras.layers
    keras.utils.set_random_seed(0)
    conv = {"strides": 2, "padding": "same", "activation": "relu"}
    x = image = keras.Input((28, 28, 1))
    x = layers.Conv2D(64, 3, **conv)(layers.Conv2D(32, 3, **conv)(x))
    x = layers.Dense(16, activation="relu")(layers.Flatten()(x))
    encoder = keras.Model(image, [layers.Dense(size)(x), layers.Dense(size)(x)])
    x = code = keras.Input((size,))
    x = layers.Reshape((7, 7, 64))(layers.Dense(7 * 7 * 64, activation="relu")(x))
    x = layers.Conv2DTranspose(32, 3, **conv)(layers.Conv2DTranspose(64, 3, **conv)(x))
    output = layers.Conv2DTranspose(1, 3, padding="same", activation="sigmoid")(x)
    decoder = keras.Model(code, output)

    class Model(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = encoder, decoder

        def train_step(self, data: Any) -> dict[str, Any]:
            with tf.GradientTape() as tape:
                mean, log_variance = self.encoder(data)
                noise = tf.random.normal(tf.shape(mean))
                probabilities = self.decoder(mean + tf.exp(0.5 * log_variance) * noise)
                losses = keras.losses.binary_crossentropy(data, probabilities)
                reconstruction = tf.reduce_mean(tf.reduce_sum(losses, axis=(1, 2)))
                terms = 1 + log_variance - tf.square(mean) - tf.exp(log_variance)
                kl = tf.reduce_mean(tf.reduce_sum(-0.5 * terms, axis=1))
                loss = reconstruction + kl
            weights = self.trainable_weights
            self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            return {"loss": loss}

    class Stop(keras.callbacks.Callback):  # type: ignore[misc]
        steps = 0

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.steps += 1
            self.model.stop_training |= time.process_time() - began > budget

    model, stop, began = Model(), Stop(), time.process_time()
    model.compile(keras.optimizers.Adam(RATE), jit_compile=False)
    scaled = images / np.float32(255)
    # `fit` looks at stop_training at the end of an epoch: many short ones.
    rows = KERAS_IO_BATCH * 10
    data = tf.data.Dataset.from_tensor_slices(scaled).shuffle(len(scaled), 0).repeat()
    data = data.batch(KERAS_IO_BATCH)
    model.fit(
        data, epochs=10**6, steps_per_epoch=rows // KERAS_IO_BATCH, callbacks=[stop], verbose=0
    )
    epochs = stop.steps * KERAS_IO_BATCH / len(images)
    seconds = time.process_time() - began
    return Trained(size, encoder, lambda codes: np.asarray(decoder(codes)), seconds, epochs)


def train_pythae(size: int, images: Images, budget: float) -> Trained:
    """Train pythae's VAE for `budget` seconds."""
    import torch
    from pythae.models import VAE, VAEConfig

    torch.set_num_threads(1)  # its threads wait actively, which would count as processor time
    torch.manual_seed(0)
    settings = VAEConfig(input_dim=(1, 28, 28), latent_dim=size, reconstruction_loss="bce")
    model = VAE(settings)
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    data = torch.from_numpy(images.transpose(0, 3, 1, 2) / np.float32(255))
    began, steps = time.process_time(), 0

    def batches() -> Iterator[Any]:
        while True:
            yield from torch.randperm(len(data)).split(BATCH)

    for batch in batches():
        if time.process_time() - began > budget:
            break
        optimizer.zero_grad()
        model({"data": data[batch]}).loss.backward()
        optimizer.step()
        steps += 1
    seconds = time.process_time() - began
    model.eval()

    torch.set_grad_enabled(False)

    def encode(inputs: Floats) -> tuple[Any, Any]:
        found = model.encoder(torch.from_numpy(inputs.transpose(0, 3, 1, 2)))
        return found.embedding, found.log_covariance

    def decode(codes: Floats) -> Floats:
        output = model.decoder(torch.from_numpy(codes)).reconstruction
        return np.asarray(output.numpy().reshape(-1, 28, 28, 1))

    return Trained(size, encode, decode, seconds, steps * BATCH / len(images))


def measure(model: LatentModel, test: Images, noise: Floats, seed: int) -> dict[str, Any]:
    """Return the bounds, and the quality of as many samples as there are test images."""
    scores = likelihood.elbo(model, test, test, noise[:, : model.code_size])
    made = sample_quality.classify(likelihood.samples(model, len(test), seed))
    real = sample_quality.classify(test)
    precision, recall = sample_quality.precision_and_recall(real.values, made.values)
    return {
        "code": model.code_size,
        **{name: float(values.mean()) for name, values in scores.items()},
        "active_units": likelihood.active_units(model.encode(test)[0]),
        "frechet_distance": sample_quality.frechet_distance(real.values, made.values),
        "precision": precision,
        "recall": recall,
    }


def main() -> None:
    """Train and measure what is named, all by default; print a table of all results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    arguments = parser.parse_args()
    words = ["training.epochs=1", "output.folder=outputs/vae", *arguments.overrides]
    config = load_config(CONFIGS / "generate.yaml", words)
    train = load_training(config.data, config.output_shape).train.images
    test = load_test(config.data, config.output_shape).test.images
    size = config.model_summary.code_size
    noise = np.random.default_rng(config.seed).standard_normal((len(test), size), np.float32)
    trainings: dict[str, Callable[[float], Trained]] = {
        "convae": lambda _: train_convae(config),
        "keras.io": lambda budget: train_keras_io(KERAS_IO_DIM, train, budget),
        f"keras.io, code of {size}": lambda budget: train_keras_io(size, train, budget),
        "pythae": lambda budget: train_pythae(size, train, budget),
    }
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name, training in trainings.items():
        if arguments.only and name not in arguments.only:
            continue
        trained = training(TIMES * results["convae"]["seconds"] if results else 0.0)
        found = measure(trained, test, noise, config.seed)
        results[name] = {"seconds": trained.seconds, "epochs": trained.epochs, **found}
        write_json(RESULTS, results)
    head = ("", *next(iter(results.values())))
    rows = [(name, *(f"{value:.4g}" for value in row.values())) for name, row in results.items()]
    print(format_markdown(head, rows))
    print(f"\n{describe_machine()}")


if __name__ == "__main__":
    exit_with(main)
