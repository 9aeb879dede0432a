"""Segment: the input is a scene of overlapping digits, the target is the class of each pixel."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from convae.arrays import Floats, Images, Labels, Shape
from convae.config import task_schema
from convae.data.image_file import ImageReader
from convae.data.loading import Split, TrainingData
from convae.errors import DataError
from convae.tasks import metrics
from convae.tasks.baselines import Baseline
from convae.tasks.scenes import draw_scenes
from convae.tasks.task import EVALUATION, Examples, Indices, Task, example_generator

BACKGROUND = "#1F2933"
# Ten classes on BACKGROUND: of 48 candidates that are light enough, those whose nearest two
# (CIE 1976) are 32 apart, and 22 with deuteranopia and protanopia (Machado et al. 2009).
CLASS_COLORS = (
    "#6A8CFF", "#F0E442", "#D55E00", "#8FA3B0", "#D9B3FF",
    "#FFFFFF", "#00A86B", "#A0522D", "#B2DF8A", "#0072B2",
)  # fmt: skip


class Segment(Task):
    """The scenes of a split are drawn from the digits of that split only.

    The classes of the pixels are those of the digits and, last, the background.
    """

    units: Mapping[str, str] = {
        "iou": "mean over the classes of intersection over union, of all pixels: 1 is perfect",
        "accuracy": "share of pixels whose class is right",
    }
    figures = ("segmentations", "best_and_worst", "confusion", "error_by_class")
    description = "Classifies the pixels of held-out scenes"
    headline = chart_metric = class_metric = "iou"
    ranking_metric = "accuracy"
    error_name = "share of wrong pixels"
    input_label, output_label, target_label = "scene", "prediction", "truth"
    outputs_images = False
    one_image_each = False
    always_random = True
    settings: task_schema.Segment

    @property
    def image_shape(self) -> Shape:
        """The shape of the digits that scenes are drawn from."""
        return 28, 28, 1

    @cached_property
    def reader(self) -> ImageReader:
        """The reader of scenes; `data.resize` and `data.crop` are of the digits."""
        data = self.config.data.model_copy(update={"resize": None, "crop": None})
        return ImageReader(data, self.config.model.input_shape)

    def select(self, split: Split) -> Split:
        """Return `split`. Raises DataError if it has no labels, or too many classes."""
        highest = _labels(split).max()
        if highest >= self.settings.classes:
            raise DataError(
                f"task.classes: the data's labels go up to {highest}, so there must be "
                f"{highest + 1} or more. Received: {self.settings.classes}"
            )
        return split

    def examples(self, split: Split, indices: Indices, generator: np.random.Generator) -> Examples:
        """Return a scene for each digit at `indices`; it is the lowest digit in the scene."""
        first, size = np.arange(len(split))[indices], self.config.model.input_shape[:2]
        counts, background = self.settings.digits, self.settings.classes
        digits = split.images, _labels(split)
        return Examples(*draw_scenes(*digits, first, size, counts, background, generator))

    def evaluation_examples(self, split: Split) -> Examples:
        """Return `task.scenes` scenes."""
        generator = example_generator(self.config.seed, EVALUATION, 0)
        return self.examples(split, np.arange(self.settings.scenes) % len(split), generator)

    def reference_losses(self, train: Split, examples: Examples) -> tuple[float, float]:
        """Return 0, and the loss of the best probabilities that are equal for all pixels."""
        counts = np.bincount(examples.targets.reshape(-1), minlength=self.settings.classes + 1)
        weights = np.full(len(counts), self.settings.foreground_weight)
        weights[-1] = 1
        shares = weights * counts / examples.targets.size
        shares = shares[shares > 0]
        return 0.0, float(-(shares * np.log(shares / shares.sum())).sum())

    def scores(self, targets: Images, outputs: Floats) -> metrics.Scores:
        """Return `accuracy` (N,) and `confusion` (N, classes, classes): pixels of i taken for j."""
        truth, predicted = targets[..., 0], outputs.argmax(axis=-1)
        counts = metrics.confusion(truth, predicted, outputs.shape[-1])
        return {"accuracy": (truth == predicted).mean(axis=(1, 2)), "confusion": counts}

    def error(self, targets: Images, outputs: Floats) -> NDArray[np.float64]:
        """Return the share of wrong pixels of each output, (N,)."""
        return np.asarray(1 - self.scores(targets, outputs)["accuracy"])

    def summarize(self, scores: metrics.Scores, labels: Labels | None = None) -> dict[str, float]:
        """Return the IoU from one confusion matrix over all pixels, and the accuracy."""
        per_class = metrics.intersection_over_union(scores["confusion"].sum(axis=0))
        return {"iou": float(np.nanmean(per_class)), "accuracy": float(scores["accuracy"].mean())}

    def per_class(
        self, scores: metrics.Scores, labels: Labels | None, classes: Sequence[str]
    ) -> dict[str, dict[str, float]]:
        """Return the IoU of each class of pixels, without those that are nowhere."""
        found = metrics.intersection_over_union(scores["confusion"].sum(axis=0))
        names = self.class_names(classes)
        return {n: {"iou": float(v)} for n, v in zip(names, found, strict=True) if not np.isnan(v)}

    def to_images(self, values: Images | Floats) -> Images:
        """Return probabilities or classes in the colors of the classes, uint8 (N, H, W, 3)."""
        known = values.dtype == np.uint8
        classes = np.asarray(values[..., 0] if known else values.argmax(axis=-1), np.int64)
        return color_classes(classes, self.settings.classes + 1)

    def class_names(self, classes: Sequence[str]) -> list[str]:
        """Return the data's classes, numbers up to `task.classes`, and the background."""
        more = range(len(classes), self.settings.classes)
        return [*map(str, (*classes, *more)), "background"]

    def describe_examples(self, data: str, count: int) -> str:
        """Return what figures call the scenes."""
        return f"{data}, {count:,} scenes of its test images"

    def baselines(self, data: TrainingData) -> dict[str, Baseline]:
        """Return the background for every pixel, which is right for most of them."""
        background = np.eye(self.settings.classes + 1, dtype=np.float32)[-1]
        return {
            "background": Baseline(
                "background",
                "background everywhere",
                lambda inputs: np.broadcast_to(background, (*inputs.shape[:3], len(background))),
            )
        }


def class_colors(count: int) -> NDArray[np.uint8]:
    """Return the colors of `count` classes, RGB (count, 3).

    More than ten classes cannot all be distinguished by color; they get a rainbow.
    """
    if count <= len(CLASS_COLORS):
        return np.array([list(bytes.fromhex(c[1:])) for c in CLASS_COLORS[:count]], np.uint8)
    from matplotlib import colormaps

    return np.asarray(colormaps["turbo"](np.linspace(0.05, 1, count), bytes=True)[:, :3], np.uint8)


def color_classes(classes: NDArray[np.integer], count: int) -> Images:
    """Return class maps (N, H, W) in color, (N, H, W, 3); the last of `count` is dark."""
    background = np.array(list(bytes.fromhex(BACKGROUND[1:])), np.uint8)
    return np.asarray(np.vstack([class_colors(count - 1), background])[classes])


def _labels(split: Split) -> Labels:
    if split.labels is None:
        raise DataError("task.type: segment needs data with labels: the classes of the pixels")
    return split.labels
