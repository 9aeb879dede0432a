"""The section `task` of a config: what a model is trained for."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from convae.layers.spec import Shape, Size
from convae.section import Section

Fraction = Annotated[float, Field(gt=0, lt=1)]


class LossTerm(NamedTuple):
    """The weight of a term of the loss, which rises linearly from 0 in the first `warmup` steps."""

    weight: float
    warmup: int


class TaskSection(Section):
    """The settings of a task, and what the task requires of the rest of the config."""

    compresses: ClassVar[bool] = False  # whether the code should be smaller than the image
    losses: ClassVar[tuple[str, ...]] = ("binary_crossentropy", "mean_squared_error")
    sums_loss: ClassVar[bool] = False  # over an image's values, in place of their mean
    stochastic: ClassVar[bool] = False  # whether the code is drawn from a distribution

    type: str

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the height, width and channels of the model's output."""
        return input_shape

    @property
    def loss_options(self) -> dict[str, float]:
        """Return the task's own arguments of the loss."""
        return {}

    @property
    def loss_terms(self) -> dict[str, LossTerm]:
        """Return how the terms count that a stochastic layer adds to the loss, by their names."""
        return {}


class Reconstruct(TaskSection):
    """The target is the image itself."""

    compresses = True

    type: Literal["reconstruct"] = "reconstruct"


class GaussianNoise(Section):
    """Normal noise on gray values from 0 to 1, clipped to them."""

    type: Literal["gaussian"] = "gaussian"

    scale: Annotated[float, Field(gt=0, le=10)] = 0.5
    """The standard deviation."""


class SaltAndPepper(Section):
    """A share of the pixels is black or white, with equal probability."""

    type: Literal["salt_and_pepper"]

    share: Fraction = 0.3
    """The share of the pixels."""


class ErasedBlocks(Section):
    """Squares at random places are black."""

    type: Literal["erased_blocks"]

    count: Size = 3
    """The number of squares in each image."""

    size: Size = 8
    """The side of a square in pixels."""


class Denoise(TaskSection):
    """The input is a damaged image, the target the original. Each epoch draws new damage."""

    type: Literal["denoise"]

    noise: Annotated[GaussianNoise | SaltAndPepper | ErasedBlocks, Field(discriminator="type")] = (
        GaussianNoise()
    )
    """The damage of the input."""


class Upscale(TaskSection):
    """The target is larger than the input."""

    type: Literal["upscale"]

    factor: Annotated[int, Field(ge=2, le=16)] = 2
    """How many times as high and wide the target is."""

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return a shape `factor` times as high and wide."""
        height, width, channels = input_shape
        return height * self.factor, width * self.factor, channels


class Segment(TaskSection):
    """The input is a scene of overlapping digits, the target the class of each pixel."""

    losses = ("sparse_categorical_crossentropy",)

    type: Literal["segment"]

    classes: Annotated[int, Field(ge=2, le=254)] = 10
    """The number of classes of the digits; the background is one more."""

    digits: tuple[Size, Size] = (2, 6)
    """The fewest and the most digits in a scene."""

    scenes: Size = 2000
    """The number of scenes in the validation split, and in the test split."""

    foreground_weight: Annotated[float, Field(ge=1, le=100)] = 1.0
    """The weight in the loss of a digit's pixel; that of the background is 1."""

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
    """The class that training uses."""

    target_fpr: Fraction = 0.05
    """The false positive rate: the share of normal validation images above the threshold."""


class Generate(TaskSection):
    """A variational autoencoder, whose decoder makes new images of random codes.

    The loss is the negative evidence lower bound (ELBO) in nats per image: the cross-entropy of the
    image, and the KL divergence of its code's distribution from a standard normal.
    """

    compresses = True
    losses = ("binary_crossentropy",)
    sums_loss = True
    stochastic = True

    type: Literal["generate"]

    kl_weight: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """The weight of the KL divergence in the loss: beta of Higgins et al., 2017."""

    kl_warmup: Annotated[int, Field(ge=0)] = 0
    """The number of steps in which that weight rises linearly from 0."""

    binarize: bool = False
    """Whether each pixel is black or white, white with the probability of its gray value, drawn
    anew in each epoch."""

    @property
    def loss_terms(self) -> dict[str, LossTerm]:
        """Return the weight of the KL divergence."""
        return {"kl": LossTerm(self.kl_weight, self.kl_warmup)}


Task = Annotated[
    Reconstruct | Denoise | Upscale | Segment | Anomaly | Generate, Field(discriminator="type")
]
