"""The base class of the tasks, and the examples that a task makes of the data's images.

All randomness comes from generators that are seeded by (seed, epoch, step, block of the batch), so
that every worker and every resumed run makes the same examples.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from convae.arrays import Array, Floats, Images, Labels, Shape
from convae.config.schema import Config
from convae.data.image_file import ImageReader
from convae.data.loading import Split, TrainingData
from convae.data.transforms import crop_random
from convae.tasks import metrics
from convae.tasks.baselines import Baseline, Filter

Indices = NDArray[np.int64] | slice

EVALUATION = 2**32 - 1  # in the place of the epoch, for examples of validation and test
BLOCK = 50  # examples of a batch that share a generator
UNUSED = np.random.default_rng(0)  # for examples without randomness
REQUIRED = ("description", "headline", "chart_metric", "class_metric", "ranking_metric")


@dataclass(frozen=True)
class Examples:
    """Inputs of the model and their targets."""

    inputs: Images  # (N, H, W, C)
    targets: Images  # images (N, H', W', C'), or the class of each pixel (N, H, W, 1)
    noise: Floats | None = None  # standard normal (N, h, w, c), for codes that are drawn

    @property
    def arrays(self) -> tuple[Array, ...]:
        """The arrays that there are, in their order."""
        return (self.inputs, self.targets, *(() if self.noise is None else (self.noise,)))

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, indices: Indices) -> "Examples":
        inputs = self.inputs[indices]
        targets = inputs if self.targets is self.inputs else self.targets[indices]
        return Examples(inputs, targets, None if self.noise is None else self.noise[indices])

    @classmethod
    def concatenate(cls, parts: "Sequence[Examples]") -> "Examples":
        """Return the examples of all `parts`, in their order."""
        if len(parts) == 1:
            return parts[0]
        arrays = zip(*(part.arrays for part in parts), strict=True)
        inputs, targets, *noise = map(np.concatenate, arrays)
        same = all(part.targets is part.inputs for part in parts)
        return cls(inputs, inputs if same else targets, *noise)


class Predictor(Protocol):
    """What gives outputs: a trained model or a baseline."""

    @property
    def outputs(self) -> Filter:
        """A function from inputs to outputs."""


@dataclass(frozen=True)
class Evaluation:
    """What the further metrics of an evaluation are computed from."""

    examples: Examples
    labels: Labels | None  # of the examples
    scores: metrics.Scores  # of the examples
    data: TrainingData
    test: Split
    model: Any  # a Predictor; of a model with codes also a likelihood.LatentModel
    baselines: Mapping[str, Baseline]
    score: Callable[[Examples], metrics.Scores]  # by the model


class Task:
    """Inputs, targets, metrics and baselines of what a model is trained for.

    A subclass defines at least the attributes of REQUIRED. The defaults are those of a task whose
    targets are the data's images; `make_inputs` then makes the inputs from them.
    """

    description: str  # begins the summary; {keys} are filled in from the section `task`
    headline: str  # the metric of the summary, a key of `units`
    chart_metric: str  # the metric beside that of the baselines in the figure `scores`
    class_metric: str  # the metric of the figure `error_by_class`
    ranking_metric: str  # the metric by which single examples are ranked, a key of `scores`
    units: Mapping[str, str] = {
        "bce": "nats per pixel, binary cross-entropy",
        "floor": "nats per pixel, entropy of the targets: the lowest bce possible",
        "excess": "nats per pixel, bce - floor: 0 is perfect",
        "mse": "of values in [0, 1]: 0 is perfect",
        "psnr": "dB, higher is better",
        "ssim": "1 is perfect",
    }
    error_name = "mean squared error"  # of the method `error`
    figures: tuple[str, ...] = ("reconstructions", "best_and_worst", "error_by_class", "code")
    title = "Inputs, outputs and absolute errors"  # of the figure `reconstructions`
    input_label, output_label, target_label = "input", "output", "target"
    compared_baselines: tuple[str, ...] = ()  # the best of them is drawn beside the output
    reconstruction_score: str | None = None  # the metric that compares the output with the input
    output_metric: str | None = None  # the main one of `scores`; None: the headline
    outputs_images = True  # False: the output is a probability of each class for each pixel
    corrupts_inputs = False  # whether the model also takes images that were not corrupted
    always_random = False  # True: examples are random even without random crops
    one_image_each = True  # whether an example is one image of the data and has its label
    settings: Any  # the section `task` of the config

    def __init__(self, config: Config) -> None:
        self.config = config
        self.settings = config.task

    @property
    def image_shape(self) -> Shape:
        """Height, width and channels that the data's images must have."""
        return self.config.output_shape

    @cached_property
    def reader(self) -> ImageReader:
        """The reader that prepares image files as the data's images are prepared."""
        return ImageReader(self.config.data, self.image_shape)

    def read_input(self, file: Path | BinaryIO) -> Images:
        """Return an image file as an input of the model, (H, W, C); errors are the reader's."""
        return self.reader.read(file)

    def select(self, split: Split) -> Split:
        """Return the images and labels of `split` that are used for training."""
        return split

    def filter(self, data: TrainingData) -> TrainingData:
        """Return `data` with the selected images of both splits."""
        return replace(data, train=self.select(data.train), validation=self.select(data.validation))

    def is_random(self, split: Split) -> bool:
        """Return whether the examples of `split` are random."""
        return self.always_random or split.images.shape[1:] != self.image_shape

    def examples(self, split: Split, indices: Indices, generator: np.random.Generator) -> Examples:
        """Return the examples of the images at `indices` of `split`."""
        images = split.images[indices]
        if images.shape[1:] != self.image_shape:  # data.crop: another crop in each epoch
            images = crop_random(images, self.image_shape, generator)
        return Examples(self.make_inputs(images, generator), images)

    def make_inputs(self, images: Images, generator: np.random.Generator) -> Images:
        """Return the inputs (N, H, W, C) of the target images (N, H', W', C')."""
        return images

    def evaluation_examples(self, split: Split) -> Examples:
        """Return all examples of a validation or test split, the same at every call."""
        return self.examples(split, slice(None), example_generator(self.config.seed, EVALUATION, 0))

    def labels(self, split: Split) -> Labels | None:
        """Return the labels (N,) of the evaluation examples, or None if they have none."""
        return split.labels if self.one_image_each else None

    def reference_losses(self, train: Split, examples: Examples) -> tuple[float, float]:
        """Return the lowest possible loss on evaluation examples, and that of the mean image.

        A model whose loss stays above the second has learned nothing.
        """
        mean = metrics.mean_image(train.center(self.image_shape).images)
        outputs = np.broadcast_to(mean, examples.targets.shape)
        scores = metrics.image_scores(examples.targets, outputs, ssim=False)
        if self.config.training.loss == "mean_squared_error":
            return 0.0, float(scores["mse"].mean())
        return float(scores["floor"].mean()), float(scores["bce"].mean())

    def score(self, model: Any, examples: Examples) -> metrics.Scores:
        """Return the metrics of each example by a Predictor, arrays whose first axis is N."""
        return self.scores(examples.targets, model.outputs(examples.inputs))

    def scores(self, targets: Images, outputs: Floats) -> metrics.Scores:
        """Return the metrics of each output, arrays whose first axis is N."""
        return metrics.image_scores(targets, outputs)

    def error(self, targets: Images, outputs: Floats) -> NDArray[np.float64]:
        """Return the error (N,) of each output that `error_name` names, 0 if it is perfect."""
        difference = outputs - targets / np.float32(255)
        return np.asarray(np.square(difference).mean(axis=(1, 2, 3), dtype=np.float64))

    def summarize(self, scores: metrics.Scores, labels: Labels | None = None) -> dict[str, float]:
        """Return the metrics over all examples, by the keys of `units`."""
        return metrics.summarize(scores)

    def per_class(
        self, scores: metrics.Scores, labels: Labels | None, classes: Sequence[str]
    ) -> dict[str, dict[str, float]]:
        """Return the metrics of each class by its name; empty without labels."""
        return {} if labels is None else metrics.per_class(scores, labels, classes)

    def extra_metrics(self, evaluation: Evaluation) -> dict[str, Any]:
        """Return further keys of metrics.json."""
        return {}

    def format_extra_metrics(self, result: Mapping[str, Any]) -> list[str]:
        """Return a line of text for each of the `extra_metrics` in metrics.json."""
        return []

    def positives(self, labels: Labels | None) -> NDArray[np.bool_]:
        """Return which examples belong to the class that the task detects, (N,)."""
        raise TypeError(f"{type(self).__name__} detects no class")

    def compare_to_threshold(
        self, target: Images, output: Floats, threshold: float | None
    ) -> tuple[list[str], bool | None]:
        """Return lines about the error of one output, and whether it is above the threshold.

        `target` and `output` are (1, H, W, C), and `threshold` is that in the run's metrics.json.
        """
        return [f"{self.error_name} {self.error(target, output)[0]:.5f}; 0 is perfect"], None

    def to_images(self, values: Images | Floats) -> Images:
        """Return outputs or targets as images, uint8 (N, H, W, 1 or 3)."""
        return np.asarray(values) if values.dtype == np.uint8 else to_bytes(values)

    def class_names(self, classes: Sequence[str]) -> list[str]:
        """Return the names of the classes of `per_class`; `classes` are the data's."""
        return list(map(str, classes))

    def describe_examples(self, data: str, count: int) -> str:
        """Return what figures call the `count` examples of the data set `data`."""
        return data

    def baselines(self, data: TrainingData) -> dict[str, Baseline]:
        """Return simple alternatives to the model, fitted on train and tuned on validation."""
        mean = metrics.mean_image(data.train.center(self.image_shape).images)
        baseline = Baseline(
            "mean image",
            "the mean of the training images",
            lambda inputs: np.broadcast_to(mean, (len(inputs), *mean.shape)),
        )
        return {"mean_image": baseline}


def batch_examples(
    task: Task, split: Split, indices: NDArray[np.int64], mine: slice, epoch: int, step: int
) -> Examples:
    """Return the examples at the places `mine` of the batch of the images at `indices`.

    They do not depend on `mine`: each block of BLOCK places has its own generator, and complete
    blocks are made, of which the places are taken.
    """
    if not task.is_random(split):
        return task.examples(split, indices[mine], UNUSED)
    first = mine.start // BLOCK * BLOCK
    blocks = [
        task.examples(
            split,
            indices[start : start + BLOCK],
            example_generator(task.config.seed, epoch, step, start // BLOCK),
        )
        for start in range(first, max(mine.stop, first + 1), BLOCK)
    ]
    return Examples.concatenate(blocks)[slice(mine.start - first, mine.stop - first)]


def example_generator(seed: int, epoch: int, step: int, block: int = 0) -> np.random.Generator:
    """Return the random generator of a block of the examples of a step."""
    # 1 + step: NumPy pads seeds with zeros, and (seed, epoch) is the seed of the epoch's order.
    return np.random.default_rng([seed, epoch, 1 + step, block])


def to_bytes(values: NDArray[Any]) -> Images:
    """Return values in [0, 1] as uint8 0 to 255; values outside are clipped."""
    return (values.clip(0, 1) * 255).round().astype(np.uint8)
