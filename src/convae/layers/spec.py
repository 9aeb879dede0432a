"""The layer types of a config, and the model that layers make; no TensorFlow.

A layer type is one class here: its keys, ranges and defaults, and the methods of `LayerSpec`, which
are all that sizes, costs, fixes and plans need to know of a type. How its Keras layers are built,
and its forward pass, are in models/layers.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import product
from math import prod
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from convae.layers.arithmetic import ConvAxis, ConvTransposeAxis, Operation, setting_problem
from convae.section import Section


def _both(value: object) -> object:
    """Return `3` as (3, 3): the same along both axes."""
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


Shape = tuple[int, int, int]  # height, width, channels
Size = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=1, le=16_384)]  # pixels
Pair = Annotated[tuple[Side, Side], BeforeValidator(_both, Side | tuple[Side, Side])]
Steps = Annotated[int, Field(ge=1, le=255)]  # more is a slip, and would make the summary slow
Window = Annotated[tuple[Steps, Steps], BeforeValidator(_both, Steps | tuple[Steps, Steps])]
Count = Annotated[int, Field(ge=0)]
Extra = Annotated[tuple[Count, Count], BeforeValidator(_both, Count | tuple[Count, Count])]
Activation = Literal[
    "linear", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "softplus", "tanh", "sigmoid",
    "softmax",
]  # fmt: skip
Initializer = Literal[
    "he_normal", "he_uniform", "glorot_normal", "glorot_uniform", "lecun_normal", "lecun_uniform"
]
Change = tuple[int, dict[str, Any]]  # a distance from the present setting, and the new setting


class LayerSpec(Section, ABC):
    """A layer of any type."""

    keras_name: ClassVar[str]  # the name of a layer without one, before its number
    label: ClassVar[str]  # the Keras layers, as tables show them
    keras_layer: ClassVar[str]  # the Keras class that holds the weights, in a `.keras` file
    weightless_layers: ClassVar[tuple[str, ...]] = ()  # the other Keras classes in that file
    transposed: ClassVar[bool] = False  # whether each input meets the kernel, not each output
    stochastic: ClassVar[bool] = False  # whether training draws the output from a distribution

    type: str

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")] | None = None
    """The name of the layer. null: that of its type, with a number."""

    skip: str | None = None
    """In a decoder: the name of an encoder layer whose output joins the layer's input."""

    @abstractmethod
    def operations(self, axis: int) -> list[Operation]:
        """Return the operations along axis 0 (height) or 1 (width), in their order."""

    @abstractmethod
    def output_channels(self, channels: int) -> int:
        """Return the channels of the output for an input with `channels`."""

    @abstractmethod
    def parameters(self, channels: int) -> int:
        """Return the number of weights and biases for an input with `channels`."""

    @abstractmethod
    def macs(self, input_shape: Shape, output_shape: Shape) -> int:
        """Return the multiplications, with an addition each, for one image, borders included."""

    @property
    @abstractmethod
    def kernel_strides(self) -> tuple[int, int]:
        """The strides of the convolution itself; (1, 1) where `strides` only enlarges."""

    def steps(self, size: int, axis: int) -> Iterator[tuple[int, Operation]]:
        """Yield each operation along an axis with the size of its input."""
        for operation in self.operations(axis):
            yield size, operation
            size = operation.output_size(size)

    def output_size(self, size: int, axis: int) -> int:
        """Return the output size along an axis; zero or less if the layer cannot run."""
        for operation in self.operations(axis):
            size = operation.output_size(size)
        return size

    def problem(self, size: int, axis: int) -> str | None:
        """Return why Keras cannot run the layer at an input size, and what can; None if it can."""
        texts = (operation.problem(step) for step, operation in self.steps(size, axis))
        return next((text for text in texts if text), None)

    def changes(self) -> Iterator[Change]:
        """Yield other settings that may fix the sizes of a decoder, each with its distance."""
        yield from ()


class Convolution(LayerSpec):
    """A layer with a kernel; the options are those of Keras."""

    keras_layer = "Conv2D"

    filters: Annotated[int, Field(ge=1, le=2**20)]
    """The number of output channels."""

    kernel_size: Window
    """The height and width of the kernel; one number for both."""

    strides: Window = (1, 1)
    """The step of the kernel along height and width; one number for both."""

    padding: Literal["valid", "same"] = "valid"
    """valid: none; same: the size changes by the strides alone."""

    dilation_rate: Window = (1, 1)
    """The distance of the kernel's elements along height and width; one number for both."""

    activation: Activation = "linear"
    """The function applied to the output."""

    use_bias: bool = True
    """Whether each output channel has a bias."""

    kernel_initializer: Initializer = "glorot_uniform"
    """The distribution of the weights before training."""

    @model_validator(mode="after")
    def _is_a_setting_of_keras(self) -> Convolution:
        for axis in (0, 1):
            for operation in self.operations(axis):
                if text := setting_problem(**operation._asdict()):
                    raise ValueError(text)
        return self

    @property
    def channel_multiplier(self) -> int:
        """Channels that the kernel gives for each filter."""
        return 1

    @property
    def kernel_strides(self) -> tuple[int, int]:
        """The strides."""
        return self.strides

    def output_channels(self, channels: int) -> int:
        """Return `filters`."""
        return self.filters

    def parameters(self, channels: int) -> int:
        """Return the number of weights of the kernel, and of its biases."""
        biases = self.use_bias * self.filters * self.channel_multiplier
        return self._kernel_weights(channels) + biases

    def _kernel_weights(self, channels: int) -> int:
        return prod(self.kernel_size) * channels * self.filters * self.channel_multiplier

    def macs(self, input_shape: Shape, output_shape: Shape) -> int:
        """Return the number of positions of the kernel, times its weights."""
        height, width, _ = input_shape if self.transposed else output_shape
        return max(height * width, 0) * self._kernel_weights(input_shape[2])

    def changes(self) -> Iterator[Change]:
        """Yield the other padding, near kernel sizes and other strides."""
        yield 1, {"padding": "same" if self.padding == "valid" else "valid"}
        for step in (1, -1, 2, -2):
            kernel = (self.kernel_size[0] + step, self.kernel_size[1] + step)
            if min(kernel) > 0:
                yield 1 + abs(step), {"kernel_size": kernel}
        for strides in ((1, 1), (2, 2), (3, 3)):
            if strides != self.strides and max(self.dilation_rate) == 1:
                yield 5, {"strides": strides}


class Conv(Convolution):
    """A `keras.layers.Conv2D`."""

    keras_name = "conv2d"
    label = "Conv2D"

    type: Literal["conv"]

    def operations(self, axis: int) -> list[Operation]:
        """Return the convolution."""
        k, s, d = self.kernel_size[axis], self.strides[axis], self.dilation_rate[axis]
        return [ConvAxis(k, s, self.padding, d)]


class ConvTranspose(Convolution):
    """A `keras.layers.Conv2DTranspose`."""

    keras_name = "conv2d_transpose"
    label = keras_layer = "Conv2DTranspose"
    transposed = True

    type: Literal["conv_transpose"]

    output_padding: Extra | None = None
    """Rows and columns added to the output, fewer than the strides. null: as Keras chooses."""

    def operations(self, axis: int) -> list[Operation]:
        """Return the transposed convolution."""
        k, s, d = self.kernel_size[axis], self.strides[axis], self.dilation_rate[axis]
        extra = None if self.output_padding is None else self.output_padding[axis]
        return [ConvTransposeAxis(k, s, self.padding, extra, d)]

    def changes(self) -> Iterator[Change]:
        """Yield every other output_padding, and the changes of any convolution."""
        if self.output_padding is not None:
            yield 0, {"output_padding": None}
        for rows, columns in product(*(range(s) for s in self.strides)):
            if (rows, columns) != self.output_padding and max(self.strides) > 1:
                yield int(rows != columns), {"output_padding": (rows, columns)}
        for distance, change in super().changes():
            if max(self.output_padding or (0, 0)) < min(change.get("strides", (256,))):
                yield distance, change


class _Enlarging(Convolution):
    """A convolution of stride 1, and an enlargement by `strides` before or after it."""

    padding: Literal["same"] = "same"
    """Always same."""

    @model_validator(mode="after")
    def _no_dilation(self) -> _Enlarging:
        if max(self.dilation_rate) > 1:
            raise ValueError("dilation_rate must be 1 in a layer that resizes")
        return self

    @property
    def kernel_strides(self) -> tuple[int, int]:
        """The strides of the convolution."""
        return 1, 1

    def changes(self) -> Iterator[Change]:
        """Yield the changes of any convolution but the padding."""
        return (change for change in super().changes() if "padding" not in change[1])

    def operations(self, axis: int) -> list[Operation]:
        """Return the convolution, and a transposed one that gives each pixel `strides` copies."""
        convolution = ConvAxis(self.kernel_size[axis], 1, self.padding, self.dilation_rate[axis])
        return [convolution, ConvTransposeAxis(self.strides[axis], self.strides[axis])]


class ResizeConv(_Enlarging):
    """A `keras.layers.UpSampling2D` by `strides`, then a `keras.layers.Conv2D` of stride 1."""

    keras_name = "resize_conv2d"
    label = "UpSampling2D, Conv2D"
    weightless_layers = ("UpSampling2D",)

    type: Literal["resize_conv"]

    interpolation: Literal["nearest", "bilinear"] = "nearest"
    """How the layer enlarges its input."""

    def operations(self, axis: int) -> list[Operation]:
        """Return the enlargement and the convolution."""
        return super().operations(axis)[::-1]


class DepthToSpace(_Enlarging):
    """A `keras.layers.Conv2D` to filters * strides^2 channels, rearranged into as many pixels.

    Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel
    convolutional neural network", CVPR 2016.
    """

    keras_name = "depth_to_space"
    label = "Conv2D, depth to space"
    weightless_layers = ("Reshape", "Permute")

    type: Literal["depth_to_space"]

    @property
    def channel_multiplier(self) -> int:
        """Pixels that the channels of one pixel become."""
        return prod(self.strides)

    def macs(self, input_shape: Shape, output_shape: Shape) -> int:
        """Return the multiplications of the convolution, which has the size of the input."""
        return super().macs(input_shape, input_shape)


class Gaussian(LayerSpec):
    """The mean and the log-variance of a normal distribution of the code, by one convolution.

    Training draws the code from it; everything else takes the mean. Kingma and Welling,
    "Auto-encoding variational Bayes", ICLR 2014.
    """

    keras_name = "gaussian"
    label = "Conv2D, mean and log-variance"
    keras_layer = "Conv2D"
    weightless_layers = ("Reshape", "Cropping2D")
    stochastic = True
    strides: ClassVar[tuple[int, int]] = (1, 1)
    padding: ClassVar[str] = "valid"
    activation: ClassVar[Activation] = "linear"

    type: Literal["gaussian"]

    latent_dim: Annotated[int, Field(ge=1, le=2**20)]
    """The number of channels of the code."""

    kernel_size: Window
    """The size of the kernel. With that of the layer's input, the code has one pixel."""

    kernel_initializer: Initializer = "glorot_uniform"
    """The distribution of the weights before training."""

    @property
    def filters(self) -> int:
        """Channels of the output."""
        return self.latent_dim

    @property
    def kernel_strides(self) -> tuple[int, int]:
        """The strides of the convolution."""
        return self.strides

    def operations(self, axis: int) -> list[Operation]:
        """Return the convolution."""
        return [ConvAxis(self.kernel_size[axis], 1, "valid", 1)]

    def output_channels(self, channels: int) -> int:
        """Return `latent_dim`."""
        return self.latent_dim

    def parameters(self, channels: int) -> int:
        """Return the number of weights of the kernel, and of its biases."""
        return 2 * self.latent_dim * (prod(self.kernel_size) * channels + 1)

    def macs(self, input_shape: Shape, output_shape: Shape) -> int:
        """Return the number of positions of the kernel, times its weights."""
        weights = prod(self.kernel_size) * input_shape[2] * 2 * self.latent_dim
        return max(output_shape[0] * output_shape[1], 0) * weights


Layer = Annotated[
    Conv | ConvTranspose | ResizeConv | DepthToSpace | Gaussian, Field(discriminator="type")
]
Stack = Annotated[tuple[Layer, ...], Field(min_length=1, max_length=100)]


class Model(Section):
    """The layers of the encoder (image to code) and the decoder (code to output)."""

    input_shape: tuple[Side, Side, Literal[1, 3]] = (28, 28, 1)
    """The height, width and channels of an input image: 1 is gray, 3 is RGB."""

    zero_center: bool = False
    """Whether the first layer gets 2x - 1 of images in [0, 1], whose mean is near 0."""

    encoder: Stack
    """The layers from the image to the code."""

    decoder: Stack
    """The layers from the code to the output."""

    @model_validator(mode="after")
    def _code_alone_is_drawn(self) -> Model:
        if any(layer.stochastic for layer in (*self.encoder[:-1], *self.decoder)):
            raise ValueError("a gaussian layer gives the code: it must be the encoder's last layer")
        if self.encoder[-1].stochastic and self.has_skips:
            raise ValueError(
                "behind a gaussian layer the decoder must generate images from a code alone, so "
                "none of its layers can have a skip"
            )
        return self

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers of the encoder and the decoder."""
        return self.encoder + self.decoder

    @property
    def has_dilated_transpose(self) -> bool:
        """Whether a transposed convolution has a dilation rate above 1."""
        return any(
            isinstance(layer, ConvTranspose) and max(layer.dilation_rate) > 1
            for layer in self.layers
        )

    @property
    def has_skips(self) -> bool:
        """Whether the decoder gets more of an image than the code."""
        return any(layer.skip for layer in self.decoder)
