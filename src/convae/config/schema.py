"""The schema of a config: its sections, their keys, types, ranges and defaults.

YAML keys, field names and builder arguments are the same words. Nothing here needs TensorFlow, so
a wrong config is reported at once.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from convae.config import scalars
from convae.config.optimizer_schema import Adam, AnyOptimizer
from convae.config.task_schema import Fraction, Reconstruct, Task
from convae.layers.spec import Model, Pair, Shape, Size
from convae.layers.summary import ModelSummary
from convae.section import Section

# The name of a file, without control characters and line breaks.
Place = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]+$")]


def _to_rgb(value: object) -> tuple[int, int, int]:
    """Return red, green and blue of a color that is given by name, gray level, or these three."""
    level = {"white": 255, "black": 0}.get(value) if isinstance(value, str) else value
    levels = level if isinstance(level, tuple) else (level,) * 3
    if len(levels) != 3 or not all(type(n) is int and 0 <= n <= 255 for n in levels):
        received = list(value) if isinstance(value, tuple) else value
        raise ValueError(
            "must be white, black, a gray level from 0 to 255, or [red, green, blue]. "
            f"Received: {received!r:.80}"
        )
    return levels


Level = Annotated[int, Field(ge=0, le=255)]
Color = Annotated[
    tuple[Level, Level, Level],
    BeforeValidator(_to_rgb, Literal["white", "black"] | Level | tuple[Level, Level, Level]),
]


class Data(Section):
    """The source of the images, and how they are split."""

    path: Place | None = None
    """An npz or npy file, or a folder of IDX files or of images. null: the data set `name`."""

    name: Literal["mnist", "fashion_mnist"] = "mnist"
    """The data set to use where `path` is null."""

    download: bool = True
    """Whether the data set may be downloaded."""

    allow_sample: bool = True
    """Whether to use the bundled sample of MNIST digits where MNIST cannot be downloaded."""

    resize: Pair | None = None
    """The height and width to which images of a folder are resized. null: not resized."""

    resize_mode: Literal["crop", "stretch"] = "crop"
    """How images are resized: crop keeps the aspect ratio and cuts off the rest."""

    crop: Literal["random"] | None = None
    """random: in each epoch another crop of `model.input_shape` out of larger images."""

    background: Color = (255, 255, 255)
    """The color behind transparent pixels: white, black, a gray level, or [red, green, blue]."""

    cache: Place | None = None
    """The folder for decoded images. null: `~/.cache/convae`."""

    subset: Size | None = None
    """Use only the first N training images. null: all."""

    validation_split: Fraction = 0.2
    """The share of the training images, the last ones, that is used for validation."""

    test_split: Fraction = 0.1
    """The share of the images that is used for the test, where the data has no test split."""


class Constant(Section):
    """The learning rate does not change."""

    type: Literal["constant"] = "constant"


class OneCycle(Section):
    """A linear warm-up to `learning_rate`, then a cosine to zero at the last step."""

    type: Literal["one_cycle"]

    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """The share of all steps in which the learning rate rises."""


class ReduceOnPlateau(Section):
    """The learning rate falls when the validation loss no longer does."""

    type: Literal["reduce_on_plateau"]

    factor: Fraction = 0.5
    """What the learning rate is multiplied by."""

    patience: Size = 3
    """The number of epochs without improvement before that."""

    min_learning_rate: Annotated[float, Field(ge=0)] = 0.0
    """The learning rate does not fall below this."""


class EarlyStopping(Section):
    """Training stops when the validation loss no longer falls."""

    patience: Size = 5
    """The number of epochs without improvement after which training stops."""

    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """The smallest fall of the validation loss that counts as an improvement."""


class CheckpointInterval(Section):
    """How often a checkpoint is saved within an epoch: in steps, in seconds, or both."""

    steps: Size | None = None
    """The number of steps between two checkpoints."""

    seconds: Annotated[float, Field(gt=0)] | None = None
    """The seconds between two checkpoints."""

    @model_validator(mode="after")
    def _steps_or_seconds(self) -> CheckpointInterval:
        if self.steps is None and self.seconds is None:
            raise ValueError("needs steps or seconds, such as {seconds: 60}")
        return self


class Training(Section):
    """Optimizer, learning rate, loss and length of the training."""

    epochs: Size = 25
    """The number of epochs."""

    batch_size: Size = 1000
    """The number of images in a training step."""

    optimizer: AnyOptimizer = Adam()
    """The optimizer and its options, or its type alone, such as `sgd`."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """The learning rate; with the schedule one_cycle, its peak."""

    schedule: Annotated[Constant | OneCycle | ReduceOnPlateau, Field(discriminator="type")] = (
        Constant()
    )
    """How the learning rate changes during training."""

    early_stopping: EarlyStopping | None = None
    """When training stops before the last epoch. null: never."""

    samples_per_epoch: Size | None = None
    """The number of samples in an epoch. null: each training image once."""

    loss: Literal[
        "binary_crossentropy", "mean_squared_error", "sparse_categorical_crossentropy"
    ] = "binary_crossentropy"
    """The loss: binary_crossentropy needs a last layer with activation sigmoid."""

    checkpoint_interval: CheckpointInterval | None = None
    """When checkpoints are saved within an epoch. null: only at the end of each epoch."""


class Runtime(Section):
    """Devices, precision and parallelism; `auto` is decided at the start and recorded."""

    device: Literal["auto", "cpu", "gpu"] = "auto"
    """The device. auto: a GPU if there is one."""

    precision: Literal["auto", "float32", "mixed_bfloat16"] = "auto"
    """The precision of the layers. auto: mixed_bfloat16 where the device is faster with it."""

    jit_compile: bool | Literal["auto"] = "auto"
    """Whether XLA compiles the training step."""

    threads: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto"
    """The number of CPU threads that share the images of a step."""

    micro_batch_size: Size | Literal["auto"] = "auto"
    """The number of images computed at once; the gradients of a batch are summed."""

    steps_per_execution: Size | Literal["auto"] = "auto"
    """The number of steps in one call of TensorFlow; a stop signal waits for the end of a call."""

    strategy: Literal["auto", "none", "mirrored", "multi_worker"] = "auto"
    """The tf.distribute strategy. auto: by the number of GPUs and workers."""

    rendezvous_timeout: Annotated[float, Field(gt=0)] = 300.0
    """The seconds to wait until all workers have started."""


class Output(Section):
    """Where runs are saved, and which loggers are used."""

    folder: Place = "outputs"
    """The folder for the folders of runs."""

    tensorboard: bool = False
    """Whether to write event files into the run's folder `tensorboard/`."""

    mlflow: bool | Annotated[str, Field(min_length=1)] = False
    """Where to log to MLflow: a folder, sqlite:///FILE, or true for MLflow's default."""

    @model_validator(mode="after")
    def _mlflow_is_local(self) -> Output:
        where = str(self.mlflow)
        remote = "://" in where and not where.startswith("sqlite:///")
        if remote or where.lower() in scalars.OLD_BOOLEANS:
            raise ValueError(
                f"mlflow must be true, a folder or sqlite:///FILE. Received: {self.mlflow}"
            )
        return self


class Config(Section):
    """A complete experiment."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    """The name of the runs; by default that of the YAML file."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """All random numbers depend on it."""

    data: Data = Data()

    task: Task = Reconstruct()
    """What the model is trained for."""

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

    @model_validator(mode="after")
    def _gaussian_layer_fits_task(self) -> Config:
        if self.task.stochastic and not self.model.encoder[-1].stochastic:
            raise ValueError(
                f"task.type: {self.task.type} needs a last layer of the encoder with type: "
                f"gaussian. Received: {self.model.encoder[-1].type}"
            )
        if self.model.encoder[-1].stochastic and not self.task.stochastic:
            raise ValueError(
                "model.encoder: a gaussian layer needs task.type: generate. Received: "
                f"{self.task.type}"
            )
        return self

    def to_yaml(self) -> str:
        """Return the config as YAML, with every default written out."""
        return scalars.dump(self.model_dump(mode="json"), width=100)
