"""The layers of a config and the model that they make: types, ranges, defaults; no TensorFlow."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from convae.section import Section


def _both(value: object) -> object:
    """`3` means the same along both axes: (3, 3)."""
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


Shape = tuple[int, int, int]  # height, width, channels
Size = Annotated[int, Field(ge=1)]


Side = Annotated[int, Field(ge=1, le=16_384)]  # pixels


Pair = Annotated[tuple[Side, Side], BeforeValidator(_both)]


Steps = Annotated[int, Field(ge=1, le=255)]  # more is a slip, and could keep the ledger busy


Window = Annotated[tuple[Steps, Steps], BeforeValidator(_both)]


Extra = Annotated[
    tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]], BeforeValidator(_both)
]


Activation = Literal[
    "linear", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "softplus", "tanh", "sigmoid",
    "softmax",
]  # fmt: skip


Initializer = Literal[
    "he_normal", "he_uniform", "glorot_normal", "glorot_uniform", "lecun_normal", "lecun_uniform"
]


class Kernel(Section):
    """What all layers share; the options are Keras' own."""

    type: str
    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")] | None = None
    filters: Annotated[int, Field(ge=1, le=2**20)]
    kernel_size: Window
    strides: Window = (1, 1)
    padding: Literal["valid", "same"] = "valid"
    dilation_rate: Window = (1, 1)
    activation: Activation = "linear"
    use_bias: bool = True
    kernel_initializer: Initializer = "glorot_uniform"
    skip: str | None = None  # in a decoder: an encoder layer whose output joins the input

    @property
    def convolution_strides(self) -> tuple[int, int]:
        """The strides of the convolution itself, without any resize before or after it."""
        return self.strides

    @model_validator(mode="after")
    def _stride_or_dilation(self) -> Kernel:
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError("strides and dilation_rate cannot both be above 1 (Keras refuses it)")
        return self


class Conv(Kernel):
    """A `keras.layers.Conv2D`."""

    type: Literal["conv"]


class ConvTranspose(Kernel):
    """A `keras.layers.Conv2DTranspose`."""

    type: Literal["conv_transpose"]
    output_padding: Extra | None = None

    @model_validator(mode="after")
    def _output_padding_below_strides(self) -> ConvTranspose:
        if self.output_padding and any(
            o >= s for o, s in zip(self.output_padding, self.strides, strict=True)
        ):
            raise ValueError(
                f"output_padding {self.output_padding} must be smaller than strides {self.strides}"
            )
        return self


class _Growing(Kernel):
    """What ResizeConv and DepthToSpace share: `strides` times the size, and nothing else."""

    padding: Literal["same"] = "same"

    @property
    def convolution_strides(self) -> tuple[int, int]:
        return (1, 1)

    @model_validator(mode="after")
    def _no_dilation(self) -> _Growing:
        if max(self.dilation_rate) > 1:
            raise ValueError("dilation_rate must be 1 in a layer that resizes")
        return self


class ResizeConv(_Growing):
    """A `keras.layers.UpSampling2D` by `strides`, then a `keras.layers.Conv2D` of stride 1."""

    type: Literal["resize_conv"]
    interpolation: Literal["nearest", "bilinear"] = "nearest"


class DepthToSpace(_Growing):
    """A `keras.layers.Conv2D` to filters * strides^2 channels, dealt out to as many pixels.

    Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel
    convolutional neural network", CVPR 2016.
    """

    type: Literal["depth_to_space"]


Layer = Annotated[Conv | ConvTranspose | ResizeConv | DepthToSpace, Field(discriminator="type")]


Stack = Annotated[tuple[Layer, ...], Field(min_length=1, max_length=100)]


class Model(Section):
    """Layer by layer: what the encoder makes of an image, and the decoder of the code."""

    input_shape: tuple[Side, Side, Literal[1, 3]] = (28, 28, 1)  # height, width, channels
    zero_center: bool = False  # the first layer gets 2x - 1 of images in [0, 1]: means near 0
    encoder: Stack
    decoder: Stack

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All layers in the order in which an image passes them."""
        return self.encoder + self.decoder

    @property
    def has_skips(self) -> bool:
        """Whether the decoder sees more of an image than the code."""
        return any(layer.skip for layer in self.decoder)
