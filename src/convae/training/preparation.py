"""What a training needs of the data: read and measured without TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from convae.config.schema import Config
from convae.data.loading import TrainingData, load_training
from convae.errors import ConfigError
from convae.tasks import Examples, Task, build_task


@dataclass(frozen=True)
class Prepared:
    """The task of a config, and the images that it trains on and validates with."""

    task: Task
    data: TrainingData

    @cached_property
    def validation(self) -> Examples:
        """The examples of the validation split."""
        return self.task.evaluation_examples(self.data.validation)

    @cached_property
    def reference_losses(self) -> tuple[float, float]:
        """The lowest possible validation loss, and that of the mean image; reads all data."""
        return self.task.reference_losses(self.data.train, self.validation)


def prepare(config: Config) -> Prepared:
    """Return the task of `config` and its data.

    `training.samples_per_epoch` overrides the number of images in an epoch.

    Raises:
        ConfigError: There are fewer training images than a batch takes.
    """
    task = build_task(config)
    found = load_training(config.data, task.image_shape)
    data = task.filter(found)
    samples_per_epoch = config.training.samples_per_epoch or round(
        found.samples_per_epoch * len(data.train) / len(found.train)
    )
    largest = min(samples_per_epoch, len(data.train))
    if config.training.batch_size > largest:
        raise ConfigError(
            f"training.batch_size: cannot be larger than the {largest:,} training images. "
            f"Received: {config.training.batch_size:,}"
        )
    return Prepared(task, replace(data, samples_per_epoch=samples_per_epoch))
