"""Trained on one class; an image that comes out badly is not of that class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convae.config.schema import Anomaly as Settings
from convae.data.loading import Split
from convae.errors import DataError
from convae.tasks import metrics
from convae.tasks.task import Examples, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convae.data.loading import TrainingData


INK = 1 / 255  # mean gray that an image is taken to have at least


class Anomaly(Task):
    """The anomaly score of an image is how badly it comes out, for the ink that it has.

    That is the mean square of the error, averaged over 3x3 pixels before it is squared, over the
    image's mean gray value: where single pixels of an edge are off says little, where a stroke is
    missing says much; and thick digits have more edge to be off at.
    """

    units: Mapping[str, str] = {
        "auroc": "chance that an anomaly scores above a normal image: 1 is perfect, 0.5 a coin",
        "auroc_mse": "the same with the plain mean squared error as the score",
        "normal_score": "mean score of normal images",
        "anomaly_score": "mean score of the others",
    }
    headline = "auroc"
    settings: Settings

    def select(self, split: Split) -> Split:
        """The images of the normal class. Raises DataError if there are none, or no labels."""
        if split.labels is None:
            raise DataError("task.type: anomaly needs data with labels, to train on one class")
        normal = split.labels == self.settings.normal_class
        if not normal.any():
            raise DataError(
                "task.normal_class: must be a class of the data, which are 0 to "
                f"{split.labels.max()}. Received: {self.settings.normal_class}"
            )
        return Split(split.images[normal], split.labels[normal])

    def scores(self, targets: Any, outputs: Any) -> metrics.Scores:
        """`score` of each image, and its plain `mse`."""
        images = targets / np.float32(255)
        error = images - np.clip(outputs, 0, 1)
        height, width = error.shape[1:3]
        edged = np.pad(error, ((0, 0), (1, 1), (1, 1), (0, 0)))
        shifts = ((row, column) for row in range(3) for column in range(3))
        smooth = sum(edged[:, r : r + height, c : c + width] for r, c in shifts) / np.float32(9)
        ink = images.mean(axis=(1, 2, 3), dtype=np.float64)
        return {
            "score": _mean_square(smooth) / np.maximum(ink, INK),
            "mse": _mean_square(error),
        }

    def summarize(
        self, scores: metrics.Scores, labels: NDArray[np.int64] | None = None
    ) -> dict[str, float]:
        """AUROC over all images, and the mean scores. Needs labels of both kinds."""
        anomalous = self._labels(labels) != self.settings.normal_class
        if anomalous.all() or not anomalous.any():
            raise DataError("task.type: anomaly is measured on normal and other test images alike")
        return {
            "auroc": metrics.auroc(scores["score"], anomalous),
            "auroc_mse": metrics.auroc(scores["mse"], anomalous),
            "normal_score": float(scores["score"][~anomalous].mean()),
            "anomaly_score": float(scores["score"][anomalous].mean()),
        }

    def per_class(
        self, scores: metrics.Scores, labels: NDArray[np.int64], classes: Sequence[str]
    ) -> dict[str, dict[str, float]]:
        """For each other class, how well it is told from the normal one."""
        normal = labels == self.settings.normal_class
        found = {}
        for index, name in enumerate(classes):
            of_class = labels == index
            if index == self.settings.normal_class or not of_class.any():
                continue
            both = normal | of_class
            found[name] = {
                "auroc": metrics.auroc(scores["score"][both], of_class[both]),
                "anomaly_score": float(scores["score"][of_class].mean()),
            }
        return found

    def further(
        self,
        scores: metrics.Scores,
        labels: NDArray[np.int64] | None,
        data: TrainingData,
        score: Callable[[Examples], metrics.Scores],
    ) -> dict[str, Any]:
        """The threshold: the score that `target_fpr` of normal validation images exceed.

        And what it does on the test split, where it was not chosen.
        """
        wanted = self.settings.target_fpr
        threshold = float(np.quantile(score(self.held_out(data.validation))["score"], 1 - wanted))
        anomalous = self._labels(labels) != self.settings.normal_class
        alarm = scores["score"] > threshold
        return {
            "threshold": {
                "score": threshold,
                "target_fpr": wanted,
                "fpr": float(alarm[~anomalous].mean()),
                "recall": float(alarm[anomalous].mean()),
            }
        }

    def verdict_words(self) -> str:
        """What the model was asked to do, for the verdict."""
        normal = self.settings.normal_class
        return f"tells class {normal} from the others by how badly an image comes out"

    @staticmethod
    def _labels(labels: NDArray[np.int64] | None) -> NDArray[np.int64]:
        if labels is None:
            raise DataError("task.type: anomaly needs test data with labels")
        return labels


def _mean_square(values: Any) -> metrics.Floats:
    return np.asarray(np.square(values).mean(axis=(1, 2, 3), dtype=np.float64))
