"""Upscale: the input is a small image, the target is `factor` times as high and wide."""

from pathlib import Path
from typing import BinaryIO

import numpy as np

from convae.arrays import Images
from convae.config import task_schema
from convae.data.loading import TrainingData
from convae.tasks.baselines import Baseline, interpolation
from convae.tasks.task import UNUSED, Task


class Upscale(Task):
    """The inputs are the means of the targets' blocks of pixels, rounded to bytes."""

    description = "Upscales held-out images by a factor of {factor}"
    headline = chart_metric = class_metric = ranking_metric = "psnr"
    title = "Small inputs, outputs and absolute errors"
    compared_baselines = ("bicubic",)
    settings: task_schema.Upscale

    def read_input(self, file: Path | BinaryIO) -> Images:
        """Return an image of the input's size as it is, and others as training makes inputs."""
        shape = self.config.model.input_shape
        image = self.reader.read(file, as_is=shape)
        return image if image.shape == shape else self.make_inputs(image[None], UNUSED)[0]

    def make_inputs(self, images: Images, generator: np.random.Generator) -> Images:
        """Return the images at the model's input size."""
        factor = self.settings.factor
        number, height, width, channels = images.shape
        blocks = images.reshape(number, height // factor, factor, width // factor, factor, channels)
        half = factor**2 // 2  # rounds to the nearest
        sums = blocks.sum(axis=(2, 4), dtype=np.uint32) + half
        return np.asarray(sums // factor**2, np.uint8)

    def baselines(self, data: TrainingData) -> dict[str, Baseline]:
        """Return the mean image, nearest and bicubic interpolation."""
        size = self.config.output_shape[:2]
        methods = {name: interpolation(name, size) for name in ("nearest", "bicubic")}
        return super().baselines(data) | methods
