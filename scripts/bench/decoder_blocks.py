"""Compare three layers that enlarge an image in a decoder: quality, speed, checkerboards.

    python -m scripts.bench.decoder_blocks [CONFIG] [key=value ...]

Trains CONFIG three times (default: configs/bottleneck.yaml): its strided conv_transpose layers as
they are, then as resize_conv, then as depth_to_space, both with kernels of 3x3. Prints a table.
The checkerboard measure is convae.explain.effects.stride_peak of the test outputs at the last
stride: the power at that period relative to its neighbors, beside that of the images themselves.
"""

from __future__ import annotations

import json
import sys

import numpy as np

from convae.config.loader import load_config
from convae.config.schema import Config
from convae.data.loading import load_test
from convae.errors import ConfigError
from convae.evaluation.evaluate import load_model
from convae.explain.effects import stride_peak
from convae.runtime.start import start
from convae.tasks import build_task, metrics
from convae.training.engine import Engine
from convae.training.trainer import train
from scripts.project import exit_with, format_markdown

BLOCKS = ("conv_transpose", "resize_conv", "depth_to_space")
HEAD = ("decoder block", "parameters", "million MACs", "MSE", "SSIM", "images/s", "checkerboard")


def with_blocks(config: Config, block: str) -> str:
    """Return the override that replaces each strided transposed layer of the decoder."""
    layers = config.model_dump(mode="json", exclude_none=True)["model"]["decoder"]
    for layer in layers:
        if layer["type"] == "conv_transpose" != block and max(layer["strides"]) > 1:
            layer.pop("output_padding", None)
            layer |= {"type": block, "kernel_size": 3, "padding": "same"}
    return f"model.decoder={json.dumps(layers)}"


def main() -> None:
    """Train, measure and print."""
    words = sys.argv[1:]
    path = words.pop(0) if words and "=" not in words[0] else "configs/bottleneck.yaml"
    config = load_config(path, words)
    strided = [x for x in config.model.decoder if max(x.strides) > 1]
    if not strided or any(layer.type != "conv_transpose" for layer in strided):
        raise ConfigError(f"{path}: only strided conv_transpose layers may enlarge the image")
    stride = max(strided[-1].strides)
    task = build_task(config)
    test = task.evaluation_examples(load_test(config.data, task.image_shape).test)
    rows: list[tuple[object, ...]] = []
    for block in BLOCKS:
        changes = [with_blocks(config, block), f"name={config.name}-{block}"]
        variant = load_config(path, words + changes)
        run = train(variant)
        model = load_model(run)
        outputs = Engine(model, variant, start(variant)).predict(test.inputs)
        scores = metrics.image_scores(test.targets, outputs)
        layers = variant.model_summary.rows
        rows.append((
            block, f"{model.count_params():,}", f"{sum(r.macs for r in layers) / 1e6:.2f}",
            f"{scores['mse'].mean():.5f}", f"{scores['ssim'].mean():.4f}",
            f"{np.median([row['images_per_second'] for row in run.history]):,.0f}",
            f"{stride_peak(outputs.mean(axis=3), stride):.3f}",
        ))  # fmt: skip
    images = stride_peak(test.targets.mean(axis=3) / 255, stride)
    rows.append(("(the images themselves)", "", "", 0, 1, "", f"{images:.3f}"))
    print(format_markdown(HEAD, rows))


if __name__ == "__main__":
    exit_with(main)
