"""Pictures of the effects: the adjoint, overlap, checkerboards, upsampling, spectra."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from convae.console import format_shape
from convae.explain import effects
from convae.explain.cell_grid import Band, Grid, lay_out, tint
from convae.explain.operation import Array, ConvOptions, conv_transpose
from convae.plots import style
from convae.plots.style import BLUE, GRAY, GREEN, MARGIN, ORANGE, SKY, VERMILION

TILE, GAP = 168.0, 20.0


@style.applied()
def adjoint(case: effects.Adjoint) -> Figure:
    """x, Cx, C^T C x and the pseudo-inverse side by side, and the two inner products."""
    side = float(np.clip(560 / (3 * case.x.shape[1] + case.cx.shape[1]), 12, 40))
    sky, green, warm = tint(SKY, 0.22), tint(GREEN, 0.14), tint(ORANGE, 0.3)
    first, second = case.products
    rows, columns = case.matrix_shape
    bands: list[Band] = [
        (
            "Back to the size, not to the numbers",
            [
                Grid(case.x, "x", sky, side=side),
                Grid(case.kernel, "kernel", side=side),
                Grid(case.cx, "Cx", green, side=side),
                Grid(case.back, "Cᵀ C x", tint(VERMILION, 0.2), side=side),
                Grid(case.pseudo, "C⁺ C x", warm, side=side),
            ],
        ),
        (
            f"Yet the adjoint: ⟨Cx, y⟩ = {first:g} and ⟨x, Cᵀy⟩ = {second:g}, for any y, like this",
            [Grid(case.y, "y", green, side=side), Grid(case.cty, "Cᵀ y", sky, side=side)],
        ),
    ]
    text = (
        f"C is a matrix of {rows}x{columns} with rank {case.rank}: of {case.x.size} numbers in x "
        f"it keeps {case.rank}. The pseudo-inverse C⁺ gives the smallest x that has the same Cx; "
        "no layer can give more."
    )
    return lay_out("The transpose of a convolution is not its inverse", text, bands, 760)[0].figure


@style.applied()
def overlaps(maps: Sequence[effects.Overlap], name: str) -> Figure:
    """For each layer of a decoder: the copies that meet in a pixel, and all paths up to here."""
    columns = min(len(maps), 5)
    shown = maps[-columns:]
    uneven = [m.name for m in shown if m.transposed and not m.even]
    verdict = (
        f"Uneven in {', '.join(uneven)}: a checkerboard risk" if uneven else "Every layer is even"
    )
    left = 84.0
    width = max(left + columns * (TILE + GAP) + MARGIN, 640)
    words = (
        f"{verdict}. Upper row: copies of the layer's kernel in each pixel; lower row: paths from "
        "the code. Dark is few."
    )
    paper = style.sheet(width, 2 * TILE + 140, f"Overlap in the decoder of {name}", words)
    for word, y in (("this\nlayer", 24 + TILE / 2), ("through\nall", 58 + 1.5 * TILE)):
        paper.text(MARGIN, y, word)
    for column, one in enumerate(shown):
        x = left + column * (TILE + GAP)
        paper.text(x, 10, _fit(one.name), size=style.SMALL)
        paper.image(one.own, x, 24, TILE, cmap="viridis", vmax=max(float(one.own.max()), 1))
        inner = one.own[len(one.own) // 4 : -(len(one.own) // 4) or None]
        inner = inner[:, inner.shape[1] // 4 : -(inner.shape[1] // 4) or None]
        low, high = int(inner.min()), int(inner.max())
        met = f"{low} copies" if low == high else f"{low} to {high} copies"
        look: dict[str, Any] = {} if low == high else {"color": VERMILION, "weight": "bold"}
        paper.text(
            x, 36 + TILE, f"{format_shape(one.own.shape)}: {met} inside", size=style.SMALL, **look
        )
        paper.image(one.through, x, 58 + TILE, TILE, cmap="viridis")
        paper.text(x, 70 + 2 * TILE, f"{one.through.min():.2f} to 1", size=style.SMALL)
    note = "From 0 (dark) to each map's largest; at the border there are fewer neighbors."
    paper.text(MARGIN, paper.height - 26, note, size=style.SMALL, color=GRAY)
    return paper.figure


@style.applied()
def checkerboards(found: Sequence[effects.Checkerboard]) -> Figure:
    """Four ways to double a size, with equal, random and trained weights; (3 rows, 4 columns)."""
    kinds = list(dict.fromkeys(one.weights for one in found))
    names = list(dict.fromkeys(one.name for one in found))
    left, head = 92.0, 44.0
    step = TILE + 34
    width = left + len(names) * (TILE + GAP) + MARGIN
    words = (
        "The same soft ring, 14x14 to 28x28. Below each: the contrast inside 2x2 blocks on a flat "
        "input, 0 is none (random: the mean of 500 draws)."
    )
    paper = style.sheet(width, head + len(kinds) * step + 8, "Where checkerboards come from", words)
    for one in found:
        x = left + names.index(one.name) * (TILE + GAP)
        y = head + kinds.index(one.weights) * step
        inner = one.image[2:-2, 2:-2]
        low, high = float(inner.min()), float(inner.max())
        paper.image(inner, x, y, TILE, vmin=low, vmax=high)
        bad = one.contrast > 0.05
        look: dict[str, Any] = {"color": VERMILION, "weight": "bold"} if bad else {}
        paper.text(x, y + TILE + 12, f"contrast {one.contrast:.2f}", size=style.SMALL, **look)
    for number, name in enumerate(names):
        paper.text(left + number * (TILE + GAP), 20, name, linespacing=1.25)
    for number, kind in enumerate(kinds):
        paper.text(MARGIN, head + number * step + TILE / 2, f"{kind}\nweights", weight="bold")
    return paper.figure


@style.applied()
def upscaling(image: Array, factor: int) -> Figure:
    """An image, the bilinear kernel, its transposed convolution, interpolation, the difference."""
    kernel = effects.bilinear_kernel(factor)
    ours, theirs = effects.upscale(image, factor), effects.interpolate(image, factor)
    plain = conv_transpose(image, kernel, ConvOptions((factor, factor), "same"))
    worst = float(np.abs(ours - theirs).max())
    names = (
        (f"image {format_shape(image.shape)}", image),
        (f"bilinear kernel {format_shape(kernel.shape)}", kernel),
        (f"Conv2DTranspose {format_shape(plain.shape)}", plain),
        ("with the border repeated", ours),
        ("interpolation", theirs),
    )
    width = MARGIN * 2 + len(names) * (TILE + GAP) - GAP
    words = (
        f"strides {factor}, kernel {format_shape(kernel.shape)}, padding same. "
        f"Largest difference to interpolation: {worst:.0e}. "
        "Without a repeated border the rim is dark: zeros lie outside."
    )
    title = "Bilinear upsampling is a transposed convolution"
    paper = style.sheet(width, TILE + 46, title, words)
    for number, (name, values) in enumerate(names):
        x = MARGIN + number * (TILE + GAP)
        paper.text(x, 10, name, size=style.SMALL)
        paper.image(values, x, 24, TILE)
    return paper.figure


@style.applied()
def spectra(originals: Array, reconstructions: Array, stride: int, data: str) -> Figure:
    """The mean spectrum of (N, H, W) images and of their reconstructions, and the stride's peak."""
    pair = {"originals": originals, "reconstructions": reconstructions}
    powers = {name: effects.spectrum(images) for name, images in pair.items()}
    high = max(float(p.max()) for p in powers.values())
    paper = style.sheet(
        MARGIN * 2 + 560,
        300,
        f"Spectra: is there a pattern of period {stride}?",
        f"{data}. A checkerboard is bright on the dashed lines of the right spectrum alone.",
    )
    for number, (name, power) in enumerate(powers.items()):
        x = MARGIN + number * 290
        axes = paper.panel(
            x + 34, 30, 220, 220, f"{name}: peak {effects.stride_peak(pair[name], stride):.2f}"
        )
        axes.grid(visible=False)
        axes.imshow(
            power, norm=LogNorm(high * 1e-7, high), cmap="magma", extent=_frequencies(power)
        )
        axes.set_xlabel("cycles per pixel")
        for at in (-1 / stride, 1 / stride):
            axes.axvline(at, color=SKY, linewidth=0.8, linestyle=(0, (2, 2)))
            axes.axhline(at, color=SKY, linewidth=0.8, linestyle=(0, (2, 2)))
    paper.text(
        MARGIN,
        290,
        "dashed: the stride's frequency; peak: power there over its neighbors', about 1 is none",
        size=style.SMALL,
        color=BLUE,
    )
    return paper.figure


def _frequencies(power: Array) -> tuple[float, float, float, float]:
    """The edges of a spectrum's image, so that the middle of each pixel is its frequency."""
    half_row, half_column = (0.5 / n for n in power.shape)
    first = [-(n // 2) / n for n in power.shape]
    return (
        first[1] - half_column,
        first[1] - half_column + 1,
        first[0] - half_row + 1,
        first[0] - half_row,
    )


def _fit(name: str, length: int = 26) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"
