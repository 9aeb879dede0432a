"""Convolution and transposed convolution from their definitions, each by several methods.

Arrays are NumPy's and keep their dtype, so integers stay exact. Images have the shape (h, w),
(h, w, channels) or (n, h, w, channels); kernels have Keras' layouts: (h, w, in, out) for Conv2D and
(h, w, OUT, in) for Conv2DTranspose, or plain (h, w). One array therefore serves both a convolution
and its transpose: C has the kernel (h, w, a, b), takes a channels to b, and C^T takes b back to a.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from convae.arrays import Array
from convae.errors import ConfigError
from convae.layers import arithmetic

Pair = tuple[int, int]
Pairs = tuple[Pair, Pair]  # ((top, bottom), (left, right))


@dataclass(frozen=True)
class ConvOptions:
    """The options of one layer, by Keras' names; a number as padding is PyTorch's."""

    strides: Pair = (1, 1)
    padding: arithmetic.Padding | int = "valid"
    output_padding: Pair | None = None
    dilation_rate: Pair = (1, 1)

    def axis(self, axis: int, kernel_size: int, *, transposed: bool = True) -> dict[str, Any]:
        """Return the options along one axis, as the functions of `layers.arithmetic` take them."""
        options: dict[str, Any] = {"kernel_size": kernel_size, "padding": self.padding}
        options |= {"strides": self.strides[axis], "dilation_rate": self.dilation_rate[axis]}
        if transposed:
            options["output_padding"] = self.output_padding and self.output_padding[axis]
        return options

    def check_transpose(self, size: Pair, kernel_size: Pair) -> None:
        """Raise ConfigError, with the reason, exactly where Conv2DTranspose raises an error."""
        for problem in self._both(arithmetic.problem, size, kernel_size):
            if problem:
                raise ConfigError(problem)
        self._check_strides_and_dilation()

    def check_conv(self, size: Pair, kernel_size: Pair) -> None:
        """Raise ConfigError, with the reason, exactly where Conv2D raises an error."""
        if self.output_padding is not None:
            raise ConfigError("output_padding belongs to a transposed convolution; remove it")
        if isinstance(self.padding, int) and self.padding < 0:
            raise ConfigError(f"padding must be 0 or more. Received: {self.padding}")
        self._check_strides_and_dilation()
        outputs, padding = self.conv_size(size, kernel_size), self.conv_pads(size, kernel_size)
        for axis, output in enumerate(outputs):
            if output < 1:
                raise ConfigError(
                    f"the kernel covers {self.extents(kernel_size)[axis]} pixels and is larger "
                    f"than its padded input of {size[axis] + sum(padding[axis])}; use a smaller "
                    "kernel or padding same"
                )

    def _check_strides_and_dilation(self) -> None:
        for name in ("strides", "dilation_rate"):
            if min(getattr(self, name)) < 1:
                raise ConfigError(f"{name} must be 1 or more. Received: {getattr(self, name)}")
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:  # Keras compares across the axes
            raise ConfigError(
                "strides and dilation_rate cannot both be above 1 (Keras refuses it). "
                f"Received: strides {self.strides}, dilation_rate {self.dilation_rate}"
            )

    def extents(self, kernel_size: Pair) -> Pair:
        """Return the pixels that the dilated kernel covers along both axes."""
        rows, columns = map(arithmetic.extent, kernel_size, self.dilation_rate)
        return rows, columns

    def crops(self, size: Pair, kernel_size: Pair) -> Pairs:
        """Return what is cut off the canvas on each side; negative numbers are added zeros."""
        return self._both(arithmetic.crop, size, kernel_size)

    def transpose_size(self, size: Pair, kernel_size: Pair) -> Pair:
        """Return the output size of a transposed convolution."""
        return self._both(arithmetic.conv_transpose_size, size, kernel_size)

    def conv_pads(self, size: Pair, kernel_size: Pair) -> Pairs:
        """Return the zeros that a convolution adds to its input on each side."""
        return self._both(arithmetic.conv_padding, size, kernel_size, transposed=False)

    def conv_size(self, size: Pair, kernel_size: Pair) -> Pair:
        """Return the output size of a convolution."""
        return self._both(arithmetic.conv_size, size, kernel_size, transposed=False)

    def _both(
        self, function: Callable[..., Any], size: Pair, kernel_size: Pair, transposed: bool = True
    ) -> tuple[Any, Any]:
        """Call a function of `layers.arithmetic` for the rows and for the columns."""
        rows, columns = (self.axis(a, kernel_size[a], transposed=transposed) for a in (0, 1))
        return function(size[0], **rows), function(size[1], **columns)

    def taps(self, corner: Pair, kernel_size: Pair) -> tuple[slice, slice]:
        """Return the cells under the taps of a kernel whose first tap lies at `corner`."""
        (top, left), (height, width) = corner, self.extents(kernel_size)
        down, right = self.dilation_rate
        return slice(top, top + height, down), slice(left, left + width, right)


DEFAULT_OPTIONS = ConvOptions()
CONV_LAYOUT = "h, w, in, out"  # of Conv2D's kernel
Method = Callable[[Array, Array, ConvOptions], Array]


def cut(canvas: Array, crops: Pairs) -> Array:
    """Return the canvas (n, H, W, c) without its crops; a negative crop adds zeros."""
    pads = [(0, 0), *((max(-a, 0), max(-b, 0)) for a, b in crops), (0, 0)]
    canvas = np.pad(canvas, pads)
    rows, columns = (
        slice(max(a, 0), canvas.shape[axis + 1] - max(b, 0)) for axis, (a, b) in enumerate(crops)
    )
    return canvas[:, rows, columns]


# ---- methods of the transposed convolution: x (n, h, w, in), kernel (kh, kw, out, in) ----------


def scaled_copies(
    x: Array, kernel: Array, options: ConvOptions
) -> Iterator[tuple[Pair, Pair, Array]]:
    """Yield (place in x, place on the canvas, copy) for each element's scaled copy of the kernel.

    A copy has the shape (n, kh, kw, out).
    """
    for row, column in np.ndindex(x.shape[1:3]):
        place = row * options.strides[0], column * options.strides[1]
        yield (row, column), place, np.einsum("ni,hwoi->nhwo", x[:, row, column], kernel)


def transpose_by_copies(x: Array, kernel: Array, options: ConvOptions) -> Array:
    """Sum scaled copies of the kernel, `strides` apart, and crop the sum: the definition."""
    size, kernel_size = _sizes(x, kernel)
    extents = options.extents(kernel_size)
    shape = [(i - 1) * s + k for i, s, k in zip(size, options.strides, extents, strict=True)]
    canvas = np.zeros((x.shape[0], *shape, kernel.shape[2]), np.result_type(x, kernel))
    for _, corner, copy in scaled_copies(x, kernel, options):
        rows, columns = options.taps(corner, kernel_size)
        canvas[:, rows, columns] += copy
    return cut(canvas, options.crops(size, kernel_size))


def zero_grid(x: Array, kernel: Array, options: ConvOptions) -> Array:
    """Return x with s - 1 zeros between neighbors and rings around, ready for a stride of 1.

    Each side gets k' - 1 rings of zeros less what is cropped there: "padding" in a transposed
    convolution removes rings. A crop beyond the last ring removes elements too.
    """
    size, kernel_size = _sizes(x, kernel)
    spread = [(i - 1) * s + 1 for i, s in zip(size, options.strides, strict=True)]
    grid = np.zeros((x.shape[0], *spread, x.shape[3]), x.dtype)
    grid[:, :: options.strides[0], :: options.strides[1]] = x
    extents, crops = options.extents(kernel_size), options.crops(size, kernel_size)
    rows, columns = ((a - (k - 1), b - (k - 1)) for (a, b), k in zip(crops, extents, strict=True))
    return cut(grid, (rows, columns))


def transpose_by_zeros(x: Array, kernel: Array, options: ConvOptions) -> Array:
    """Insert zeros between and around the elements, then convolve with the flipped kernel."""
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)  # (kh, kw, in, out), as a convolution takes it
    stride_one = ConvOptions(dilation_rate=options.dilation_rate)
    return conv_by_windows(zero_grid(x, kernel, options), flipped, stride_one)


def transpose_by_matrix(x: Array, kernel: Array, options: ConvOptions) -> Array:
    """Multiply the transpose of a convolution's matrix by the elements of x in one column."""
    size, kernel_size = _sizes(x, kernel)
    output = options.transpose_size(size, kernel_size)
    c = _matrix(output, size, kernel, options, options.crops(size, kernel_size))
    flat = x.reshape(x.shape[0], -1) @ c
    return flat.reshape(x.shape[0], *output, kernel.shape[2])


def transpose_by_keras(x: Array, kernel: Array, options: ConvOptions) -> Array:
    """Run the installed Keras' Conv2DTranspose; imports TensorFlow.

    A number as padding, which Keras lacks, is padding valid followed by a crop.
    """
    number = isinstance(options.padding, int)
    in_keras = replace(options, padding="valid") if number else options
    result = _run_keras("Conv2DTranspose", kernel.shape[2], x, kernel, in_keras)
    wanted, done = (o.crops(*_sizes(x, kernel)) for o in (options, in_keras))
    rows, columns = ((a - c, b - d) for (a, b), (c, d) in zip(wanted, done, strict=True))
    return cut(result, (rows, columns))


# ---- methods of the convolution: x (n, h, w, in), kernel (kh, kw, in, out) ---------------------


def conv_by_windows(x: Array, kernel: Array, options: ConvOptions) -> Array:
    """Sum a window of the padded input times the kernel for each output: the definition."""
    padded, shape = _padded(x, kernel, options)
    result = np.zeros((x.shape[0], *shape, kernel.shape[3]), np.result_type(x, kernel))
    for row, column in np.ndindex(shape):
        corner = row * options.strides[0], column * options.strides[1]
        rows, columns = options.taps(corner, _sizes(x, kernel)[1])
        result[:, row, column] = np.einsum("nhwi,hwio->no", padded[:, rows, columns], kernel)
    return result


def conv_by_taps(x: Array, kernel: Array, options: ConvOptions) -> Array:
    """Sum over the taps: every s-th element of the shifted input times one weight."""
    padded, shape = _padded(x, kernel, options)
    result = np.zeros((x.shape[0], *shape, kernel.shape[3]), np.result_type(x, kernel))
    for tap in np.ndindex(kernel.shape[0], kernel.shape[1]):
        rows, columns = (
            slice(i * d, i * d + (n - 1) * s + 1, s)
            for i, d, n, s in zip(tap, options.dilation_rate, shape, options.strides, strict=True)
        )
        result += np.einsum("nhwi,io->nhwo", padded[:, rows, columns], kernel[tap])
    return result


def conv_matrix(size: Pair, kernel: Array, options: ConvOptions) -> Array:
    """Return C, with one row for each output number and one column for each input number."""
    kernel_size = kernel.shape[0], kernel.shape[1]
    pads = options.conv_pads(size, kernel_size)
    # The matrix of a convolution is that of a transposed one with a as its output channels.
    return _matrix(size, options.conv_size(size, kernel_size), kernel, options, pads)


def conv_by_matrix(x: Array, kernel: Array, options: ConvOptions) -> Array:
    """Multiply the convolution's matrix C by the elements of x in one column."""
    size, kernel_size = _sizes(x, kernel)
    flat = x.reshape(x.shape[0], -1) @ conv_matrix(size, kernel, options).T
    return flat.reshape(x.shape[0], *options.conv_size(size, kernel_size), kernel.shape[3])


def conv_by_keras(x: Array, kernel: Array, options: ConvOptions) -> Array:
    """Run the installed Keras' Conv2D; imports TensorFlow."""
    if isinstance(options.padding, int):
        x, _ = _padded(x, kernel, options)
        options = replace(options, padding="valid")
    return _run_keras("Conv2D", kernel.shape[3], x, kernel, options)


TRANSPOSE_METHODS: dict[str, Method] = {
    "scaled copies": transpose_by_copies,
    "zeros and a convolution": transpose_by_zeros,
    "matrix": transpose_by_matrix,
}
CONV_METHODS: dict[str, Method] = {
    "windows": conv_by_windows,
    "taps": conv_by_taps,
    "matrix": conv_by_matrix,
}


# ---- for arrays of any of the shapes ----------------------------------------------------------


def conv_transpose(
    x: Array,
    kernel: Array,
    options: ConvOptions = DEFAULT_OPTIONS,
    method: Method = transpose_by_copies,
) -> Array:
    """Return the transposed convolution of x.

    Args:
        x: (h, w), (h, w, in) or (n, h, w, in).
        kernel: (kh, kw), or (kh, kw, out, in) as Conv2DTranspose has it.
        options: strides, padding, output_padding and dilation_rate.
        method: One of TRANSPOSE_METHODS, or `transpose_by_keras`.

    Returns:
        An array with as many axes as x, or one more for several output channels of (h, w).

    Raises:
        ConfigError: Keras refuses the options, or the channels do not match.
    """
    return _run(x, kernel, options, method, "h, w, out, in")


def conv(
    x: Array,
    kernel: Array,
    options: ConvOptions = DEFAULT_OPTIONS,
    method: Method = conv_by_windows,
) -> Array:
    """Return the convolution of x (as in all of deep learning: without flipping the kernel).

    Args:
        x: (h, w), (h, w, in) or (n, h, w, in).
        kernel: (kh, kw), or (kh, kw, in, out) as Conv2D has it.
        options: strides, padding and dilation_rate.
        method: One of CONV_METHODS, or `conv_by_keras`.

    Returns:
        An array with as many axes as x, or one more for several output channels of (h, w).

    Raises:
        ConfigError: Keras refuses the options, or the channels do not match.
    """
    return _run(x, kernel, options, method, CONV_LAYOUT)


def _run(x: Array, kernel: Array, options: ConvOptions, method: Method, layout: str) -> Array:
    """Check the arguments, and run a method with four axes for both arrays."""
    for name, array, allowed in (("input", x, (2, 3, 4)), ("kernel", kernel, (2, 4))):
        if array.ndim not in allowed or 0 in array.shape:
            raise ConfigError(
                f"the {name} must have {' or '.join(map(str, allowed))} axes. "
                f"Received the shape: {array.shape}"
            )
    batch = x[None, :, :, None] if x.ndim == 2 else x[None] if x.ndim == 3 else x
    weights = kernel[:, :, None, None] if kernel.ndim == 2 else kernel
    channels = weights.shape[layout.split(", ").index("in")]
    if batch.shape[3] != channels:
        raise ConfigError(
            f"the kernel {weights.shape} is ({layout}) and takes {channels} channels. "
            f"Received an input of: {batch.shape[3]}"
        )
    check = options.check_conv if layout == CONV_LAYOUT else options.check_transpose
    check(*_sizes(batch, weights))
    result = method(batch, weights, options)
    if x.ndim == 2 and result.shape[3] == 1:
        return result[0, :, :, 0]
    return result if x.ndim == 4 else result[0]


def _sizes(x: Array, kernel: Array) -> tuple[Pair, Pair]:
    """Return the rows and columns of x (n, h, w, c), and those of the kernel."""
    return (x.shape[1], x.shape[2]), (kernel.shape[0], kernel.shape[1])


def _padded(x: Array, kernel: Array, options: ConvOptions) -> tuple[Array, Pair]:
    """Return the padded input of a convolution, and the size of its output."""
    size, kernel_size = _sizes(x, kernel)
    padded = np.pad(x, [(0, 0), *options.conv_pads(size, kernel_size), (0, 0)])
    return padded, options.conv_size(size, kernel_size)


def _matrix(large: Pair, small: Pair, kernel: Array, options: ConvOptions, before: Pairs) -> Array:
    """Return C of shape (small * b, large * a) for a kernel (h, w, a, b).

    Element p of the small image and element q of the large one meet in tap t where
    q = s p + d t - before.
    """
    c = np.zeros((*small, kernel.shape[3], *large, kernel.shape[2]), kernel.dtype)
    for p in np.ndindex(small):
        for t in np.ndindex(kernel.shape[0], kernel.shape[1]):
            row, column = (
                p[a] * options.strides[a] + t[a] * options.dilation_rate[a] - before[a][0]
                for a in (0, 1)
            )
            if 0 <= row < large[0] and 0 <= column < large[1]:
                c[p[0], p[1], :, row, column, :] = kernel[t].T
    return c.reshape(small[0] * small[1] * kernel.shape[3], -1)


def _run_keras(name: str, filters: int, x: Array, kernel: Array, options: ConvOptions) -> Array:
    from convae.runtime.backend import keras

    keywords = vars(options) | {"use_bias": False}
    keywords |= {"dtype": "float32", "data_format": "channels_last"}
    if name == "Conv2D":
        del keywords["output_padding"]
    layer = getattr(keras.layers, name)(filters, kernel.shape[:2], **keywords)
    layer.build(x.shape)
    layer.set_weights([kernel.astype("float32")])
    return np.asarray(layer(x.astype("float32")))
