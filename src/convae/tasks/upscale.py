"""A small image goes in; the image `factor` times as high and wide should come out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from convae.config.schema import Upscale as Settings
from convae.tasks.task import Baseline, Images, Outputs, Task

if TYPE_CHECKING:
    from convae.data.loading import TrainingData


class Upscale(Task):
    """Small images are means over blocks of the large ones, rounded to bytes."""

    headline = "psnr"
    settings: Settings

    def damaged(self, images: Images, generator: np.random.Generator) -> Images:
        """The images at the model's input size."""
        factor = self.settings.factor
        number, height, width, channels = images.shape
        blocks = images.reshape(number, height // factor, factor, width // factor, factor, channels)
        sums = blocks.sum(axis=(2, 4), dtype=np.uint32)
        half = factor * factor // 2  # rounds to the nearest
        return np.asarray((sums + half) // (factor * factor), np.uint8)

    def verdict_words(self) -> str:
        """What the model was asked to do, for the verdict."""
        return f"draws images that it has not seen at {self.settings.factor} times their size"

    def baselines(self, data: TrainingData) -> dict[str, Baseline]:
        """Nearest and bicubic interpolation."""
        found = super().baselines(data)
        height, width = self.config.output_shape[:2]

        def interpolated(method: Image.Resampling) -> Baseline:
            def outputs(inputs: Images) -> Outputs:
                planes = np.moveaxis(inputs, 3, 1).astype(np.float32) / 255
                grown = [
                    [np.asarray(Image.fromarray(p).resize((width, height), method)) for p in image]
                    for image in planes
                ]
                return np.moveaxis(np.asarray(grown, np.float32), 1, 3).clip(0, 1)

            return Baseline(f"{method.name.lower()} interpolation", outputs)

        found["nearest"] = interpolated(Image.Resampling.NEAREST)
        found["bicubic"] = interpolated(Image.Resampling.BICUBIC)
        return found
