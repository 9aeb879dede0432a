"""Trained on one class; an image that comes out badly is not of that class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from convae import metrics
from convae.config import Anomaly as Settings
from convae.data import Part
from convae.errors import UserError
from convae.tasks.task import Examples, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convae.config import Config
    from convae.data import TrainingData


class Anomaly(Task):
    """The anomaly score of an image is the mean squared error of its reconstruction."""

    units: Mapping[str, str] = {
        "auroc": "chance that an anomaly scores above a normal image: 1 is perfect, 0.5 a coin",
        "normal_mse": "mean score of normal images",
        "anomaly_mse": "mean score of the others",
    }
    headline = "auroc"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.settings = cast("Settings", config.task)

    def select(self, part: Part) -> Part:
        """The images of the normal class. Raises UserError if there are none, or no labels."""
        if part.labels is None:
            raise UserError("task.type: anomaly needs data with labels, to train on one class")
        normal = part.labels == self.settings.normal
        if not normal.any():
            raise UserError(
                "task.normal: must be a class of the data, which are 0 to "
                f"{part.labels.max()}. Received: {self.settings.normal}"
            )
        return Part(part.images[normal], part.labels[normal])

    def scores(self, targets: Any, outputs: Any) -> metrics.Scores:
        """`mse` of each image, which is its anomaly score."""
        return {"mse": metrics.image_scores(targets, outputs, ssim=False)["mse"]}

    def summarize(
        self, scores: metrics.Scores, labels: NDArray[np.int64] | None = None
    ) -> dict[str, float]:
        """AUROC over all images, and the mean scores. Needs labels of both kinds."""
        anomalous = self._labels(labels) != self.settings.normal
        if anomalous.all() or not anomalous.any():
            raise UserError("task.type: anomaly is measured on normal and other test images alike")
        return {
            "auroc": metrics.auroc(scores["mse"], anomalous),
            "normal_mse": float(scores["mse"][~anomalous].mean()),
            "anomaly_mse": float(scores["mse"][anomalous].mean()),
        }

    def per_class(
        self, scores: metrics.Scores, labels: NDArray[np.int64], classes: Sequence[str]
    ) -> dict[str, dict[str, float]]:
        """For each other class, how well it is told from the normal one."""
        normal = labels == self.settings.normal
        found = {}
        for index, name in enumerate(classes):
            of_class = labels == index
            if index == self.settings.normal or not of_class.any():
                continue
            both = normal | of_class
            found[name] = {
                "auroc": metrics.auroc(scores["mse"][both], of_class[both]),
                "mse": float(scores["mse"][of_class].mean()),
            }
        return found

    def further(
        self,
        scores: metrics.Scores,
        labels: NDArray[np.int64] | None,
        data: TrainingData,
        score: Callable[[Examples], metrics.Scores],
    ) -> dict[str, Any]:
        """The threshold: the score that `false_alarms` of normal validation images exceed.

        And what it does on the test part, where it was not chosen.
        """
        wanted = self.settings.false_alarms
        threshold = float(np.quantile(score(self.held_out(data.validation))["mse"], 1 - wanted))
        anomalous = self._labels(labels) != self.settings.normal
        alarm = scores["mse"] > threshold
        return {
            "threshold": {
                "score": threshold,
                "false_alarms_wanted": wanted,
                "false_alarms": float(alarm[~anomalous].mean()),
                "detected": float(alarm[anomalous].mean()),
            }
        }

    def verdict_words(self) -> str:
        """What the model was asked to do, for the verdict."""
        return f"tells class {self.settings.normal} from the others by how badly an image comes out"

    @staticmethod
    def _labels(labels: NDArray[np.int64] | None) -> NDArray[np.int64]:
        if labels is None:
            raise UserError("task.type: anomaly needs test data with labels")
        return labels
