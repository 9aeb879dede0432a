"""What transposed convolutions do: the adjoint, overlap, checkerboards, upsampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from convae.arrays import Array
from convae.errors import ConfigError
from convae.explain import operation
from convae.explain.operation import DEFAULT_OPTIONS, ConvOptions, Pair
from convae.layers.arithmetic import Operation
from convae.layers.summary import ModelSummary

if TYPE_CHECKING:
    from convae.layers.spec import Model

MAX_INPUT = 400  # numbers in x: C has as many columns, and its pseudo-inverse is slow

# ---- not an inverse, but the adjoint ------------------------------------------------------------


@dataclass(frozen=True)
class Adjoint:
    """C x of a convolution C, C^T and C^+ applied to it, and <Cx, y> = <x, C^T y>."""

    x: Array
    kernel: Array
    cx: Array  # the convolution of x
    ctcx: Array  # C^T C x: of x's size, with other numbers
    pseudo: Array  # C^+ C x: the smallest x with the same Cx
    y: Array  # any matrix of the size of Cx: 1, 2, 3, ...
    cty: Array  # C^T y
    matrix_shape: Pair  # rows and columns of C
    rank: int

    @property
    def products(self) -> tuple[Any, Any]:
        """<Cx, y> and <x, C^T y>: equal for every x and y."""
        return (self.cx * self.y).sum().item(), (self.x * self.cty).sum().item()


def adjoint(x: Array, kernel: Array, options: ConvOptions = DEFAULT_OPTIONS) -> Adjoint:
    """Return all of `Adjoint` for a matrix x of at most 400 numbers and a kernel (kh, kw).

    Raises:
        ConfigError: x is larger, or Conv2D refuses the options.
    """
    if x.size > MAX_INPUT:
        raise ConfigError(
            f"input: a pseudo-inverse takes at most {MAX_INPUT} numbers. Received: {x.size}"
        )
    cx = operation.conv(x, kernel, options)
    c = operation.conv_matrix((x.shape[0], x.shape[1]), kernel[:, :, None, None], options)
    y = np.arange(1, cx.size + 1).reshape(cx.shape)
    pseudo_inverse = np.linalg.pinv(c.astype(float))
    return Adjoint(
        x,
        kernel,
        cx,
        ctcx=(c.T @ cx.ravel()).reshape(x.shape),
        pseudo=(pseudo_inverse @ cx.ravel()).reshape(x.shape),
        y=y,
        cty=(c.T @ y.ravel()).reshape(x.shape),
        matrix_shape=(c.shape[0], c.shape[1]),
        rank=int(np.linalg.matrix_rank(c.astype(float))),
    )


# ---- overlap ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Overlap:
    """How many kernel copies overlap in each output pixel of one layer of a decoder."""

    name: str
    uneven: bool  # a checkerboard risk
    own: Array  # (H, W) copies of this layer's kernel in each pixel; 0 is a pixel of bias alone
    through: Array  # (H, W) in [0, 1]: paths from the code to each pixel, relative to the most


def overlaps(model: Model) -> list[Overlap]:
    """Return the overlap maps of a decoder, layer by layer, for a channel of equal weights."""
    summary = ModelSummary(model)
    paths = np.ones((1, *summary.code_shape[:2], 1))
    maps = []
    for layer, row in zip(model.decoder, summary.decoder, strict=True):
        own = np.ones_like(paths)
        for down, across in zip(layer.operations(0), layer.operations(1), strict=True):
            run = operation.transpose_by_copies if down.transposed else operation.conv_by_taps
            options, kernel = _both_axes(down, across)
            own, paths = run(own, kernel, options), run(paths, kernel, options)
        paths = paths / max(paths.max(), 1)
        uneven = row.overlap is not None and not row.even
        maps.append(Overlap(row.name, uneven, own[0, :, :, 0], paths[0, :, :, 0]))
    return maps


def _both_axes(down: Operation, across: Operation) -> tuple[ConvOptions, Array]:
    """Return the options of an operation along both axes, and a kernel of ones for it."""
    extra: Any = tuple(getattr(axis, "output_padding", None) for axis in (down, across))
    options = ConvOptions(
        (down.strides, across.strides),
        down.padding,
        None if None in extra else extra,
        (down.dilation_rate, across.dilation_rate),
    )
    return options, np.ones((down.kernel_size, across.kernel_size, 1, 1))


def period(model: Model) -> int:
    """Return the longest period, in pixels, of a checkerboard that is visible in the output.

    It is the product of the decoder's last upsampling strides; 2 for a decoder without any.
    """
    longest = 1
    for layer in reversed(model.decoder):
        operations = [*layer.operations(0), *layer.operations(1)]
        strides = [o.strides for o in operations if o.transposed]
        step = longest * max(strides, default=1)
        longest = step if min(model.input_shape[:2]) >= 4 * step else longest
    return max(longest, 2)


def spectrum(images: Array) -> Array:
    """Return the mean power of (N, H, W) images by frequency, 0 in the middle; (H, W)."""
    centered = images - images.mean(axis=(1, 2), keepdims=True)
    return np.asarray(np.fft.fftshift((np.abs(np.fft.fft2(centered)) ** 2).mean(axis=0)))


def stride_peak(images: Array, stride: int) -> float:
    """Return the power at a stride's frequency over that of its neighbors; 1 is no peak.

    The power at multiples of 1/stride along each axis, over that of the frequencies beside it;
    geometric means throughout. The images (N, H, W) are cut to a multiple of the stride.

    Raises:
        ConfigError: The stride is 1, or the images are smaller than four strides.
    """
    height, width = (n - n % stride for n in images.shape[1:])
    if stride < 2 or min(height, width) < 4 * stride:
        raise ConfigError(
            f"no pattern of period {stride} is visible in images of {images.shape[1]}x"
            f"{images.shape[2]}; use a period of 2 or more and images of four times that"
        )
    images = images[:, :height, :width]
    power = np.abs(np.fft.fft2(images - images.mean(axis=(1, 2), keepdims=True))).mean(axis=0) ** 2
    ratios = []
    for profile in (power.sum(axis=1), power.sum(axis=0)):
        step = len(profile) // stride
        for peak in range(step, len(profile) // 2 + 1, step):
            beside = profile[peak - 1] * profile[(peak + 1) % len(profile)]
            ratios.append(profile[peak] / max(float(np.sqrt(beside)), 1e-30))
    return float(np.exp(np.mean(np.log(np.maximum(ratios, 1e-30)))))


# ---- checkerboards ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Upsampler:
    """A layer of one channel that doubles an image's size, linear in its weights."""

    name: str
    basis: Callable[[Array], Array]  # an image (h, w) to (weights, 2h, 2w), one output a weight
    equal: Array  # equal weights that keep the mean of a flat input

    def apply(self, image: Array, weights: Array) -> Array:
        """Return the layer's output (2h, 2w) for an image (h, w)."""
        return np.asarray(np.tensordot(weights, self.basis(image), 1))

    def flat_blocks(self, weights: Array) -> Array:
        """Return the inner 2x2 block of the output for a flat input: (draws, 4)."""
        corner = self.basis(np.ones((6, 6)))[:, 4:6, 4:6]
        return np.asarray(np.atleast_2d(weights) @ corner.reshape(len(self.equal), 4))

    def contrast(self, weights: Array) -> float:
        """Return how unequal the pixels of a 2x2 block are on a flat input: 0 to 1, the mean."""
        blocks = self.flat_blocks(weights)
        size = np.maximum(np.sqrt((blocks**2).mean(axis=1)), 1e-12)
        return float((blocks.std(axis=1) / size).mean())


def _transposed(kernel_size: int) -> Upsampler:
    count = kernel_size**2

    def basis(image: Array) -> Array:
        kernel = np.eye(count).reshape(kernel_size, kernel_size, count, 1)  # a channel a weight
        result = operation.conv_transpose(image[:, :, None], kernel, ConvOptions((2, 2), "same"))
        return np.moveaxis(result, 2, 0)

    name = f"Conv2DTranspose\nkernel {kernel_size}, strides 2"
    return Upsampler(name, basis, np.full(count, 4 / count))


def _neighbors(image: Array) -> Array:
    """Return (9, h, w): the image shifted to each tap of a 3x3 kernel, its border repeated."""
    padded = np.pad(image, 1, mode="edge")
    rows, columns = image.shape
    return np.stack([padded[i : i + rows, j : j + columns] for i, j in np.ndindex(3, 3)])


def _resize_basis(image: Array) -> Array:
    return _neighbors(np.kron(image, np.ones((2, 2))))


def _depth_to_space_basis(image: Array) -> Array:
    result = np.zeros((4, 9, 2 * image.shape[0], 2 * image.shape[1]))
    for phase, (i, j) in enumerate(np.ndindex(2, 2)):
        result[phase, :, i::2, j::2] = _neighbors(image)
    return result.reshape(36, *result.shape[2:])


UPSAMPLERS = (
    _transposed(3),
    _transposed(4),
    Upsampler("nearest resize ×2,\nthen Conv2D 3x3", _resize_basis, np.full(9, 1 / 9)),
    Upsampler(
        "Conv2D 3x3 to 4 channels,\nthen depth to space", _depth_to_space_basis, np.full(36, 1 / 9)
    ),
)


@dataclass(frozen=True)
class Checkerboard:
    """One upsampler with one kind of weights: its output and its contrast on a flat input."""

    name: str
    weights: str  # equal, random or trained
    image: Array  # (2h, 2w)
    contrast: float  # 0 to 1; the mean over many draws where the weights are random


def checkerboards(seed: int = 0, draws: int = 500) -> list[Checkerboard]:
    """Compare four layers that double a size, each with equal, random and trained weights.

    Trained: by least squares, to restore smooth 28x28 images from their 2x2 means.
    """
    random = np.random.default_rng(seed)
    image = ring_image(14)
    pairs = _training_pairs(random)
    results = []
    for layer in UPSAMPLERS:
        drawn = random.normal(size=(draws, len(layer.equal)))
        bright = drawn[0] * np.sign(layer.flat_blocks(drawn[0]).mean())  # light stays light
        trained = _fit(layer, pairs)
        for kind, weights, samples in (
            ("equal", layer.equal, layer.equal),
            ("random", bright, drawn),
            ("trained", trained, trained),
        ):
            output, contrast = layer.apply(image, weights), layer.contrast(samples)
            results.append(Checkerboard(layer.name, kind, output, contrast))
    return results


def _training_pairs(random: np.random.Generator) -> list[tuple[Array, Array]]:
    """Return eight pairs: the 2x2 means (14, 14) of a smooth image, and the image (28, 28)."""
    y, x = np.mgrid[0:28, 0:28]
    pairs = []
    for _ in range(8):
        a, b = random.uniform(4, 24, (6, 2)).T[:, :, None, None]  # the centers of six blobs
        w = random.uniform(2, 6, (6, 1, 1))
        large = np.exp(-((y - a) ** 2 + (x - b) ** 2) / (2 * w * w)).sum(axis=0)
        pairs.append((large.reshape(14, 2, 14, 2).mean(axis=(1, 3)), large))
    return pairs


def _fit(layer: Upsampler, pairs: Sequence[tuple[Array, Array]]) -> Array:
    inner = slice(4, -4)  # without the borders
    bases = [layer.basis(small)[:, inner, inner] for small, _ in pairs]
    inputs = np.concatenate([basis.reshape(len(basis), -1) for basis in bases], axis=1)
    targets = np.concatenate([large[inner, inner].ravel() for _, large in pairs])
    return np.asarray(np.linalg.lstsq(inputs.T, targets, rcond=None)[0])


# ---- upsampling ---------------------------------------------------------------------------------


def ring_image(side: int) -> Array:
    """Return a soft ring on a sloping ground, (side, side) in [0, 1]."""
    y, x = np.mgrid[0:side, 0:side] / (side - 1) * 2 - 1
    ring = np.exp(-(((np.hypot(x, y) - 0.62) / 0.22) ** 2))
    return np.asarray(0.15 + 0.7 * ring + 0.15 * (x + y) / 2)


def bilinear_kernel(factor: int) -> Array:
    """Return the kernel whose transposed convolution with strides `factor` is bilinear upsampling.

    Its size is 2 f - f mod 2, its weights (1 - |t| / f) along each axis (Long et al., "Fully
    convolutional networks for semantic segmentation", 2015).
    """
    size = 2 * factor - factor % 2
    weights = 1 - np.abs(np.arange(size) - (size - 1) / 2) / factor
    return np.outer(weights, weights)


def upsample_bilinear(image: Array, factor: int) -> Array:
    """Upsample an image (h, w) by the transposed convolution; (h f, w f).

    One ring of repeated border is added first and removed last, as resizing functions do.
    """
    options = ConvOptions((factor, factor), "same")
    wide = operation.conv_transpose(np.pad(image, 1, mode="edge"), bilinear_kernel(factor), options)
    return wide[factor:-factor, factor:-factor]


def interpolate(image: Array, factor: int) -> Array:
    """Upsample an image (h, w) by linear interpolation at the centers of the new pixels."""
    for axis in (0, 1):
        length = image.shape[axis]
        places = (np.arange(length * factor) + 0.5) / factor - 0.5
        image = np.apply_along_axis(partial(np.interp, places, np.arange(length)), axis, image)
    return image
