"""A scene of overlapping digits goes in; the class of each of its pixels comes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from convae.config.schema import Segment as Settings
from convae.errors import DataError
from convae.tasks import metrics
from convae.tasks.scenes import draw_scenes
from convae.tasks.task import (
    HELD_OUT,
    Baseline,
    Chosen,
    Examples,
    Images,
    Outputs,
    Shape,
    Task,
    example_generator,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convae.data.loading import Split, TrainingData

DIGIT = (28, 28, 1)


class Segment(Task):
    """Scenes are drawn on the fly from a split's digits alone; splits never mix.

    The classes are the digits' own, and one more for the background, which comes last.
    """

    units: Mapping[str, str] = {
        "iou": "mean over the classes of intersection over union, of all pixels: 1 is perfect",
        "accuracy": "share of pixels whose class is right",
    }
    headline = "iou"
    settings: Settings

    @property
    def image_shape(self) -> Shape:
        """Digits, of which the scenes are drawn."""
        return DIGIT

    def select(self, split: Split) -> Split:
        """All digits. Raises DataError if they have no labels, or too many classes."""
        highest = _labels(split).max()
        if highest >= self.settings.classes:
            raise DataError(
                f"task.classes: the data's labels go up to {highest}, so there must be "
                f"{highest + 1} or more. Received: {self.settings.classes}"
            )
        return split

    def draws(self, split: Split) -> bool:
        """Always: the scenes."""
        return True

    def examples(self, split: Split, chosen: Chosen, generator: np.random.Generator) -> Examples:
        """A scene for each chosen digit, which is the first that is laid down in it."""
        first = np.arange(len(split))[chosen]
        height, width = self.config.model.input_shape[:2]
        scenes, classes = draw_scenes(
            split.images, _labels(split), first, (height, width),
            self.settings.digits, self.settings.classes, generator,
        )  # fmt: skip
        return Examples(scenes, classes)

    def held_out(self, split: Split) -> Examples:
        """`task.scenes` scenes."""
        generator = example_generator(self.config.seed, HELD_OUT, 0)
        return self.examples(split, np.arange(self.settings.scenes) % len(split), generator)

    def landmarks(self, train: Split, held_out: Examples) -> tuple[float, float]:
        """0, and the loss of the best answer that is the same for each pixel."""
        counts = np.bincount(held_out.targets.reshape(-1), minlength=self.settings.classes + 1)
        weights = np.full(len(counts), self.settings.foreground_weight)
        weights[-1] = 1
        shares = weights * counts / held_out.targets.size
        shares = shares[shares > 0]
        return 0.0, float(-(shares * np.log(shares / shares.sum())).sum())

    def scores(self, targets: Images, outputs: Outputs) -> metrics.Scores:
        """`confusion` (N, classes, classes): pixels of class i taken for j; `accuracy` (N,)."""
        found = outputs.argmax(axis=-1)
        confusion = metrics.confusion(targets[..., 0], found, outputs.shape[-1])
        right = (targets[..., 0] == found).reshape(len(found), -1)
        return {"accuracy": right.mean(axis=1), "confusion": confusion}

    def summarize(
        self, scores: metrics.Scores, labels: NDArray[np.int64] | None = None
    ) -> dict[str, float]:
        """IoU from one confusion matrix over all pixels, and accuracy."""
        per_class = metrics.intersection_over_union(scores["confusion"].sum(axis=0))
        return {"iou": float(np.nanmean(per_class)), "accuracy": float(scores["accuracy"].mean())}

    def per_class(
        self, scores: metrics.Scores, labels: NDArray[np.int64], classes: Sequence[str]
    ) -> dict[str, dict[str, float]]:
        """The IoU of each class of pixels, the background last; without those never seen."""
        found = metrics.intersection_over_union(scores["confusion"].sum(axis=0))
        names = class_names(classes, self.settings.classes)
        return {n: {"iou": float(v)} for n, v in zip(names, found, strict=True) if not np.isnan(v)}

    def verdict_words(self) -> str:
        """What the model was asked to do, for the verdict."""
        return "finds the digit of each pixel in scenes that it has not seen"

    def baselines(self, data: TrainingData) -> dict[str, Baseline]:
        """Background everywhere: right for most pixels, and useless."""
        classes = self.settings.classes + 1

        def outputs(inputs: Images) -> Outputs:
            result = np.zeros((*inputs.shape[:3], classes), np.float32)
            result[..., -1] = 1
            return result

        return {"background": Baseline("background everywhere", outputs)}


def class_names(classes: Sequence[str], count: int) -> list[str]:
    """The names of a segmentation's classes: the data's own, numbers up to `count`, background."""
    return [*map(str, (*classes, *range(len(classes), count))), "background"]


def _labels(split: Split) -> NDArray[np.int64]:
    if split.labels is None:
        raise DataError("task.type: segment needs data with labels: the classes of the pixels")
    return split.labels
