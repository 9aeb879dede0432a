"""The schema of a config, and the check of what yamltree.py read.

YAML keys are field names are builder arguments: there is no second vocabulary. Everything here
works without TensorFlow, so a wrong config is answered at once.
"""

from __future__ import annotations

from typing import Annotated, Literal

import yaml
from pydantic import Field, model_validator

from convae.layers.spec import Model, Pair, Size
from convae.section import Section

Place = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$")]  # of a file; no control characters
Fraction = Annotated[float, Field(gt=0, lt=1)]


class TaskSection(Section):
    """What the sections of all tasks share."""

    @property
    def loss_options(self) -> dict[str, float]:
        """Return the task's own arguments of the loss."""
        return {}


class Reconstruct(TaskSection):
    """The image itself should come out."""

    type: Literal["reconstruct"] = "reconstruct"


class GaussianNoise(Section):
    """Normal noise of standard deviation `scale` on gray values from 0 to 1, clipped to them."""

    type: Literal["gaussian"] = "gaussian"
    scale: Annotated[float, Field(gt=0, le=10)] = 0.5


class SaltAndPepper(Section):
    """The `share` of pixels is black or white, as a coin falls."""

    type: Literal["salt_and_pepper"]
    share: Fraction = 0.3


class ErasedBlocks(Section):
    """`count` squares of `size` x `size` pixels, anywhere, are black."""

    type: Literal["erased_blocks"]
    count: Size = 3
    size: Size = 8


class Denoise(TaskSection):
    """A damaged image goes in, the image should come out. Fresh damage each epoch."""

    type: Literal["denoise"]
    noise: Annotated[GaussianNoise | SaltAndPepper | ErasedBlocks, Field(discriminator="type")] = (
        GaussianNoise()
    )


class Upscale(TaskSection):
    """An image of `model.input_shape` goes in, one `factor` times as high and wide comes out."""

    type: Literal["upscale"]
    factor: Annotated[int, Field(ge=2, le=16)] = 2


class Segment(TaskSection):
    """A scene of overlapping digits goes in; the class of each of its pixels comes out."""

    type: Literal["segment"]
    classes: Annotated[int, Field(ge=2, le=254)] = 10  # of the digits; the background is one more
    digits: tuple[Size, Size] = (2, 6)  # in a scene: the fewest and the most
    scenes: Size = 2000  # held out, for validation and for the test
    foreground_weight: Annotated[float, Field(ge=1, le=100)] = 1.0  # of digits' pixels in the loss

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
    """Trained on one class alone; images that it reconstructs badly are not of that class."""

    type: Literal["anomaly"]
    normal_class: Annotated[int, Field(ge=0)] = 0  # the class
    target_fpr: Fraction = 0.05  # share of normal images that the threshold takes for anomalies


Task = Annotated[Reconstruct | Denoise | Upscale | Segment | Anomaly, Field(discriminator="type")]


class Data(Section):
    """Where images come from and how they are split."""

    path: Place | None = None  # npz, npy, folder of IDX files, folder of images; null: `name`
    name: Literal["mnist", "fashion_mnist"] = "mnist"
    download: bool = True
    allow_sample: bool = True  # of MNIST; nothing stands in for Fashion-MNIST
    resize: Pair | None = None  # height, width
    resize_mode: Literal["crop", "stretch"] = "crop"  # crop: keep the aspect, cut off the rest
    crop: Literal["random"] | None = None  # of model.input_shape, out of larger images
    cache: Place | None = None  # where folders of images are packed; null: ~/.cache/convae
    subset: Size | None = None  # the first so many training images
    validation_split: Fraction = 0.2
    test_split: Fraction = 0.1  # only for data that come without a test split


class Constant(Section):
    """The learning rate stays what it is."""

    type: Literal["constant"] = "constant"


class OneCycle(Section):
    """A linear warm-up to `learning_rate`, then a cosine to zero at the last step."""

    type: Literal["one_cycle"]
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1  # share of all steps


class ReduceOnPlateau(Section):
    """The learning rate falls by `factor` after `patience` epochs without a better val_loss."""

    type: Literal["reduce_on_plateau"]
    factor: Fraction = 0.5
    patience: Size = 3
    min_learning_rate: Annotated[float, Field(ge=0)] = 0.0


class EarlyStopping(Section):
    """Training ends after `patience` epochs without a val_loss better by `min_delta`."""

    patience: Size = 5
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class Every(Section):
    """How often a long epoch is saved in its middle: each so many steps, or seconds, or both."""

    steps: Size | None = None
    seconds: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Every:
        if self.steps is None and self.seconds is None:
            raise ValueError("needs steps or seconds, such as {seconds: 60}")
        return self


class Training(Section):
    """How the weights are found."""

    epochs: Size = 25
    batch_size: Size = 1000
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    schedule: Annotated[Constant | OneCycle | ReduceOnPlateau, Field(discriminator="type")] = (
        Constant()
    )
    early_stopping: EarlyStopping | None = None
    samples_per_epoch: Size | None = None  # null: every training image once
    loss: Literal[
        "binary_crossentropy", "mean_squared_error", "sparse_categorical_crossentropy"
    ] = "binary_crossentropy"
    checkpoint_interval: Every | None = None  # null: at the end of each epoch, as always


class Runtime(Section):
    """What the training runs on; `auto` is decided once, printed and recorded."""

    device: Literal["auto", "cpu", "gpu"] = "auto"
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "auto"
    jit_compile: bool | Literal["auto"] = "auto"
    threads: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto"
    micro_batch_size: Size | Literal["auto"] = "auto"
    strategy: Literal["auto", "none", "mirrored", "multi_worker"] = "auto"  # of several devices
    rendezvous_timeout: Annotated[float, Field(gt=0)] = 300.0  # seconds until all workers have met


class Output(Section):
    """Where runs are kept, and who else is told of them."""

    folder: Place = "outputs"
    tensorboard: bool = False  # event files in the run's folder tensorboard/
    mlflow: bool | Annotated[str, Field(min_length=1)] = False  # a folder, sqlite:///FILE, or true

    @model_validator(mode="after")
    def _mlflow_stays_here(self) -> Output:
        if "://" in str(self.mlflow) and not str(self.mlflow).startswith("sqlite:///"):
            raise ValueError(
                f"mlflow must be true, a folder or sqlite:///FILE. Received: {self.mlflow}"
            )
        return self


class Config(Section):
    """One experiment, whole."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    data: Data = Data()
    task: Task = Reconstruct()
    model: Model
    training: Training = Training()
    runtime: Runtime = Runtime()
    output: Output = Output()

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of what the task asks the model for."""
        height, width, channels = self.model.input_shape
        if self.task.type == "upscale":
            return height * self.task.factor, width * self.task.factor, channels
        if self.task.type == "segment":
            return height, width, self.task.classes + 1
        return height, width, channels

    @property
    def compresses(self) -> bool:
        """Whether the task asks for a code that is smaller than the image."""
        return self.task.type in {"reconstruct", "anomaly"}

    @model_validator(mode="after")
    def _loss_fits_task_and_activation(self) -> Config:
        loss, last = self.training.loss, self.model.decoder[-1].activation
        wanted = {
            "binary_crossentropy": "sigmoid",
            "sparse_categorical_crossentropy": "softmax",
        }.get(loss)
        if last != (wanted or last) or (not wanted and last == "softmax"):
            raise ValueError(
                f"training.loss: {loss} needs a last layer with activation: "
                f"{wanted or 'linear, sigmoid or another one for gray values'}. Received: {last}"
            )
        segments = self.task.type == "segment"
        if segments != (loss == "sparse_categorical_crossentropy"):
            raise ValueError(
                f"task.type: {self.task.type} needs training.loss: "
                + ("sparse_categorical_crossentropy" if segments else "binary_crossentropy")
                + f". Received: {loss}"
            )
        return self

    def to_yaml(self) -> str:
        """The resolved config as YAML: every default written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=100)
