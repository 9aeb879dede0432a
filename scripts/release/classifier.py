"""Train the classifier of digits whose features measure generated digits, and write its card.

python -m scripts.release.classifier [key=value ...]      # of `data`, such as data.path=mnist.npz

Writes digit_classifier.npz and digit_classifier.json beside src/convae/tasks/sample_quality.py. The
validation split chooses nothing; the test split is only measured.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

from convae.config.loader import load_config
from convae.data.loading import load_test, load_training
from convae.runs.provenance import versions
from convae.runtime.backend import keras, tf
from convae.tasks import sample_quality
from convae.tasks.sample_quality import CLASSIFIER, SHAPE
from scripts.project import CONFIGS, describe_machine, exit_with, write_json

EPOCHS, BATCH, RATE, SEED = 12, 100, 2e-3, 0
SHIFT = 2  # pixels by which training moves digits


def build() -> Any:
    """Return the classifier: two strided convolutions, 64 features, ten logits."""
    layers = keras.layers
    return keras.Sequential([
        keras.Input(SHAPE),
        layers.Conv2D(16, 5, strides=2, activation="relu", name="conv1"),
        layers.Conv2D(32, 5, strides=2, activation="relu", name="conv2"),
        layers.Flatten(),
        layers.Dense(64, activation="relu", name="features"),
        layers.Dropout(0.3, seed=SEED),
        layers.Dense(10, name="logits"),
    ])  # fmt: skip


def moved(images: Any, labels: Any) -> tuple[Any, Any]:
    """Return a batch of uint8 images as floats in [0, 1], all moved by the same few pixels."""
    padded = tf.pad(tf.cast(images, tf.float32) / 255, [[0, 0], [SHIFT] * 2, [SHIFT] * 2, [0, 0]])
    return tf.image.random_crop(padded, (tf.shape(images)[0], *SHAPE), seed=SEED), labels


def main(overrides: list[str]) -> None:
    """Train, compare the NumPy forward pass with Keras, and write both files."""
    config = load_config(CONFIGS / "mnist.yaml", ["data.allow_sample=false", *overrides])
    training, test = load_training(config.data, SHAPE), load_test(config.data, SHAPE)
    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    model, train = build(), training.train
    steps = EPOCHS * (len(train) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(RATE, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)
    batches = tf.data.Dataset.from_tensor_slices((train.images, train.labels))
    batches = batches.shuffle(len(train), SEED).batch(BATCH, drop_remainder=True).map(moved)
    began = time.perf_counter()
    model.fit(batches, epochs=EPOCHS, verbose=2)
    seconds = time.perf_counter() - began
    names = ("conv1", "conv2", "features", "logits")
    arrays = {
        f"{name}_{part}": values.astype(np.float16)  # half the file, and the same accuracy
        for name in names
        for part, values in zip(
            ("kernel", "bias"), model.get_layer(name).get_weights(), strict=True
        )
    }
    np.savez(CLASSIFIER, **arrays)
    accuracy = {
        name: float((sample_quality.classify(split.images).classes == split.labels).mean())
        for name, split in (("validation", training.validation), ("test", test.test))
    }
    card = {
        "description": "Classifies MNIST digits; its 64 features measure generated digits.",
        "accuracy": accuracy,
        "parameters": model.count_params(),
        "bytes": CLASSIFIER.stat().st_size,
        "data": {"name": training.name, "sha256": training.sha256},
        "training": {
            "epochs": EPOCHS, "batch_size": BATCH, "learning_rate": RATE, "seed": SEED,
            "shift": SHIFT, "seconds": round(seconds, 1), "machine": describe_machine(),
        },
        "versions": versions(),
    }  # fmt: skip
    write_json(CLASSIFIER.with_suffix(".json"), card)
    print(accuracy, CLASSIFIER.stat().st_size)


if __name__ == "__main__":
    exit_with(lambda: main(sys.argv[1:]))
