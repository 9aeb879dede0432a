"""Reconstruct: the target is the input."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from convae.data.loading import middle
from convae.tasks.baselines import PCA_PIXELS, Baseline, code_size, principal_components
from convae.tasks.task import Task

if TYPE_CHECKING:
    from convae.data.loading import TrainingData


class Reconstruct(Task):
    """The target is the input; PCA with as many numbers as the code has is a baseline."""

    headline = "mse"
    chart_metric = "psnr"
    reconstruction_score: str | None = "mse"
    title = "Inputs, reconstructions and absolute errors"
    output_label, target_label = "reconstruction", "input"
    compared_baselines: tuple[str, ...] = ("pca",)

    @property
    def description(self) -> str:
        """What the model does."""
        return "Reconstructs held-out images"

    @property
    def ranking_metric(self) -> str:
        """The excess of the binary cross-entropy, or the MSE where that is the loss."""
        return "excess" if self.config.training.loss == "binary_crossentropy" else "mse"

    @property
    def class_metric(self) -> str:
        """As `ranking_metric`."""
        return self.ranking_metric

    def baselines(self, data: TrainingData) -> dict[str, Baseline]:
        """Return the mean image, and PCA where the code is smaller than the image."""
        found = super().baselines(data)
        size = code_size(self.config)
        if size < prod(self.image_shape) <= PCA_PIXELS:
            train = middle(data.train, self.image_shape)
            found["pca"] = principal_components(train.images, size)
        return found
