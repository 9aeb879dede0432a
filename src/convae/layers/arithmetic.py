"""Output sizes of convolutions and transposed convolutions along one axis, as Keras defines them.

A kernel of size k at dilation d covers the extent k' = (k - 1) d + 1. A transposed convolution of i
elements writes onto a canvas of (i - 1) s + k' pixels, from which it then crops. Keras has the
paddings "valid" and "same"; a number is PyTorch's padding: zeros added on each side of the input of
a convolution, or pixels removed on each side of the canvas of a transposed convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd, prod
from typing import Literal, NamedTuple

Padding = Literal["valid", "same"]


def extent(kernel_size: int, dilation_rate: int = 1) -> int:
    """Return the pixels from a kernel's first to its last tap, k' = (k - 1) d + 1."""
    return (kernel_size - 1) * dilation_rate + 1


def conv_size(
    size: int,
    kernel_size: int,
    strides: int = 1,
    padding: Padding | int = "valid",
    dilation_rate: int = 1,
) -> int:
    """Return the output size of Conv2D; zero or less if the kernel is larger than the input.

    same: ceil(i / s); valid: floor((i - k') / s) + 1; a number p: floor((i + 2p - k') / s) + 1.
    """
    if padding == "same":
        return -(-size // strides)
    p = padding if isinstance(padding, int) else 0
    return (size + 2 * p - extent(kernel_size, dilation_rate)) // strides + 1


def conv_padding(
    size: int,
    kernel_size: int,
    strides: int = 1,
    padding: Padding | int = "valid",
    dilation_rate: int = 1,
) -> tuple[int, int]:
    """Return the zeros that Conv2D adds before and after its input; an odd one comes after."""
    if padding != "same":
        p = padding if isinstance(padding, int) else 0
        return p, p
    total = (conv_size(size, kernel_size, strides, "same") - 1) * strides - size
    total = max(total + extent(kernel_size, dilation_rate), 0)
    return total // 2, total - total // 2


def conv_transpose_size(
    size: int,
    kernel_size: int,
    strides: int = 1,
    padding: Padding | int = "valid",
    output_padding: int | None = None,
    dilation_rate: int = 1,
) -> int:
    """Return the output size of Conv2DTranspose.

    valid: (i - 1) s + max(k', s), or (i - 1) s + k' + op;
    same: i s, or (i - 1) s + k' mod 2 + op, because floor(k' / 2) is cropped on each side;
    a number p: (i - 1) s - 2p + k' + op, the rule of PyTorch's ConvTranspose2d.
    """
    k = extent(kernel_size, dilation_rate)
    if isinstance(padding, int):
        return (size - 1) * strides - 2 * padding + k + (output_padding or 0)
    if output_padding is None:
        return size * strides if padding == "same" else (size - 1) * strides + max(k, strides)
    kept = k % 2 if padding == "same" else k
    return (size - 1) * strides + kept + output_padding


def crop(
    size: int,
    kernel_size: int,
    strides: int = 1,
    padding: Padding | int = "valid",
    output_padding: int | None = None,
    dilation_rate: int = 1,
) -> tuple[int, int]:
    """Return the pixels cropped from the start and the end of the canvas of Conv2DTranspose.

    A negative number stands for added zeros. `same` crops an odd pixel at the end: k=3, s=2 crops
    (0, 1) without output_padding and (1, 1) with output_padding 0.
    """
    setting = (kernel_size, strides, padding, output_padding, dilation_rate)
    canvas = (size - 1) * strides + extent(kernel_size, dilation_rate)
    total = canvas - conv_transpose_size(size, *setting)
    if isinstance(padding, int):
        return padding, total - padding
    first = max(total, 0) // 2 if padding == "same" else 0
    return first, total - first


def pytorch(crop: tuple[int, int], strides: int, dilation_rate: int = 1) -> tuple[int, int] | None:
    """Return (padding, output_padding) of PyTorch's ConvTranspose2d with this crop, None if not.

    PyTorch crops `padding` on both sides and adds `output_padding` at the end, so it never crops
    more at the end than at the start, as Keras' `same` often does.
    """
    first, extra = crop[0], crop[0] - crop[1]
    return (first, extra) if 0 <= extra < max(strides, dilation_rate) and first >= 0 else None


def setting_problem(
    kernel_size: int,
    strides: int = 1,
    padding: Padding | int = "valid",
    output_padding: int | None = None,
    dilation_rate: int = 1,
) -> str | None:
    """Return why Keras refuses this setting at every input size; None if it does not."""
    named = {"kernel_size": kernel_size, "strides": strides, "dilation_rate": dilation_rate}
    for name, value in named.items():
        if value < 1:
            return f"{name} must be 1 or more. Received: {value}"
    if output_padding is not None and not 0 <= output_padding < strides:
        return (
            f"output_padding must be 0 or more and smaller than strides {strides}. "
            f"Received: {output_padding}"
        )
    if strides > 1 and dilation_rate > 1:
        return (
            "strides and dilation_rate cannot both be above 1. "
            f"Received: strides {strides}, dilation_rate {dilation_rate}"
        )
    if isinstance(padding, int) and padding < 0:
        return f"padding must be valid, same, or a number from 0 up. Received: {padding}"
    return None


def problem(
    size: int,
    kernel_size: int,
    strides: int = 1,
    padding: Padding | int = "valid",
    output_padding: int | None = None,
    dilation_rate: int = 1,
) -> str | None:
    """Return why Conv2DTranspose cannot run at this input size, and what can; None if it can."""
    setting = (kernel_size, strides, padding, output_padding, dilation_rate)
    if size < 1:
        return f"input size must be 1 or more. Received: {size}"
    if text := setting_problem(*setting):
        return text
    k = extent(kernel_size, dilation_rate)
    if padding == "same" and output_padding == 0 and k % 2 == 0:
        return (
            f"an even kernel (here {k} pixels) with padding same and output_padding 0 has a shape "
            "in Keras but fails when it runs; leave output_padding out or use an odd kernel"
        )
    if conv_transpose_size(size, *setting) < 1:
        canvas = (size - 1) * strides + k
        return f"padding {padding} on each side leaves nothing of a canvas of {canvas}"
    return None


def overlap(kernel_size: int, strides: int = 1, dilation_rate: int = 1) -> tuple[int, int]:
    """Return the fewest and the most kernel copies that meet in one pixel, away from the border.

    At dilation 1 they are equal, so the overlap is even, exactly if s divides k.
    """
    # Taps fall on every gcd(s, d)-th phase of a stride, on each of those in turn.
    common = gcd(strides, dilation_rate)
    reached = strides // common
    return kernel_size // reached if common == 1 else 0, -(-kernel_size // reached)


def overlap_counts(
    size: int,
    kernel_size: int,
    strides: int = 1,
    padding: Padding | int = "valid",
    output_padding: int | None = None,
    dilation_rate: int = 1,
) -> list[int]:
    """Return the number of kernel copies that meet in each output pixel; 0: the bias alone.

    The counts of two axes multiply. Strides or dilation_rate must be 1, as `problem` requires.
    """
    setting = (kernel_size, strides, padding, output_padding, dilation_rate)
    first, _ = crop(size, *setting)
    pixels = range(first, first + conv_transpose_size(size, *setting))
    # Elements are `strides` apart and taps `dilation_rate`, one of which is 1. The steps whose
    # contiguous others reach a pixel form a range, so its length is enough.
    step, steps, others = (
        (strides, size, kernel_size) if dilation_rate == 1 else (dilation_rate, kernel_size, size)
    )
    return [
        max(min(p // step, steps - 1) - max(-((others - 1 - p) // step), 0) + 1, 0) for p in pixels
    ]


class ConvAxis(NamedTuple):
    """A convolution along one axis."""

    kernel_size: int
    strides: int = 1
    padding: Padding | int = "valid"
    dilation_rate: int = 1

    @property
    def transposed(self) -> bool:
        """Whether this is a transposed convolution."""
        return False

    def output_size(self, size: int) -> int:
        """Return the output size; zero or less if the kernel is larger than the input."""
        return conv_size(size, *self)

    def problem(self, size: int) -> str | None:
        """Return why the convolution cannot run at this input size, None if it can."""
        if self.output_size(size) > 0:
            return None
        return (
            f"kernel_size {self.kernel_size} at dilation_rate {self.dilation_rate} is larger than "
            f"its input of {size} pixels; use padding: same, a smaller kernel or an earlier stride "
            "of 1"
        )

    def input_range(self, size: int, low: int, high: int) -> tuple[int, int]:
        """Return the first and last input pixel on which the outputs `low` to `high` depend."""
        first, _ = conv_padding(size, *self)
        reach = extent(self.kernel_size, self.dilation_rate) - 1
        return low * self.strides - first, high * self.strides - first + reach

    def unused(self, size: int) -> int:
        """Return the number of pixels at the end of the input that no output depends on."""
        return max(size - 1 - self.input_range(size, 0, self.output_size(size) - 1)[1], 0)

    def empty(self, size: int) -> int:
        """Return 0: every output depends on an input."""
        return 0


class ConvTransposeAxis(NamedTuple):
    """A transposed convolution along one axis."""

    kernel_size: int
    strides: int = 1
    padding: Padding | int = "valid"
    output_padding: int | None = None
    dilation_rate: int = 1

    @property
    def transposed(self) -> bool:
        """Whether this is a transposed convolution."""
        return True

    def output_size(self, size: int) -> int:
        """Return the output size."""
        return conv_transpose_size(size, *self)

    def problem(self, size: int) -> str | None:
        """Return why the operation cannot run at this input size, None if it can."""
        return problem(size, *self)

    def input_range(self, size: int, low: int, high: int) -> tuple[int, int]:
        """Return the first and last input pixel on which the outputs `low` to `high` depend."""
        first, _ = crop(size, *self)
        reach = extent(self.kernel_size, self.dilation_rate) - 1
        return -((reach - low - first) // self.strides), (high + first) // self.strides

    def unused(self, size: int) -> int:
        """Return 0: every input pixel is used."""
        return 0

    def empty(self, size: int) -> int:
        """Return the number of pixels at the end of the output that hold the bias alone."""
        counts = overlap_counts(size, *self)
        return next((i for i, count in enumerate(reversed(counts)) if count), 0)


Operation = ConvAxis | ConvTransposeAxis


def receptive_field(operations: Sequence[tuple[int, Operation]]) -> int:
    """Return the input pixels on which the output pixel with the widest view depends.

    Borders do not clip the view. The outputs of a strided transposed convolution have different
    views, so every position of one period is looked at.

    Args:
        operations: (input size, operation) along one axis, from input to output.
    """
    period = prod(operation.strides for _, operation in operations if operation.transposed)
    widest = 0
    for position in range(min(period, 256)):
        low = high = position
        for size, operation in reversed(operations):
            low, high = operation.input_range(size, low, high)
        widest = max(widest, high - low + 1)
    return widest
