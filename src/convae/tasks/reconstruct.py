"""Reconstruct: the target is the input."""

from math import prod

from convae.config.schema import Config
from convae.data.loading import TrainingData
from convae.tasks.baselines import PCA_PIXELS, Baseline, code_size, principal_components
from convae.tasks.task import Task


class Reconstruct(Task):
    """The target is the input; PCA with as many numbers as the code has is a baseline."""

    description = "Reconstructs held-out images"
    headline = "mse"
    chart_metric = "psnr"
    ranking_metric = class_metric = "excess"  # "mse" where that is the loss
    reconstruction_score: str | None = "mse"
    title = "Inputs, reconstructions and absolute errors"
    output_label, target_label = "reconstruction", "input"
    compared_baselines: tuple[str, ...] = ("pca",)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if config.training.loss == "mean_squared_error" and self.ranking_metric == "excess":
            self.ranking_metric = self.class_metric = "mse"

    def baselines(self, data: TrainingData) -> dict[str, Baseline]:
        """Return the mean image, and PCA where the code is smaller than the image."""
        found = super().baselines(data)
        size = code_size(self.config)
        if size < prod(self.image_shape) <= PCA_PIXELS:
            found["pca"] = principal_components(data.train.center(self.image_shape).images, size)
        return found
