"""Anomaly: trained on one class; images of other classes are reconstructed badly."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convae.arrays import Floats, Images, Labels
from convae.config import task_schema
from convae.data.loading import Split
from convae.errors import DataError
from convae.tasks import metrics
from convae.tasks.reconstruct import Reconstruct
from convae.tasks.task import Evaluation

MIN_MEAN_GRAY = 1 / 255  # the lowest mean gray value that an error is divided by


class Anomaly(Reconstruct):
    """The anomaly score of an image is its reconstruction error over its mean gray value.

    The error is averaged over 3x3 pixels before it is squared: errors of single pixels at edges
    count little, a missing stroke counts much. Thick digits have longer edges, so the mean square
    is divided by the mean gray value.
    """

    units: Mapping[str, str] = {
        "auroc": "chance that an anomaly scores above a normal image: 1 is perfect, 0.5 random",
        "auroc_mse": "the same with the mean squared error as the score",
        "normal_score": "mean score of normal images",
        "anomaly_score": "mean score of anomalies",
    }
    figures = ("reconstructions", "anomaly_scores", "hardest", "error_by_class", "code")
    description = "Detects images that are not of class {normal_class}"
    headline = chart_metric = class_metric = "auroc"
    ranking_metric = reconstruction_score = "score"
    compared_baselines = ()
    settings: task_schema.Anomaly

    def select(self, split: Split) -> Split:
        """Return the images of the normal class.

        Raises:
            DataError: If there are none, or no labels.
        """
        if split.labels is None:
            raise DataError("task.type: anomaly needs data with labels, to train on one class")
        normal = split.labels == self.settings.normal_class
        if not normal.any():
            raise DataError(
                "task.normal_class: must be a class of the data, which are 0 to "
                f"{split.labels.max()}. Received: {self.settings.normal_class}"
            )
        return Split(split.images[normal], split.labels[normal])

    def positives(self, labels: Labels | None) -> NDArray[np.bool_]:
        """Return which images are not of the normal class, (N,)."""
        if labels is None:
            raise DataError("task.type: anomaly needs test data with labels")
        return np.asarray(labels != self.settings.normal_class)

    def scores(self, targets: Images, outputs: Floats) -> metrics.Scores:
        """Return the anomaly score `score` of each image, and its `mse`."""
        images, outputs = targets / np.float32(255), np.clip(outputs, 0, 1)
        height, width = images.shape[1:3]
        padded = np.pad(images - outputs, ((0, 0), (1, 1), (1, 1), (0, 0)))
        shifts = (padded[:, r : r + height, c : c + width] for r in range(3) for c in range(3))
        smooth = np.square(sum(shifts) / np.float32(9)).mean(axis=(1, 2, 3), dtype=np.float64)
        ink = images.mean(axis=(1, 2, 3), dtype=np.float64)
        return {
            "score": smooth / np.maximum(ink, MIN_MEAN_GRAY),
            "mse": self.error(targets, outputs),
        }

    def summarize(self, scores: metrics.Scores, labels: Labels | None = None) -> dict[str, float]:
        """Return the AUROC over all images, and the mean scores of both kinds."""
        anomalous = self.positives(labels)
        if anomalous.all() or not anomalous.any():
            raise DataError("task.type: anomaly is measured on normal and other test images alike")
        return {
            "auroc": metrics.auroc(scores["score"], anomalous),
            "auroc_mse": metrics.auroc(scores["mse"], anomalous),
            "normal_score": float(scores["score"][~anomalous].mean()),
            "anomaly_score": float(scores["score"][anomalous].mean()),
        }

    def per_class(
        self, scores: metrics.Scores, labels: Labels | None, classes: Sequence[str]
    ) -> dict[str, dict[str, float]]:
        """Return the AUROC of each other class against the normal class."""
        normal = ~self.positives(labels)
        found = {}
        for index, name in enumerate(classes):
            of_class = np.asarray(labels == index)
            if index == self.settings.normal_class or not of_class.any():
                continue
            both = normal | of_class
            found[name] = {
                "auroc": metrics.auroc(scores["score"][both], of_class[both]),
                "anomaly_score": float(scores["score"][of_class].mean()),
            }
        return found

    def extra_metrics(self, evaluation: Evaluation) -> dict[str, Any]:
        """Return the threshold that `target_fpr` of normal validation images exceed.

        With it come its false positive rate and its recall on the test split.
        """
        target = self.settings.target_fpr
        validation = evaluation.score(self.evaluation_examples(evaluation.data.validation))
        threshold = float(np.quantile(validation["score"], 1 - target))
        anomalous = self.positives(evaluation.labels)
        above = evaluation.scores["score"] > threshold
        return {
            "threshold": {
                "score": threshold,
                "target_fpr": target,
                "fpr": float(above[~anomalous].mean()),
                "recall": float(above[anomalous].mean()),
            }
        }

    def format_extra_metrics(self, result: Mapping[str, Any]) -> list[str]:
        """Return a line about the threshold."""
        threshold = result["threshold"]
        return [
            f"threshold: a score above {threshold['score']:.5f} is an anomaly; recall "
            f"{threshold['recall']:.1%}, false positive rate {threshold['fpr']:.1%} "
            f"({threshold['target_fpr']:.0%} on validation)"
        ]

    def compare_to_threshold(
        self, target: Images, output: Floats, threshold: float | None
    ) -> tuple[list[str], bool | None]:
        """Return lines about the anomaly score and the error, and whether it is an anomaly."""
        lines, _ = super().compare_to_threshold(target, output, threshold)
        score = float(self.scores(target, output)["score"][0])
        first = f"anomaly score {score:.4f}"
        if threshold is None:
            return [first, *lines, "convae eval finds the threshold of this run"], None
        normal, above = self.settings.normal_class, score > threshold
        place, kind = ("above", "unlike") if above else ("below", "like")
        first += f", {place} the threshold {threshold:.4f}: {kind} class {normal}"
        return [first, *lines], above
