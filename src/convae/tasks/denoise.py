"""Denoise: the input is a corrupted image, the target is the image.

A new noise is a section in the schema, a function here, and a row in NOISES.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.random import Generator

from convae.arrays import Images
from convae.config import task_schema
from convae.data.loading import TrainingData
from convae.errors import ConfigError
from convae.tasks.baselines import Baseline, to_floats, tuned_filters
from convae.tasks.task import Task, to_bytes


class Denoise(Task):
    """The noise is new in every epoch, and the same in every evaluation."""

    description = "Denoises held-out images"
    headline = chart_metric = class_metric = ranking_metric = "psnr"
    title = "Noisy inputs, outputs and absolute errors"
    input_label, target_label = "noisy input", "clean target"
    compared_baselines = ("median", "gaussian", "total_variation")
    corrupts_inputs = always_random = True
    settings: task_schema.Denoise

    def make_inputs(self, images: Images, generator: Generator) -> Images:
        """Return `images` with the noise of the config."""
        noise = self.settings.noise
        if noise.type not in NOISES:
            raise ConfigError(f"task.noise.type: {noise.type} is in the schema, but not in NOISES")
        return NOISES[noise.type](images, noise, generator)

    def baselines(self, data: TrainingData) -> dict[str, Baseline]:
        """Return the mean image, the noisy input, and filters tuned on validation images."""
        tuning = self.evaluation_examples(data.validation)[slice(500)]
        filters = tuned_filters(tuning.inputs, tuning.targets)
        unchanged = Baseline("noisy input", "the noisy input, unchanged", to_floats)
        return super().baselines(data) | {"noisy_input": unchanged} | filters


def _gaussian(images: Images, noise: task_schema.GaussianNoise, generator: Generator) -> Images:
    normal = generator.standard_normal(images.shape, np.float32)
    return to_bytes(images / np.float32(255) + np.float32(noise.scale) * normal)


def _salt_and_pepper(
    images: Images, noise: task_schema.SaltAndPepper, generator: Generator
) -> Images:
    pixels = (*images.shape[:3], 1)  # all channels of a pixel get the same value
    hit = generator.random(pixels, np.float32) < noise.share
    salt = generator.integers(0, 2, pixels, np.uint8) * np.uint8(255)
    return np.where(hit, salt, images)


def _erased_blocks(images: Images, noise: task_schema.ErasedBlocks, generator: Generator) -> Images:
    images = images.copy()
    number, height, width = images.shape[:3]
    size = min(noise.size, height, width)
    tops = generator.integers(0, height - size + 1, (number, noise.count))
    lefts = generator.integers(0, width - size + 1, (number, noise.count))
    rows, columns = np.arange(height), np.arange(width)
    for top, left in zip(tops.T[:, :, None], lefts.T[:, :, None], strict=True):
        in_rows = (rows >= top) & (rows < top + size)
        in_columns = (columns >= left) & (columns < left + size)
        images[in_rows[:, :, None] & in_columns[:, None, :]] = 0
    return images


NOISES: Mapping[str, Callable[[Images, Any, Generator], Images]] = {
    "gaussian": _gaussian,
    "salt_and_pepper": _salt_and_pepper,
    "erased_blocks": _erased_blocks,
}
