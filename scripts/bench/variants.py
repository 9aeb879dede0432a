"""Train one variant for scripts.bench.speed, and print its figures as one line of JSON.

    python -m scripts.bench.variants keras images.npz --images=10000 --epochs=1

`keras`, `torch` and `torch-best` do not use convae: they are as a user would write them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

START = time.perf_counter()
CONFIGS = Path(__file__).parents[2] / "configs"  # scripts.project would import convae
BATCH = 1000
TARGET = 0.0610


class Watch:
    """Measure steps, and when the validation loss first was at TARGET."""

    def __init__(self, images: int = 0) -> None:
        self.images = images  # of a step
        self.steps: list[tuple[float, float, int]] = []
        self.figures: dict[str, Any] = {"curve": []}  # seconds and loss of each validation

    def begin(self) -> None:
        """Start a step."""
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def end(self, images: int | None = None) -> None:
        """End a step, or several in one call, of `images` in all."""
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        self.steps.append((wall, cpu, images or self.images))

    def validated(self, loss: float) -> None:
        """Note the validation loss of an epoch."""
        self.figures["val_loss"] = loss
        self.figures["curve"].append((time.perf_counter() - START, loss))
        if loss <= TARGET:
            self.figures.setdefault("reached_after", time.perf_counter() - START)

    def epochs(self, keras: Any) -> Any:
        """Return a Keras callback that notes the validation losses."""
        return keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs=None: self.validated(logs["val_loss"])
        )

    def batches(self, keras: Any) -> Any:
        """Return a Keras callback that measures steps."""
        return keras.callbacks.LambdaCallback(
            on_train_batch_begin=lambda batch, logs=None: self.begin(),
            on_train_batch_end=lambda batch, logs=None: self.end(),
        )

    def report(self) -> None:
        """Print the figures without the first three steps, which trace and warm up."""
        steady = self.steps[3:] or self.steps
        wall = statistics.median(step[0] / step[2] for step in steady)
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        share = sum(s[1] for s in steady) / sum(s[0] for s in steady) / available
        self.figures |= {"images_per_second": 1 / wall, "step_cpu_share": share}
        print(json.dumps(self.figures))


def load(path: str, count: int) -> NDArray[np.uint8]:
    """Return the first `count` training images (all: 0), uint8 (N, 28, 28, 1)."""
    with np.load(path) as file:
        images: NDArray[np.uint8] = file["x_train"][: count or None, ..., None]
    return images


def keras_fit(arguments: argparse.Namespace) -> None:
    """Train with the article's script."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras
    from keras.layers import Conv2D, Conv2DTranspose

    keras.utils.set_random_seed(arguments.seed)
    x = load(arguments.data, arguments.images).astype("float32") / 255
    relu = {"activation": "relu", "kernel_initializer": "he_normal"}
    layers = [Conv2D(filters, 3, **relu) for filters in (32, 16, 8)]
    layers += [Conv2DTranspose(filters, 3, **relu) for filters in (8, 16, 32)]
    last = Conv2D(1, 3, activation="sigmoid", padding="same")
    model = keras.Sequential([keras.Input((28, 28, 1)), *layers, last])
    model.compile(optimizer="adam", loss="binary_crossentropy")
    watch = Watch(BATCH)
    callbacks = [watch.batches(keras), watch.epochs(keras)]
    options = {"verbose": 0, "validation_split": 0.2, "callbacks": callbacks}
    model.fit(x, x, BATCH, arguments.epochs, **options)
    watch.report()


def torch_loop(arguments: argparse.Namespace, strongest: bool) -> None:
    """Train the same model in PyTorch, as one writes it first or as fast as PyTorch can."""
    import torch
    from torch import nn
    from torch.nn.functional import binary_cross_entropy_with_logits as bce
    from torch.nn.functional import conv2d

    torch.manual_seed(arguments.seed)

    class AsConvolution(nn.ConvTranspose2d):  # type: ignore[misc]
        """Convolve the padded input with the flipped kernel: the same for stride 1."""

        def forward(self, x: Any, _: Any = None) -> Any:
            return conv2d(x, self.weight.flip(2, 3).transpose(0, 1), self.bias, padding=2)

    transposed = AsConvolution if strongest else nn.ConvTranspose2d
    layers: list[Any] = []
    for i, (inputs, outputs) in enumerate(pairwise((1, 32, 16, 8, 8, 16, 32))):
        layer = (transposed if i > 2 else nn.Conv2d)(inputs, outputs, 3)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        layers += [layer, nn.ReLU()]
    model: Any = nn.Sequential(*layers, nn.Conv2d(32, 1, 3, padding=1))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, eps=1e-7)
    images = torch.from_numpy(load(arguments.data, arguments.images).transpose(0, 3, 1, 2).copy())
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    native = strongest and bool(re.search("(amx|avx512)_bf16", flags))
    micro = 50 if strongest else BATCH
    if strongest:
        model = torch.compile(model.to(memory_format=torch.channels_last))

    def loss(batch: Any) -> Any:
        x = batch.float() / 255
        if strongest:
            x = x.to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=native):
            logits = model(x)
        return bce(logits.float(), x)

    split = int(len(images) * 0.8)
    watch = Watch(BATCH)
    for _ in range(arguments.epochs):
        order = torch.randperm(split)
        for start in range(0, split - BATCH + 1, BATCH):
            watch.begin()
            batch = images[order[start : start + BATCH]]
            optimizer.zero_grad()
            for part in batch.split(micro):
                (loss(part) * (len(part) / BATCH)).backward()
            optimizer.step()
            watch.end()
        with torch.no_grad():
            parts = images[split:].split(micro)
            total = sum(float(loss(part)) * len(part) for part in parts)
        watch.validated(total / (len(images) - split))
    watch.report()


def convae_train(arguments: argparse.Namespace, config: str, *overrides: str) -> None:
    """Train as `convae train` does, with run folder, checkpoints and all, in a temporary folder."""
    from convae.config.loader import load_config
    from convae.runtime.importing import backend_meanwhile
    from convae.training.preparation import prepare

    words = [f"data.path={arguments.data}", f"seed={arguments.seed}", *overrides]
    if arguments.images:
        words.append(f"data.subset={arguments.images}")
    if arguments.epochs:
        words.append(f"training.epochs={arguments.epochs}")
    with tempfile.TemporaryDirectory() as folder:
        settings = load_config(CONFIGS / config, [*words, f"output.folder={folder}"])
        with backend_meanwhile():
            prepared = prepare(settings)
            _ = prepared.reference_losses
        from convae.runtime.backend import keras
        from convae.training.engine import Engine
        from convae.training.trainer import train

        engine: Any = Engine
        watch, validating, steps, evaluate = Watch(), 0.0, engine.steps, engine.evaluate

        def measured_steps(self: Any, inputs: Any, *rest: Any, **options: Any) -> Any:
            watch.begin()
            result = steps(self, inputs, *rest, **options)
            watch.end(len(inputs))
            return result

        def measured_evaluate(*words: Any) -> Any:
            nonlocal validating
            began = time.perf_counter()
            result = evaluate(*words)
            validating += time.perf_counter() - began
            return result

        engine.steps, engine.evaluate = measured_steps, measured_evaluate
        run = train(settings, callbacks=[watch.epochs(keras)], prepared=prepared)
        # What training does besides steps and validation: batches, callbacks, history, files.
        computing = validating + sum(step[0] for step in watch.steps)
        watch.figures["loop_share"] = 1 - computing / run.manifest["seconds"]
        watch.figures["excess"] = run.history[-1]["val_excess"]
    watch.report()


def engine_steps(arguments: argparse.Namespace) -> None:
    """Measure steps of the engine over images in memory, resized, or mapped from a file."""
    from convae.config.loader import load_config

    side, batch = arguments.side, arguments.batch
    overrides = [f"model.input_shape=[{side}, {side}, 1]", f"training.batch_size={batch}"]
    config = load_config(CONFIGS / "mnist.yaml", overrides)
    images = load(arguments.data, arguments.images)
    images = np.resize(images, (len(images), side, side, 1)) if side != 28 else images
    with tempfile.NamedTemporaryFile() as file:
        if arguments.mapped:
            for _ in range(0, arguments.mapped, len(images)):
                file.write(images.tobytes())
            shape = (arguments.mapped, *images.shape[1:])
            images = np.memmap(file.name, np.uint8, "r", shape=shape)
        run_engine(config, images, images, max(12, min(200, 4000 // batch)))


def config_steps(arguments: argparse.Namespace) -> None:
    """Measure steps of any config's engine over noise, in one precision."""
    from convae.config.loader import load_config

    batch = arguments.batch
    overrides = [f"training.batch_size={batch}", f"runtime.precision={arguments.precision}"]
    config = load_config(CONFIGS / arguments.config, overrides)
    generator = np.random.default_rng(0)
    inputs = generator.integers(0, 256, (8 * batch, *config.model.input_shape), np.uint8)
    targets = generator.integers(0, 256, (8 * batch, *config.output_shape), np.uint8)
    if config.task.type == "segment":  # the class of each pixel
        targets = targets[..., :1] % config.output_shape[2]
    run_engine(config, inputs, targets, 8)


def run_engine(config: Any, inputs: Any, targets: Any, steps: int) -> None:
    """Measure `steps` of the engine of a config, over the images in an epoch's order."""
    from convae.models.builder import build_model
    from convae.runtime.start import start
    from convae.training.batches import epoch_order
    from convae.training.engine import Engine
    from convae.training.optimizers import build_optimizer

    batch = config.training.batch_size
    plan = start(config)
    engine = Engine(build_model(config), config, plan, build_optimizer(config, steps))
    order = epoch_order(0, 0, len(inputs), len(inputs))
    watch = Watch(batch)
    for step in range(steps):
        watch.begin()
        chosen = order[step * batch : (step + 1) * batch]
        engine.step(inputs[chosen], targets[chosen])
        watch.end()
    watch.report()


VARIANTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "keras": keras_fit,
    "torch": lambda a: torch_loop(a, strongest=False),
    "torch-best": lambda a: torch_loop(a, strongest=True),
    "convae-float32": lambda a: convae_train(a, "mnist.yaml", "runtime.precision=float32"),
    "convae": lambda a: convae_train(a, "mnist.yaml"),
    "fast": lambda a: convae_train(a, "fast.yaml"),
    "best": lambda a: convae_train(a, "best.yaml"),
    "engine": engine_steps,
    "config": config_steps,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("data")
    options: dict[str, int | str] = {
        "images": 0, "epochs": 1, "seed": 0, "mapped": 0, "side": 28, "batch": BATCH,
        "config": "mnist.yaml", "precision": "auto",
    }  # fmt: skip
    for name, default in options.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parsed = parser.parse_args()
    VARIANTS[parsed.variant](parsed)
