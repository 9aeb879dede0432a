"""A damaged image goes in; the image should come out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from convae.config.schema import Denoise as Settings
from convae.config.schema import ErasedBlocks, GaussianNoise
from convae.tasks import metrics
from convae.tasks.task import Baseline, Images, Outputs, Task, as_bytes

if TYPE_CHECKING:
    from convae.data.loading import Split, TrainingData

TUNED_ON = 500  # validation images that choose a filter's strength


class Denoise(Task):
    """Damage that is drawn anew in every epoch, and the same in every evaluation."""

    headline = "psnr"
    settings: Settings

    def draws(self, split: Split) -> bool:
        """Always: the noise."""
        return True

    def damaged(self, images: Images, generator: np.random.Generator) -> Images:
        """Images with the noise of the config."""
        noise = self.settings.noise
        if isinstance(noise, GaussianNoise):
            drawn = generator.standard_normal(images.shape, np.float32)
            return as_bytes(images / np.float32(255) + np.float32(noise.scale) * drawn)
        if isinstance(noise, ErasedBlocks):
            return _erased(images, noise.count, noise.size, generator)
        pixels = images.shape[:3]  # all channels of a pixel fall together
        hit = generator.random((*pixels, 1), np.float32) < noise.share
        salt = generator.integers(0, 2, (*pixels, 1), np.uint8) * np.uint8(255)
        return np.where(hit, salt, images)

    def verdict_words(self) -> str:
        """What the model was asked to do, for the verdict."""
        return "takes the noise off images that it has not seen"

    def baselines(self, data: TrainingData) -> dict[str, Baseline]:
        """The noisy image itself, and three filters at the strength that suits validation best."""
        found = super().baselines(data)
        found["noisy_input"] = Baseline("what goes in, unchanged", _floats)
        tuning = self.held_out(data.validation)[slice(TUNED_ON)]
        for name, (words, strengths, make) in filters().items():
            scored = []
            for strength in strengths:
                outputs = make(strength)
                scores = metrics.image_scores(tuning.targets, outputs(tuning.inputs), ssim=False)
                scored.append((scores["psnr"].mean(), strength, outputs))
            _, strength, outputs = max(scored, key=lambda entry: entry[0])
            found[name] = Baseline(
                f"a {words} {strength:g} (the best of {len(strengths)} on validation images)",
                outputs,
            )
        return found


Filter = Callable[[Images], Outputs]


def filters() -> dict[str, tuple[str, list[float], Callable[[float], Filter]]]:
    """Name -> (words, strengths to try, strength -> filter).

    Empty without scikit-image: pip install 'convae[filters]'.
    """
    try:
        from scipy import ndimage
        from skimage.restoration import denoise_tv_chambolle
    except ImportError:
        return {}

    def median(size: float) -> Filter:
        window = (1, int(size), int(size), 1)
        return lambda inputs: ndimage.median_filter(_floats(inputs), window)

    def gaussian(sigma: float) -> Filter:
        return lambda inputs: ndimage.gaussian_filter(_floats(inputs), (0, sigma, sigma, 0))

    def total_variation(weight: float) -> Filter:
        def run(inputs: Images) -> Outputs:
            images = (
                denoise_tv_chambolle(image, weight, channel_axis=-1) for image in _floats(inputs)
            )
            return np.asarray(np.stack(list(images)).clip(0, 1), np.float32)

        return run

    return {
        "median": ("median filter of size", [3, 5, 7], median),
        "gaussian": ("Gaussian filter of sigma", [0.6, 0.8, 1, 1.2, 1.5, 2], gaussian),
        "total_variation": (
            "total variation filter (Chambolle 2004) of weight",
            [0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8],
            total_variation,
        ),
    }


def _floats(images: Images) -> Outputs:
    return np.asarray(images / np.float32(255))


def _erased(images: Images, count: int, size: int, generator: np.random.Generator) -> Images:
    """Images in each of which `count` squares of `size` pixels are black."""
    images = images.copy()
    number, height, width = images.shape[:3]
    size = min(size, height, width)
    tops = generator.integers(0, height - size + 1, (number, count))
    lefts = generator.integers(0, width - size + 1, (number, count))
    rows, columns = np.arange(height), np.arange(width)
    for top, left in zip(tops.T[:, :, None], lefts.T[:, :, None], strict=True):
        in_rows = (rows >= top) & (rows < top + size)
        in_columns = (columns >= left) & (columns < left + size)
        images[in_rows[:, :, None] & in_columns[:, None, :]] = 0
    return images
