"""What transposed convolutions do: the adjoint, overlap, checkerboards, upsampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from convae.errors import ConfigError
from convae.explain import operation as transpose
from convae.explain.operation import DEFAULT_OPTIONS, Array, ConvOptions, Pair
from convae.layers import summary as ledger

if TYPE_CHECKING:
    from convae.layers.spec import Model

MOST = 400  # numbers in x: C has as many columns, and its pseudo-inverse is dear

# ---- not an inverse, but the adjoint ------------------------------------------------------------


@dataclass(frozen=True)
class Adjoint:
    """C x of a convolution C, what C^T and C^+ make of it, and <Cx, y> = <x, C^T y>."""

    x: Array
    kernel: Array
    setting: ConvOptions
    cx: Array  # the convolution of x
    back: Array  # C^T C x: x's size, other numbers
    pseudo: Array  # C^+ C x: the nearest to x that Cx still knows
    y: Array  # any matrix of the size of Cx: 1, 2, 3, ...
    cty: Array  # C^T y
    matrix_shape: Pair  # rows and columns of C
    rank: int

    @property
    def products(self) -> tuple[Any, Any]:
        """<Cx, y> and <x, C^T y>: equal for whatever x and y."""
        return (self.cx * self.y).sum().item(), (self.x * self.cty).sum().item()


def adjoint(x: Array, kernel: Array, setting: ConvOptions = DEFAULT_OPTIONS) -> Adjoint:
    """All of `Adjoint` for a matrix x and a kernel; ConfigError where Conv2D refuses."""
    if x.size > MOST:
        raise ConfigError(
            f"input: a pseudo-inverse takes at most {MOST} numbers. Received: {x.size}"
        )
    cx = transpose.conv(x, kernel, setting)
    size = x.shape[0], x.shape[1]
    c = transpose.conv_matrix(size, kernel[:, :, None, None], setting)
    y = np.arange(1, cx.size + 1).reshape(cx.shape)
    inverse = np.linalg.pinv(c.astype(float))
    return Adjoint(
        x,
        kernel,
        setting,
        cx,
        back=(c.T @ cx.ravel()).reshape(x.shape),
        pseudo=(inverse @ cx.ravel()).reshape(x.shape),
        y=y,
        cty=(c.T @ y.ravel()).reshape(x.shape),
        matrix_shape=(c.shape[0], c.shape[1]),
        rank=int(np.linalg.matrix_rank(c.astype(float))),
    )


# ---- overlap ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Overlap:
    """How often kernel copies meet behind one layer of a decoder."""

    name: str
    transposed: bool
    even: bool
    own: Array  # (H, W) copies of this layer's kernel in each pixel; 0 is a pixel of bias alone
    through: Array  # (H, W) of 0..1: paths from the code to each pixel, the most being 1


def overlaps(model: Model) -> list[Overlap]:
    """The overlap maps of a config's decoder, layer by layer, for a channel of equal weights."""
    names = ledger.layer_names(model.layers)[len(model.encoder) :]
    rows = ledger.layer_rows(model.input_shape, model.layers)
    shape = rows[len(model.encoder) - 1].output_shape
    paths = np.ones((1, shape[0], shape[1], 1))
    found = []
    for name, layer, row in zip(names, model.decoder, rows[len(model.encoder) :], strict=True):
        kernel = np.ones((*layer.kernel_size, 1, 1))
        transposed = layer.type == "conv_transpose"
        grows = layer.type in {"resize_conv", "depth_to_space"}
        setting = ConvOptions(
            (1, 1) if grows else layer.strides,
            layer.padding,
            getattr(layer, "output_padding", None),
            layer.dilation_rate,
        )
        run = transpose.transpose_by_copies if transposed else transpose.conv_by_taps
        before = _repeated(paths, layer.strides) if layer.type == "resize_conv" else paths
        own = run(np.ones_like(before), kernel, setting)
        paths = run(before, kernel, setting)
        if layer.type == "depth_to_space":
            own, paths = _repeated(own, layer.strides), _repeated(paths, layer.strides)
        own, paths = own[0, :, :, 0], paths / max(paths.max(), 1)
        found.append(Overlap(name, transposed, row.even, own, paths[0, :, :, 0]))
    return found


def _repeated(maps: Array, times: tuple[int, int]) -> Array:
    """Each pixel of (N, H, W, C) maps as a block of `times` equal ones."""
    return maps.repeat(times[0], axis=1).repeat(times[1], axis=2)


def period(model: Model) -> int:
    """The longest period, in pixels, of a checkerboard that this decoder can draw and one can see.

    That is the product of its last strides; of a decoder without strides it is 2, to compare with.
    """
    longest = 1
    for layer in reversed(model.decoder):
        if layer.type != "conv":
            step = longest * max(layer.strides)
            longest = step if min(model.input_shape[:2]) >= 4 * step else longest
    return max(longest, 2)


def spectrum(images: Array) -> Array:
    """The mean power of (N, H, W) images at each frequency, the lowest in the middle; (H, W)."""
    zero_center = images - images.mean(axis=(1, 2), keepdims=True)
    power = np.abs(np.fft.fft2(zero_center)) ** 2
    mean: Array = np.fft.fftshift(power.mean(axis=0))
    return mean


def stride_peak(images: Array, stride: int) -> float:
    """How far the power at the stride's frequency stands out of its neighbors; 1 is not at all.

    The power at multiples of 1/stride along each axis, over that of the frequencies beside it;
    geometric means all through. Images (N, H, W) are cut to a multiple of the stride.
    """
    height, width = (n - n % stride for n in images.shape[1:])
    if stride < 2 or min(height, width) < 4 * stride:
        raise ConfigError(
            f"no pattern of period {stride} can be seen in images of {images.shape[1]}x"
            f"{images.shape[2]}; it takes a period of 2 or more and images of four times that"
        )
    cut = images[:, :height, :width]
    power = np.abs(np.fft.fft2(cut - cut.mean(axis=(1, 2), keepdims=True))).mean(axis=0) ** 2
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
    """A layer that doubles the size of a (h, w) image: a weighted sum of `basis(image)`."""

    name: str
    taps: int
    basis: Callable[[Array], Array]  # (h, w) -> (taps, 2h, 2w): what each weight alone would give
    equal: Array  # the weights of a plain average

    def apply(self, image: Array, weights: Array) -> Array:
        """The image at twice its size."""
        result: Array = np.tensordot(weights, self.basis(image), 1)
        return result

    def flat(self, weights: Array) -> Array:
        """What (draws, taps) of weights make of a flat input: (draws, 4), a 2x2 block each."""
        block: Array = weights @ self.basis(np.ones((6, 6)))[:, 4:6, 4:6].reshape(self.taps, 4)
        return block

    def contrast(self, weights: Array) -> float:
        """How unequal the pixels of a 2x2 block are on a flat input: 0 alike, up to 1; the mean."""
        blocks = self.flat(np.atleast_2d(weights))
        size = np.maximum(np.sqrt((blocks**2).mean(axis=1)), 1e-12)
        return float((blocks.std(axis=1) / size).mean())


def _transposed(kernel_size: int) -> Upsampler:
    def basis(image: Array) -> Array:
        taps = np.eye(kernel_size**2).reshape(kernel_size, kernel_size, -1, 1)  # a channel a tap
        found = transpose.conv_transpose(image[:, :, None], taps, ConvOptions((2, 2), "same"))
        return np.moveaxis(found, 2, 0)

    equal = np.full(kernel_size**2, 4 / kernel_size**2)  # a flat input keeps its mean
    return Upsampler(f"Conv2DTranspose\nkernel {kernel_size}, strides 2", len(equal), basis, equal)


def _neighbors(image: Array) -> Array:
    """(9, h, w): the image shifted to each place of a 3x3 kernel, its border repeated."""
    padded = np.pad(image, 1, mode="edge")
    rows, columns = image.shape
    return np.stack([padded[i : i + rows, j : j + columns] for i, j in np.ndindex(3, 3)])


def _resized(image: Array) -> Array:
    return _neighbors(np.kron(image, np.ones((2, 2))))


def _rearranged(image: Array) -> Array:
    found = np.zeros((4, 9, 2 * image.shape[0], 2 * image.shape[1]))
    for phase, (i, j) in enumerate(np.ndindex(2, 2)):
        found[phase, :, i::2, j::2] = _neighbors(image)
    return found.reshape(36, *found.shape[2:])


UPSAMPLERS = (
    _transposed(3),
    _transposed(4),
    Upsampler("nearest resize ×2,\nthen Conv2D 3x3", 9, _resized, np.full(9, 1 / 9)),
    Upsampler(
        "Conv2D 3x3 to 4 channels,\nthen depth to space", 36, _rearranged, np.full(36, 1 / 9)
    ),
)


@dataclass(frozen=True)
class Checkerboard:
    """One upsampler with one kind of weights: its picture and how uneven a flat input becomes."""

    name: str
    weights: str  # equal, random or trained
    image: Array  # (2h, 2w)
    contrast: float  # of 0 to 1; the mean over many draws where the weights are random


def checkerboards(seed: int = 0, draws: int = 500) -> list[Checkerboard]:
    """Four ways to double a size, each with equal, random and trained weights.

    Trained: by least squares, to give back smooth 28x28 images from their 2x2 means.
    """
    random = np.random.default_rng(seed)
    image = disc(14)
    lessons = _lessons(random)
    found = []
    for layer in UPSAMPLERS:
        drawn = random.normal(size=(draws, layer.taps))
        bright = drawn[0] * np.sign(layer.flat(drawn[:1]).mean())  # light stays light
        trained = _fitted(layer, lessons)
        found += [
            Checkerboard(
                layer.name, "equal", layer.apply(image, layer.equal), layer.contrast(layer.equal)
            ),
            Checkerboard(layer.name, "random", layer.apply(image, bright), layer.contrast(drawn)),
            Checkerboard(
                layer.name, "trained", layer.apply(image, trained), layer.contrast(trained)
            ),
        ]
    return found


def _lessons(random: np.random.Generator) -> list[tuple[Array, Array]]:
    """Pairs of a small image and the smooth large one that it is the 2x2 mean of."""
    y, x = np.mgrid[0:28, 0:28]
    pairs = []
    for _ in range(8):
        centers, widths = random.uniform(4, 24, (6, 2)), random.uniform(2, 6, 6)
        blobs = [
            np.exp(-((y - a) ** 2 + (x - b) ** 2) / (2 * w * w))
            for (a, b), w in zip(centers, widths, strict=True)
        ]
        large = np.sum(blobs, axis=0)
        pairs.append((large.reshape(14, 2, 14, 2).mean(axis=(1, 3)), large))
    return pairs


def _fitted(layer: Upsampler, lessons: Sequence[tuple[Array, Array]]) -> Array:
    inner = slice(4, -4)  # borders are another matter
    rows = [layer.basis(small)[:, inner, inner].reshape(layer.taps, -1).T for small, _ in lessons]
    wanted = [large[inner, inner].ravel() for _, large in lessons]
    weights: Array = np.linalg.lstsq(np.concatenate(rows), np.concatenate(wanted), rcond=None)[0]
    return weights


# ---- upsampling ---------------------------------------------------------------------------------


def disc(side: int) -> Array:
    """A soft ring on a sloping ground: something smooth to look at. (side, side) of 0..1."""
    y, x = np.mgrid[0:side, 0:side] / (side - 1) * 2 - 1
    ring = np.exp(-(((np.hypot(x, y) - 0.62) / 0.22) ** 2))
    image: Array = 0.15 + 0.7 * ring + 0.15 * (x + y) / 2
    return image


def bilinear_kernel(factor: int) -> Array:
    """The kernel whose transposed convolution with strides `factor` is bilinear upsampling.

    Its size is 2 f - f mod 2, its weights (1 - |t| / f) along each axis (Long et al., "Fully
    convolutional networks for semantic segmentation", 2015).
    """
    size = 2 * factor - factor % 2
    weights = 1 - np.abs(np.arange(size) - (size - 1) / 2) / factor
    return np.outer(weights, weights)


def upscale(image: Array, factor: int) -> Array:
    """Bilinear upsampling of a (h, w) image by the transposed convolution; (h f, w f).

    One ring of repeated border is put on first and comes off last, as resizing functions do.
    """
    wide = transpose.conv_transpose(
        np.pad(image, 1, mode="edge"),
        bilinear_kernel(factor),
        ConvOptions((factor, factor), "same"),
    )
    return wide[factor:-factor, factor:-factor]


def interpolate(image: Array, factor: int) -> Array:
    """The same by interpolation at the centers of the new pixels: what it is compared with."""
    for axis in (0, 1):
        length = image.shape[axis]
        places = (np.arange(length * factor) + 0.5) / factor - 0.5
        image = np.apply_along_axis(
            lambda line: np.interp(places, np.arange(len(line)), line),  # noqa: B023
            axis,
            image,
        )
    return image
