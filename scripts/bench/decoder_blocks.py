"""Three ways to grow an image in a decoder, compared: quality, speed, checkerboards.

    python -m scripts.bench.decoder_blocks [CONFIG] [key=value ...]

Trains CONFIG three times (by default configs/bottleneck.yaml): its strided conv_transpose layers
as they are, then as resize_conv, then as depth_to_space, both with kernels of 3x3. Prints a table.
The checkerboard measure is convae.lab.effects.stride_peak of the test outputs at the last stride:
how far the power at that period stands out of its neighbors, beside that of the images themselves.
"""

from __future__ import annotations

import json
import sys

import numpy as np

from convae.config.loader import load_config
from convae.config.schema import Config
from convae.data.loading import load_test
from convae.errors import ConvaeError
from convae.evaluation.evaluate import load_model
from convae.explain.effects import stride_peak
from convae.layers.summary import layer_rows
from convae.runtime.start import start
from convae.tasks import build_task, metrics
from convae.training.engine import Engine
from convae.training.trainer import train

BLOCKS = ("conv_transpose", "resize_conv", "depth_to_space")


def with_blocks(config: Config, block: str) -> str:
    """The override that makes `block` of each strided transposed layer of the decoder."""
    layers = config.model_dump(mode="json", exclude_none=True)["model"]["decoder"]
    for layer in layers:
        if layer["type"] == "conv_transpose" != block and max(layer["strides"]) > 1:
            layer.pop("output_padding", None)
            layer |= {"type": block, "kernel_size": 3, "padding": "same"}
    return f"model.decoder={json.dumps(layers)}"


def main() -> int:
    """Train, measure and print; 2 if the config does not fit."""
    words = sys.argv[1:]
    path = words.pop(0) if words and "=" not in words[0] else "configs/bottleneck.yaml"
    try:
        config = load_config(path, words)
        strided = [x for x in config.model.decoder if max(x.strides) > 1]
        if not strided or any(layer.type != "conv_transpose" for layer in strided):
            raise ConvaeError(
                f"{path}: its decoder must grow by strided conv_transpose layers alone"
            )
        stride = max(strided[-1].strides)
        task = build_task(config)
        test = task.evaluation_examples(load_test(config.data, task.image_shape).test)
        rows = []
        for block in BLOCKS:
            name = f"name={config.name}-{block}"
            variant = load_config(path, [*words, with_blocks(config, block), name])
            run = train(variant)
            model = load_model(run)
            outputs = Engine(model, variant, start(variant)).predict(test.inputs)
            scores = metrics.image_scores(test.targets, outputs)
            layers = layer_rows(variant.model.input_shape, variant.model.layers)
            rows.append(
                f"| {block} | {model.count_params():,} | {sum(r.macs for r in layers) / 1e6:.2f} "
                f"| {scores['mse'].mean():.5f} | {scores['ssim'].mean():.4f} "
                f"| {np.median([row['images_per_second'] for row in run.history]):,.0f} "
                f"| {stride_peak(outputs.mean(axis=3), stride):.3f} |"
            )
    except ConvaeError as error:
        print(f"decoder_blocks: {error}", file=sys.stderr)
        return 2
    print("| decoder block | parameters | million MACs | MSE | SSIM | images/s | checkerboard |")
    print("|---|---|---|---|---|---|---|\n" + "\n".join(rows))
    images = stride_peak(test.targets.mean(axis=3) / 255, stride)
    print(f"| (the images themselves) | | | 0 | 1 | | {images:.3f} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
