"""The schema of a config: its sections, their keys, types, ranges and defaults.

YAML keys, field names and builder arguments are the same words. Nothing here needs TensorFlow, so
a wrong config is reported at once.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, ClassVar, Literal

import yaml
from pydantic import Field, model_validator

from convae.layers.spec import Model, Pair, Shape, Size
from convae.layers.summary import ModelSummary
from convae.section import Section

Place = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$")]  # of a file; no control characters
Fraction = Annotated[float, Field(gt=0, lt=1)]


class TaskSection(Section):
    """The settings of a task, and what the task requires of the rest of the config."""

    compresses: ClassVar[bool] = False  # whether the code should be smaller than the image
    losses: ClassVar[tuple[str, ...]] = ("binary_crossentropy", "mean_squared_error")

    type: str

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the height, width and channels of the model's output."""
        return input_shape

    @property
    def loss_options(self) -> dict[str, float]:
        """Return the task's own arguments of the loss."""
        return {}


class Reconstruct(TaskSection):
    """The target is the image itself."""

    compresses = True

    type: Literal["reconstruct"] = "reconstruct"


class GaussianNoise(Section):
    """Normal noise of standard deviation `scale` on gray values from 0 to 1, clipped to them."""

    type: Literal["gaussian"] = "gaussian"
    scale: Annotated[float, Field(gt=0, le=10)] = 0.5


class SaltAndPepper(Section):
    """The `share` of pixels is black or white, with equal probability."""

    type: Literal["salt_and_pepper"]
    share: Fraction = 0.3


class ErasedBlocks(Section):
    """`count` squares of `size` x `size` pixels at random places are black."""

    type: Literal["erased_blocks"]
    count: Size = 3
    size: Size = 8


class Denoise(TaskSection):
    """The input is a damaged image, the target the original. Each epoch draws new damage."""

    type: Literal["denoise"]
    noise: Annotated[GaussianNoise | SaltAndPepper | ErasedBlocks, Field(discriminator="type")] = (
        GaussianNoise()
    )


class Upscale(TaskSection):
    """The target is `factor` times as high and wide as the input."""

    type: Literal["upscale"]
    factor: Annotated[int, Field(ge=2, le=16)] = 2

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return a shape `factor` times as high and wide."""
        height, width, channels = input_shape
        return height * self.factor, width * self.factor, channels


class Segment(TaskSection):
    """The input is a scene of overlapping digits, the target the class of each pixel."""

    losses = ("sparse_categorical_crossentropy",)

    type: Literal["segment"]
    classes: Annotated[int, Field(ge=2, le=254)] = 10  # of the digits; the background is one more
    digits: tuple[Size, Size] = (2, 6)  # fewest and most in a scene
    scenes: Size = 2000  # in the validation set and in the test set
    foreground_weight: Annotated[float, Field(ge=1, le=100)] = 1.0  # of digits' pixels in the loss

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return a shape with a channel for each class and one for the background."""
        return *input_shape[:2], self.classes + 1

    @property
    def loss_options(self) -> dict[str, float]:
        """Return the weight of the pixels of digits."""
        return {"weight": self.foreground_weight}

    @model_validator(mode="after")
    def _fewest_to_most(self) -> Segment:
        if self.digits[0] > self.digits[1]:
            raise ValueError(f"digits must be [fewest, most]. Received: {list(self.digits)}")
        return self


class Anomaly(TaskSection):
    """Training uses one class; images with a large reconstruction error are anomalies."""

    compresses = True

    type: Literal["anomaly"]
    normal_class: Annotated[int, Field(ge=0)] = 0
    target_fpr: Fraction = 0.05  # false positive rate: normal images above the threshold


Task = Annotated[Reconstruct | Denoise | Upscale | Segment | Anomaly, Field(discriminator="type")]


class Data(Section):
    """The source of the images, and how they are split."""

    path: Place | None = None  # npz, npy, folder of IDX files or of images; null: `name`
    name: Literal["mnist", "fashion_mnist"] = "mnist"  # of data/datasets.py
    download: bool = True
    allow_sample: bool = True  # of MNIST digits, where MNIST cannot be downloaded
    resize: Pair | None = None  # height, width
    resize_mode: Literal["crop", "stretch"] = "crop"  # crop: keep the aspect ratio
    crop: Literal["random"] | None = None  # of model.input_shape, out of larger images
    cache: Place | None = None  # folder for decoded images; null: ~/.cache/convae
    subset: Size | None = None  # use only the first N training images
    validation_split: Fraction = 0.2
    test_split: Fraction = 0.1  # for data without a test split


class Constant(Section):
    """The learning rate does not change."""

    type: Literal["constant"] = "constant"


class OneCycle(Section):
    """A linear warm-up to `learning_rate`, then a cosine to zero at the last step."""

    type: Literal["one_cycle"]
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1  # share of all steps


class ReduceOnPlateau(Section):
    """The learning rate is multiplied by `factor` after `patience` epochs without improvement."""

    type: Literal["reduce_on_plateau"]
    factor: Fraction = 0.5
    patience: Size = 3
    min_learning_rate: Annotated[float, Field(ge=0)] = 0.0


class EarlyStopping(Section):
    """Training stops after `patience` epochs in which val_loss falls by less than `min_delta`."""

    patience: Size = 5
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class CheckpointInterval(Section):
    """How often a checkpoint is saved within an epoch: in steps, in seconds, or both."""

    steps: Size | None = None
    seconds: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _steps_or_seconds(self) -> CheckpointInterval:
        if self.steps is None and self.seconds is None:
            raise ValueError("needs steps or seconds, such as {seconds: 60}")
        return self


class Training(Section):
    """Optimizer, learning rate, loss and length of the training."""

    epochs: Size = 25
    batch_size: Size = 1000
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    schedule: Annotated[Constant | OneCycle | ReduceOnPlateau, Field(discriminator="type")] = (
        Constant()
    )
    early_stopping: EarlyStopping | None = None
    samples_per_epoch: Size | None = None  # null: each training image once
    loss: Literal[
        "binary_crossentropy", "mean_squared_error", "sparse_categorical_crossentropy"
    ] = "binary_crossentropy"
    checkpoint_interval: CheckpointInterval | None = None  # null: only at the end of each epoch


class Runtime(Section):
    """Devices, precision and parallelism; `auto` is decided at the start and recorded."""

    device: Literal["auto", "cpu", "gpu"] = "auto"
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "auto"
    jit_compile: bool | Literal["auto"] = "auto"
    threads: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto"
    micro_batch_size: Size | Literal["auto"] = "auto"
    strategy: Literal["auto", "none", "mirrored", "multi_worker"] = "auto"  # tf.distribute
    rendezvous_timeout: Annotated[float, Field(gt=0)] = 300.0  # seconds to wait for all workers


class Output(Section):
    """Where runs are saved, and which loggers are used."""

    folder: Place = "outputs"
    tensorboard: bool = False  # event files in the run's folder tensorboard/
    mlflow: bool | Annotated[str, Field(min_length=1)] = False  # a folder, sqlite:///FILE, or true

    @model_validator(mode="after")
    def _mlflow_is_local(self) -> Output:
        if "://" in str(self.mlflow) and not str(self.mlflow).startswith("sqlite:///"):
            raise ValueError(
                f"mlflow must be true, a folder or sqlite:///FILE. Received: {self.mlflow}"
            )
        return self


class Config(Section):
    """A complete experiment."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    data: Data = Data()
    task: Task = Reconstruct()
    model: Model
    training: Training = Training()
    runtime: Runtime = Runtime()
    output: Output = Output()

    @property
    def output_shape(self) -> Shape:
        """Height, width and channels that the task requires of the model's output."""
        return self.task.output_shape(self.model.input_shape)

    @cached_property
    def model_summary(self) -> ModelSummary:
        """Shapes, costs and warnings of the model's layers, computed once."""
        return ModelSummary(self.model, self.output_shape, compresses=self.task.compresses)

    @model_validator(mode="after")
    def _loss_fits_task_and_activation(self) -> Config:
        loss, last = self.training.loss, self.model.decoder[-1].activation
        needed = {"binary_crossentropy": "sigmoid", "sparse_categorical_crossentropy": "softmax"}
        wanted = needed.get(loss)
        if last != (wanted or last) or (not wanted and last == "softmax"):
            raise ValueError(
                f"training.loss: {loss} needs a last layer with activation: "
                f"{wanted or 'linear, sigmoid or another one for gray values'}. Received: {last}"
            )
        if loss not in self.task.losses:
            raise ValueError(
                f"task.type: {self.task.type} needs training.loss: {self.task.losses[0]}. "
                f"Received: {loss}"
            )
        return self

    def to_yaml(self) -> str:
        """Return the config as YAML, with every default written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=100)
