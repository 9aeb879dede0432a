"""Convolution and transposed convolution from their definitions, each in four ways.

Arrays are NumPy's and keep their type, so whole numbers stay exact. Images have the shape (h, w),
(h, w, channels) or (n, h, w, channels); kernels have Keras' layouts: (h, w, in, out) for Conv2D and
(h, w, OUT, in) for Conv2DTranspose, or plain (h, w). One array therefore serves both a convolution
and its transpose: C has the kernel (h, w, a, b), takes a channels to b, and C^T takes b back to a.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convae.errors import ConfigError
from convae.layers import arithmetic as sizes

Array = NDArray[Any]
Pair = tuple[int, int]


@dataclass(frozen=True)
class ConvOptions:
    """The options of one layer, by Keras' names; a number as padding is PyTorch's."""

    strides: Pair = (1, 1)
    padding: sizes.Padding | int = "valid"
    output_padding: Pair | None = None
    dilation_rate: Pair = (1, 1)

    def axis(self, axis: int, kernel_size: int) -> dict[str, Any]:
        """The options along one axis, as the functions of sizes.py take them."""
        return {
            "kernel_size": kernel_size,
            "strides": self.strides[axis],
            "padding": self.padding,
            "output_padding": self.output_padding and self.output_padding[axis],
            "dilation_rate": self.dilation_rate[axis],
        }

    def check(self, size: Pair, kernel_size: Pair) -> None:
        """Raise ConfigError, with the reason, exactly where Conv2DTranspose refuses to run."""
        for axis in (0, 1):
            if text := sizes.problem(size[axis], **self.axis(axis, kernel_size[axis])):
                raise ConfigError(text)
        self._one_of_strides_and_dilation()

    def check_conv(self, size: Pair, kernel_size: Pair) -> None:
        """Raise ConfigError, with the reason, exactly where Conv2D refuses to run."""
        if self.output_padding is not None:
            raise ConfigError("output_padding belongs to a transposed convolution; leave it away")
        if isinstance(self.padding, int) and self.padding < 0:
            raise ConfigError(f"padding must be 0 or more. Received: {self.padding}")
        for axis in (0, 1):
            options = self.axis(axis, kernel_size[axis])
            del options["output_padding"]
            before, after = sizes.conv_padding(size[axis], **options)
            extent = sizes.extent(kernel_size[axis], self.dilation_rate[axis])
            if sizes.conv_size(size[axis], **options) < 1:
                raise ConfigError(
                    f"the kernel covers {extent} pixels and is larger than its padded input of "
                    f"{size[axis] + before + after}; use a smaller kernel or padding same"
                )
        self._one_of_strides_and_dilation()

    def _one_of_strides_and_dilation(self) -> None:
        for name in ("strides", "dilation_rate"):
            if min(getattr(self, name)) < 1:
                raise ConfigError(f"{name} must be 1 or more. Received: {getattr(self, name)}")
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:  # Keras looks across the axes
            raise ConfigError(
                "strides and dilation_rate cannot both be above 1 (Keras refuses it). "
                f"Received: strides {self.strides}, dilation_rate {self.dilation_rate}"
            )

    def crops(self, size: Pair, kernel_size: Pair) -> tuple[Pair, Pair]:
        """What is taken off the canvas: ((top, bottom), (left, right)); negative: zeros put on."""
        rows, columns = (
            sizes.crop(size[axis], **self.axis(axis, kernel_size[axis])) for axis in (0, 1)
        )
        return rows, columns

    def conv_pads(self, size: Pair, kernel_size: Pair) -> tuple[Pair, Pair]:
        """Zeros that a convolution puts around its input: ((top, bottom), (left, right))."""
        rows, columns = (
            sizes.conv_padding(
                size[axis],
                kernel_size[axis],
                self.strides[axis],
                self.padding,
                self.dilation_rate[axis],
            )
            for axis in (0, 1)
        )
        return rows, columns


DEFAULT_OPTIONS = ConvOptions()


def cut(canvas: Array, crops: tuple[Pair, Pair]) -> Array:
    """The canvas (n, H, W, c) without its crops; a negative crop puts zeros on."""
    pads = [(0, 0), *((max(-a, 0), max(-b, 0)) for a, b in crops), (0, 0)]
    canvas = np.pad(canvas, pads)
    rows, columns = (
        slice(max(a, 0), canvas.shape[axis + 1] - max(b, 0)) for axis, (a, b) in enumerate(crops)
    )
    return canvas[:, rows, columns]


# ---- the transposed convolution, four ways ----------------------------------------------------


def copies(x: Array, kernel: Array, setting: ConvOptions) -> Iterator[tuple[Pair, Pair, Array]]:
    """Each element's scaled copy of the kernel: (its place in x, its place on the canvas, copy).

    x is (n, h, w, in), the kernel (kh, kw, out, in), a copy (n, kh, kw, out).
    """
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            place = row * setting.strides[0], column * setting.strides[1]
            yield (row, column), place, np.einsum("ni,hwoi->nhwo", x[:, row, column], kernel)


def transpose_by_copies(x: Array, kernel: Array, setting: ConvOptions) -> Array:
    """The definition: scaled copies of the kernel, s apart, summed on a canvas, which is cut.

    x is (n, h, w, in), the kernel (kh, kw, out, in); the result (n, H, W, out).
    """
    size, reach = x.shape[1:3], _extents(kernel, setting)
    shape = [(i - 1) * s + k for i, s, k in zip(size, setting.strides, reach, strict=True)]
    canvas = np.zeros((x.shape[0], *shape, kernel.shape[2]), np.result_type(x, kernel))
    for _, (top, left), copy in copies(x, kernel, setting):
        rows = slice(top, top + reach[0], setting.dilation_rate[0])
        columns = slice(left, left + reach[1], setting.dilation_rate[1])
        canvas[:, rows, columns] += copy
    return cut(canvas, setting.crops((size[0], size[1]), kernel.shape[:2]))


def zero_grid(x: Array, kernel: Array, setting: ConvOptions) -> Array:
    """x with s - 1 zeros between neighbors and rings around, so that stride 1 does the rest.

    Each side gets k' - 1 rings of zeros less what is cropped there: "padding" in a transposed
    convolution takes rings away. A crop beyond the last ring takes elements too.
    """
    size, reach = x.shape[1:3], _extents(kernel, setting)
    spread = [(i - 1) * s + 1 for i, s in zip(size, setting.strides, strict=True)]
    grid = np.zeros((x.shape[0], *spread, x.shape[3]), x.dtype)
    grid[:, :: setting.strides[0], :: setting.strides[1]] = x
    crops = setting.crops((size[0], size[1]), kernel.shape[:2])
    rows, columns = ((a - (k - 1), b - (k - 1)) for (a, b), k in zip(crops, reach, strict=True))
    return cut(grid, (rows, columns))


def transpose_by_zeros(x: Array, kernel: Array, setting: ConvOptions) -> Array:
    """Zeros put between and around the elements, then a convolution with the flipped kernel."""
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)  # (kh, kw, in, out), as a convolution wants it
    plain = ConvOptions(dilation_rate=setting.dilation_rate)
    return conv_by_windows(zero_grid(x, kernel, setting), flipped, plain)


def transpose_by_matrix(x: Array, kernel: Array, setting: ConvOptions) -> Array:
    """The transpose of a convolution's matrix, times the elements of x in one column."""
    size = x.shape[1:3]
    output = tuple(
        sizes.conv_transpose_size(size[a], **setting.axis(a, kernel.shape[a])) for a in (0, 1)
    )
    crops = setting.crops((size[0], size[1]), kernel.shape[:2])
    c = _matrix((output[0], output[1]), (size[0], size[1]), kernel, setting, crops)
    flat = x.reshape(x.shape[0], -1) @ c
    return flat.reshape(x.shape[0], *output, kernel.shape[2])


def transpose_by_keras(x: Array, kernel: Array, setting: ConvOptions) -> Array:
    """The installed Keras' own Conv2DTranspose; imports TensorFlow.

    A number as padding, which Keras lacks, is padding valid with a cut behind it.
    """
    import keras

    number = setting.padding not in ("valid", "same")
    layer = keras.layers.Conv2DTranspose(
        kernel.shape[2],
        kernel.shape[:2],
        strides=setting.strides,
        padding="valid" if number else setting.padding,
        output_padding=setting.output_padding,
        dilation_rate=setting.dilation_rate,
        use_bias=False,
    )
    result = _run(layer, x, kernel)
    if not number:
        return result
    plain = ConvOptions(setting.strides, "valid", setting.output_padding, setting.dilation_rate)
    size = x.shape[1], x.shape[2]
    wanted, kept = (s.crops(size, kernel.shape[:2]) for s in (setting, plain))
    rows, columns = ((a - c, b - d) for (a, b), (c, d) in zip(wanted, kept, strict=True))
    return cut(result, (rows, columns))


# ---- the convolution, four ways ---------------------------------------------------------------


def conv_by_windows(x: Array, kernel: Array, setting: ConvOptions) -> Array:
    """The definition: each output is the sum of a window of the padded input times the kernel.

    x is (n, h, w, in), the kernel (kh, kw, in, out); the result (n, H, W, out).
    """
    padded, shape = _padded(x, kernel, setting)
    result = np.zeros((x.shape[0], *shape, kernel.shape[3]), np.result_type(x, kernel))
    reach = _extents(kernel, setting)
    for row in range(shape[0]):
        for column in range(shape[1]):
            top, left = row * setting.strides[0], column * setting.strides[1]
            rows = slice(top, top + reach[0], setting.dilation_rate[0])
            columns = slice(left, left + reach[1], setting.dilation_rate[1])
            window = padded[:, rows, columns]
            result[:, row, column] = np.einsum("nhwi,hwio->no", window, kernel)
    return result


def conv_by_taps(x: Array, kernel: Array, setting: ConvOptions) -> Array:
    """Tap by tap: the padded input, shifted and thinned out to every s-th, times one weight."""
    padded, shape = _padded(x, kernel, setting)
    result = np.zeros((x.shape[0], *shape, kernel.shape[3]), np.result_type(x, kernel))
    for i, j in np.ndindex(kernel.shape[0], kernel.shape[1]):
        top, left = i * setting.dilation_rate[0], j * setting.dilation_rate[1]
        rows = slice(top, top + (shape[0] - 1) * setting.strides[0] + 1, setting.strides[0])
        columns = slice(left, left + (shape[1] - 1) * setting.strides[1] + 1, setting.strides[1])
        result += np.einsum("nhwi,io->nhwo", padded[:, rows, columns], kernel[i, j])
    return result


def conv_matrix(size: Pair, kernel: Array, setting: ConvOptions) -> Array:
    """C, with one row for each number that comes out and one column for each that goes in."""
    pads = setting.conv_pads(size, kernel.shape[:2])
    shape = _conv_shape(size, kernel, setting)
    # the matrix of a convolution is that of a transposed one with a as its output channels
    return _matrix(size, shape, kernel, setting, pads)


def conv_by_matrix(x: Array, kernel: Array, setting: ConvOptions) -> Array:
    """The convolution's matrix C times the elements of x in one column."""
    size = x.shape[1], x.shape[2]
    flat = x.reshape(x.shape[0], -1) @ conv_matrix(size, kernel, setting).T
    return flat.reshape(x.shape[0], *_conv_shape(size, kernel, setting), kernel.shape[3])


def conv_by_keras(x: Array, kernel: Array, setting: ConvOptions) -> Array:
    """The installed Keras' own Conv2D; imports TensorFlow."""
    import keras

    size = x.shape[1], x.shape[2]
    number = setting.padding not in ("valid", "same")
    if number:
        x = np.pad(x, [(0, 0), *setting.conv_pads(size, kernel.shape[:2]), (0, 0)])
    layer = keras.layers.Conv2D(
        kernel.shape[3],
        kernel.shape[:2],
        strides=setting.strides,
        padding="valid" if number else setting.padding,
        dilation_rate=setting.dilation_rate,
        use_bias=False,
    )
    return _run(layer, x, kernel)


Operation = Callable[[Array, Array, ConvOptions], Array]
TRANSPOSE_METHODS: dict[str, Operation] = {
    "scaled copies": transpose_by_copies,
    "zeros and a convolution": transpose_by_zeros,
    "matrix": transpose_by_matrix,
}
CONV_METHODS: dict[str, Operation] = {
    "windows": conv_by_windows,
    "taps": conv_by_taps,
    "matrix": conv_by_matrix,
}


# ---- for arrays of any of the shapes ----------------------------------------------------------


def conv_transpose(
    x: Array,
    kernel: Array,
    setting: ConvOptions = DEFAULT_OPTIONS,
    method: Operation = transpose_by_copies,
) -> Array:
    """The transposed convolution of x, in x's own number of axes.

    Raises ConfigError where Keras would refuse the setting and where channels do not match.
    """
    batch, weights = _four(x, kernel)
    if batch.shape[3] != weights.shape[3]:
        raise ConfigError(
            f"the kernel {weights.shape} is (h, w, out, in) and takes {weights.shape[3]} channels, "
            f"but the input has {batch.shape[3]}"
        )
    setting.check((batch.shape[1], batch.shape[2]), (weights.shape[0], weights.shape[1]))
    return _back(method(batch, weights, setting), x.ndim)


def conv(
    x: Array,
    kernel: Array,
    setting: ConvOptions = DEFAULT_OPTIONS,
    method: Operation = conv_by_windows,
) -> Array:
    """The convolution of x (as in all of deep learning: without flipping the kernel).

    Raises ConfigError where Keras would refuse the setting and where channels do not match.
    """
    batch, weights = _four(x, kernel)
    if batch.shape[3] != weights.shape[2]:
        raise ConfigError(
            f"the kernel {weights.shape} is (h, w, in, out) and takes {weights.shape[2]} channels, "
            f"but the input has {batch.shape[3]}"
        )
    setting.check_conv((batch.shape[1], batch.shape[2]), (weights.shape[0], weights.shape[1]))
    return _back(method(batch, weights, setting), x.ndim)


def _four(x: Array, kernel: Array) -> tuple[Array, Array]:
    for name, array, allowed in (("input", x, (2, 3, 4)), ("kernel", kernel, (2, 4))):
        if array.ndim not in allowed or 0 in array.shape:
            raise ConfigError(f"the {name} has the shape {array.shape}; its axes must be {allowed}")
    batch = x[None, :, :, None] if x.ndim == 2 else x[None] if x.ndim == 3 else x
    return batch, kernel[:, :, None, None] if kernel.ndim == 2 else kernel


def _back(result: Array, axes: int) -> Array:
    if axes == 2:
        return result[0, :, :, 0] if result.shape[3] == 1 else result[0]
    return result[0] if axes == 3 else result


def _extents(kernel: Array, setting: ConvOptions) -> Pair:
    rows, columns = (sizes.extent(kernel.shape[a], setting.dilation_rate[a]) for a in (0, 1))
    return rows, columns


def _conv_shape(size: Pair, kernel: Array, setting: ConvOptions) -> Pair:
    rows, columns = (
        sizes.conv_size(
            size[a], kernel.shape[a], setting.strides[a], setting.padding, setting.dilation_rate[a]
        )
        for a in (0, 1)
    )
    return rows, columns


def _padded(x: Array, kernel: Array, setting: ConvOptions) -> tuple[Array, Pair]:
    size = x.shape[1], x.shape[2]
    pads = setting.conv_pads(size, kernel.shape[:2])
    return np.pad(x, [(0, 0), *pads, (0, 0)]), _conv_shape(size, kernel, setting)


def _matrix(
    large: Pair, small: Pair, kernel: Array, setting: ConvOptions, before: tuple[Pair, Pair]
) -> Array:
    """C of shape (small * b, large * a) for a kernel (h, w, a, b): element p of the small image
    and element q of the large one meet in tap t where q = s p + d t - before."""
    c = np.zeros((*small, kernel.shape[3], *large, kernel.shape[2]), kernel.dtype)
    for p in np.ndindex(small):
        for t in np.ndindex(kernel.shape[0], kernel.shape[1]):
            row, column = (
                p[a] * setting.strides[a] + t[a] * setting.dilation_rate[a] - before[a][0]
                for a in (0, 1)
            )
            if 0 <= row < large[0] and 0 <= column < large[1]:
                c[p[0], p[1], :, row, column, :] = kernel[t].T
    rows = small[0] * small[1] * kernel.shape[3]
    return c.reshape(rows, -1)


def _run(layer: Any, x: Array, kernel: Array) -> Array:
    layer.build(x.shape)
    layer.set_weights([kernel.astype("float32")])
    return np.asarray(layer(x.astype("float32")))
