"""What every task answers: what goes in, what should come out, how good it is, against what.

`Task` itself is the plainest one: the image that went in should come out. The others change what
differs. Images are uint8 (N, H, W, C), also damaged and small ones: what a file could hold. All
that is random comes from generators that hang on (seed, epoch, step, place in the batch).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convae.data.loading import middle
from convae.layers.summary import layer_rows
from convae.tasks import metrics

if TYPE_CHECKING:
    from convae.config.schema import Config
    from convae.data.loading import Split, TrainingData

Images = NDArray[np.uint8]  # (N, H, W, C)
Outputs = NDArray[np.float32]  # (N, H, W, C) in [0, 1]
Chosen = NDArray[np.int64] | slice
Shape = tuple[int, int, int]

HELD_OUT = 2**32 - 1  # in the place of the epoch, for damage that is the same in every evaluation
BLOCK = 50  # positions of a batch whose randomness is drawn together
UNUSED = np.random.default_rng(0)  # for examples that draw nothing
PCA_PIXELS = 4096  # values an image may have for its covariance matrix to stay below 128 MiB


@dataclass(frozen=True)
class Examples:
    """What goes into the model, and what should come out of it."""

    inputs: Images
    targets: Images  # or, of a segmentation, classes (N, H, W, 1)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, chosen: Chosen) -> Examples:
        inputs = self.inputs[chosen]
        return Examples(inputs, inputs if self.targets is self.inputs else self.targets[chosen])


@dataclass(frozen=True)
class Baseline:
    """A simple way to the same end, which a sceptic would name."""

    words: str
    outputs: Callable[[Images], Outputs]  # from the inputs


class Task:
    """The image that goes in should come out: reconstruct."""

    units: Mapping[str, str] = {
        "bce": "nats per pixel, binary cross-entropy",
        "floor": "nats per pixel, the lowest that any reconstruction can reach",
        "excess": "nats per pixel, bce - floor: 0 is perfect",
        "mse": "of values in [0, 1]: 0 is perfect",
        "psnr": "dB, higher is better",
        "ssim": "1 is perfect",
    }
    headline = "mse"  # the metric that the verdict is about
    settings: Any  # the config's section `task`

    def __init__(self, config: Config) -> None:
        self.config = config
        self.settings = config.task

    @property
    def image_shape(self) -> Shape:
        """Height, width and channels that the data's images must have."""
        return self.config.output_shape

    def select(self, split: Split) -> Split:
        """What of `split` training may see."""
        return split

    def seen(self, data: TrainingData) -> TrainingData:
        """The data with what is selected of both splits."""
        train, validation = self.select(data.train), self.select(data.validation)
        return replace(data, train=train, validation=validation)

    def draws(self, split: Split) -> bool:
        """Whether the examples of `split` hang on a generator."""
        return split.images.shape[1:] != self.image_shape

    def examples(self, split: Split, chosen: Chosen, generator: np.random.Generator) -> Examples:
        """The examples that the `chosen` images of `split` make."""
        images = split.images[chosen]
        if images.shape[1:] != self.image_shape:  # data.crop: another crop in each epoch
            from convae.data.image_folder import crop_random

            images = crop_random(images, self.image_shape, generator)
        return Examples(self.damaged(images, generator), images)

    def damaged(self, images: Images, generator: np.random.Generator) -> Images:
        """What goes in, made of what should come out; of the same length."""
        return images

    def held_out(self, split: Split) -> Examples:
        """All examples of a validation or test split, the same at every call."""
        return self.examples(split, slice(None), example_generator(self.config.seed, HELD_OUT, 0))

    def landmarks(self, train: Split, held_out: Examples) -> tuple[float, float]:
        """On held-out examples: the lowest loss that can be reached, and that of a fixed answer.

        A model that stays above the latter, the mean image's loss, has learned nothing.
        """
        train = middle(train, self.image_shape)
        mean = np.broadcast_to(metrics.mean_image(train.images), held_out.targets.shape)
        scores = metrics.image_scores(held_out.targets, mean, ssim=False)
        if self.config.training.loss == "mean_squared_error":
            return 0.0, float(scores["mse"].mean())
        return float(scores["floor"].mean()), float(scores["bce"].mean())

    def scores(self, targets: Images, outputs: Outputs) -> metrics.Scores:
        """The quality of each output; arrays whose first axis is N."""
        return metrics.image_scores(targets, outputs)

    def summarize(
        self,
        scores: metrics.Scores,
        labels: NDArray[np.int64] | None = None,
    ) -> dict[str, float]:
        """The quality over all images whose scores these are."""
        return metrics.summarize(scores)

    def per_class(
        self, scores: metrics.Scores, labels: NDArray[np.int64], classes: Sequence[str]
    ) -> dict[str, dict[str, float]]:
        """The quality by class."""
        return metrics.per_class(scores, labels, classes)

    def further(
        self,
        scores: metrics.Scores,
        labels: NDArray[np.int64] | None,
        data: TrainingData,
        score: Callable[[Examples], metrics.Scores],
    ) -> dict[str, Any]:
        """More that belongs into metrics.json; `score` measures further examples."""
        return {}

    def verdict_words(self) -> str:
        """What the model was asked to do, for the verdict."""
        return "copies images that it has not seen"

    def baselines(self, data: TrainingData) -> dict[str, Baseline]:
        """Simple ways to the same end, fitted on the training split, tuned on validation."""
        train = middle(data.train, self.image_shape)
        mean = metrics.mean_image(train.images)
        found = {
            "mean_image": Baseline(
                "the mean of the training images",
                lambda inputs: np.broadcast_to(mean, (len(inputs), *mean.shape)),
            )
        }
        size = code_size(self.config)
        if self.config.task.compresses and size < prod(self.image_shape) <= PCA_PIXELS:
            found["pca"] = principal_components(train.images, size)
        return found


def batch_examples(
    task: Task, split: Split, chosen: NDArray[np.int64], mine: slice, epoch: int, step: int
) -> Examples:
    """Of the batch that the `chosen` images make in a step, the examples at the places `mine`.

    They are the same whoever makes them: what is random is drawn for blocks of BLOCK places, each
    from a generator of its own, and whole blocks are made of which then a slice is taken.
    """
    if not task.draws(split):
        return task.examples(split, chosen[mine], UNUSED)
    first = mine.start // BLOCK * BLOCK
    blocks = [
        task.examples(
            split,
            chosen[start : start + BLOCK],
            example_generator(task.config.seed, epoch, step, start // BLOCK),
        )
        for start in range(first, max(mine.stop, first + 1), BLOCK)
    ]
    whole = Examples(
        np.concatenate([block.inputs for block in blocks]),
        np.concatenate([block.targets for block in blocks]),
    )
    return whole[slice(mine.start - first, mine.stop - first)]


def example_generator(seed: int, epoch: int, step: int, block: int = 0) -> np.random.Generator:
    """The source of all that is random in a block of the examples of a step."""
    # 1 + step: NumPy pads seeds with zeros, and (seed, epoch) alone is the order of the epoch.
    return np.random.default_rng([seed, epoch, 1 + step, block])


def code_size(config: Config) -> int:
    """Numbers in the code of one image. With skips the code is not all that the decoder sees."""
    model = config.model
    rows = layer_rows(model.input_shape, model.encoder)
    taken = {layer.skip for layer in model.decoder if layer.skip}
    return sum(prod(row.output_shape) for row in rows if row.name in taken) + prod(
        rows[-1].output_shape
    )


def principal_components(images: Images, components: int) -> Baseline:
    """The best linear code of that size: PCA, fitted on `images`."""
    pixels = prod(images.shape[1:])
    mean = metrics.mean_image(images).reshape(1, pixels)
    covariance = np.zeros((pixels, pixels))
    for start in range(0, len(images), 2000):
        flat = images[start : start + 2000].reshape(-1, pixels) / np.float32(255) - mean
        covariance += flat.T @ flat
    vectors = np.linalg.eigh(covariance)[1][:, -components:].astype(np.float32)

    def outputs(inputs: Images) -> Outputs:
        flat = inputs.reshape(len(inputs), pixels) / np.float32(255) - mean
        return ((flat @ vectors) @ vectors.T + mean).clip(0, 1).reshape(inputs.shape)

    return Baseline(f"PCA with {components} components (fitted on the training images)", outputs)


def as_bytes(values: NDArray[Any]) -> Images:
    """Gray values in [0, 1], clipped to it, as the bytes that a file would hold."""
    return (values.clip(0, 1) * 255).round().astype(np.uint8)
