"""Output sizes of convolutions and transposed convolutions, one axis at a time, as Keras has them.

The kernel's extent k' = (k - 1) d + 1 is what a kernel of size k covers at dilation d. A number as
padding is PyTorch's: so many zeros on each side of a convolution's input, or so many pixels taken
off each side of a transposed convolution's canvas. Keras knows "valid" and "same" only.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from convae.layers.spec import Layer

Padding = Literal["valid", "same"]


def extent(kernel_size: int, dilation_rate: int = 1) -> int:
    """Pixels from a kernel's first to its last tap: k' = (k - 1) d + 1."""
    return (kernel_size - 1) * dilation_rate + 1


def conv_size(
    size: int,
    kernel_size: int,
    strides: int = 1,
    padding: Padding | int = "valid",
    dilation_rate: int = 1,
) -> int:
    """Pixels that come out of Conv2D along one axis; zero or less where the kernel does not fit.

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
    """Zeros that Conv2D puts before and after its input; `same` puts the odd one behind."""
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
    """Pixels that come out of Conv2DTranspose along one axis.

    valid: (i - 1) s + max(k', s), or (i - 1) s + k' + op;
    same: i s, or (i - 1) s + k' mod 2 + op, since each side then loses floor(k' / 2);
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
    """Pixels taken off the start and the end of the canvas of (i - 1) s + k'.

    A negative number means zeros put on instead. `same` takes the odd pixel off the end, which is
    why k=3, s=2 loses (0, 1) without output_padding and (1, 1) with output_padding 0.
    """
    setting = (kernel_size, strides, padding, output_padding, dilation_rate)
    canvas = (size - 1) * strides + extent(kernel_size, dilation_rate)
    total = canvas - conv_transpose_size(size, *setting)
    if isinstance(padding, int):
        return padding, total - padding
    first = max(total, 0) // 2 if padding == "same" else 0
    return first, total - first


def pytorch(crop: tuple[int, int], strides: int, dilation_rate: int = 1) -> tuple[int, int] | None:
    """(padding, output_padding) of PyTorch's ConvTranspose2d with this crop; None: it has none.

    PyTorch takes `padding` off both sides and puts `output_padding` back on the end, so it can
    never take more off the end than off the start, as Keras' `same` often does.
    """
    first, last = crop
    extra = first - last
    fits = first >= 0 and 0 <= extra < max(strides, dilation_rate)
    return (first, extra) if fits else None


def problem(
    size: int,
    kernel_size: int,
    strides: int = 1,
    padding: Padding | int = "valid",
    output_padding: int | None = None,
    dilation_rate: int = 1,
) -> str | None:
    """Why Conv2DTranspose refuses this setting, with what would be right; None if it runs."""
    named = {"kernel_size": kernel_size, "strides": strides, "dilation_rate": dilation_rate}
    for name, value in {"input size": size, **named}.items():
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
    k = extent(kernel_size, dilation_rate)
    if padding == "same" and output_padding == 0 and k % 2 == 0:
        return (
            f"an even kernel (here {k} pixels) with padding same and output_padding 0 has a shape "
            "in Keras but dies when it runs; leave output_padding away or use an odd kernel"
        )
    if isinstance(padding, int) and padding < 0:
        return f"padding must be valid, same, or a number from 0 up. Received: {padding}"
    setting = (kernel_size, strides, padding, output_padding, dilation_rate)
    if conv_transpose_size(size, *setting) < 1:
        canvas = (size - 1) * strides + k
        return f"padding {padding} on each side leaves nothing of a canvas of {canvas}"
    return None


def layer_options(layer: Layer, axis: int) -> dict[str, Any]:
    """A config's layer along one axis, as the functions here take it."""
    options: dict[str, Any] = {
        "kernel_size": layer.kernel_size[axis],
        "strides": layer.strides[axis],
        "padding": layer.padding,
        "dilation_rate": layer.dilation_rate[axis],
    }
    if layer.type == "conv_transpose":
        options["output_padding"] = layer.output_padding and layer.output_padding[axis]
    return options


def operations(layer: Layer, axis: int) -> list[tuple[str, dict[str, Any]]]:
    """A config's layer along one axis as convolutions and transposed ones: (type, options).

    Growing s-fold, by repeating pixels or by dealing channels out to them, reaches as far as a
    transposed convolution of kernel s and stride s: each pixel gives s, and each has one origin.
    """
    options = layer_options(layer, axis)
    if layer.type in {"conv", "conv_transpose"}:
        return [(layer.type, options)]
    convolution = ("conv", {**options, "strides": 1})
    strides = options["strides"]
    grown = {"kernel_size": strides, "strides": strides, "padding": "valid", "dilation_rate": 1}
    growth = ("conv_transpose", grown)
    return [growth, convolution] if layer.type == "resize_conv" else [convolution, growth]


def layer_size(layer: Layer, size: int, axis: int) -> int:
    """Pixels that come out of a config's layer along one axis."""
    for kind, options in operations(layer, axis):
        size = (conv_size if kind == "conv" else conv_transpose_size)(size, **options)
    return size


def overlap(kernel_size: int, strides: int = 1, dilation_rate: int = 1) -> tuple[int, int]:
    """The fewest and the most kernel copies that meet in one pixel, away from the border.

    They are equal, so the overlap is even, exactly when s divides k (at dilation 1).
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
    """Kernel copies that meet in each output pixel along one axis; 0 is a pixel of bias alone.

    In two dimensions the counts of the axes multiply. Takes what `problem` passes: strides or
    dilation_rate must be 1.
    """
    setting = (kernel_size, strides, padding, output_padding, dilation_rate)
    first, _ = crop(size, *setting)
    pixels = range(first, first + conv_transpose_size(size, *setting))
    # Elements step by strides and taps by dilation_rate, one of which is 1. At each pixel, those
    # of the steps whose contiguous others reach it: a range, so its length is all that is needed.
    step, steps, others = (
        (strides, size, kernel_size) if dilation_rate == 1 else (dilation_rate, kernel_size, size)
    )
    return [
        max(min(p // step, steps - 1) - max(-((others - 1 - p) // step), 0) + 1, 0) for p in pixels
    ]


def receptive_field(layers: Sequence[tuple[str, int, dict[str, Any]]]) -> int:
    """Input pixels along one axis that the output pixel with the widest view hangs on.

    `layers` are (type, input size, options) in the order of the data; type is conv or
    conv_transpose. Borders do not clip the view. A strided transposed layer gives neighbors
    different views, so every position of one period is asked.
    """
    period = 1
    for kind, _, options in layers:
        period *= 1 if kind == "conv" else options["strides"]
    widest = 0
    for place in range(min(period, 256)):
        low = high = place
        for kind, size, options in reversed(layers):
            reach = extent(options["kernel_size"], options["dilation_rate"]) - 1
            step = options["strides"]
            if kind == "conv":
                first, _ = conv_padding(size, **options)
                low, high = low * step - first, high * step - first + reach
            else:
                first, _ = crop(size, **options)
                low, high = -((reach - low - first) // step), (high + first) // step
        widest = max(widest, high - low + 1)
    return widest
