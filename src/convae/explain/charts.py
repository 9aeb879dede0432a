"""Charts of the effects: the adjoint, overlap, checkerboards, upsampling, spectra."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from convae.arrays import Array
from convae.console import format_shape
from convae.explain import effects
from convae.explain.cell_grid import Grid, lay_out, tint
from convae.explain.operation import ConvOptions, conv_transpose
from convae.plots import style
from convae.plots.style import BLUE, GRAY, GREEN, MARGIN, ORANGE, SKY, VERMILION

TILE, GAP = 168.0, 20.0
ALERT: dict[str, Any] = {"color": VERMILION, "weight": "bold"}


@style.applied()
def adjoint(case: effects.Adjoint) -> Figure:
    """Draw x, Cx, C^T C x and the pseudo-inverse side by side, and the two inner products."""
    side = float(np.clip(560 / (3 * case.x.shape[1] + case.cx.shape[1]), 12, 40))
    input_, output, restored = tint(SKY, 0.22), tint(GREEN, 0.14), tint(ORANGE, 0.3)
    first, second = case.products
    rows, columns = case.matrix_shape
    bands = [
        (
            "The same size, but other numbers",
            [
                Grid(case.x, "x", input_, side=side),
                Grid(case.kernel, "kernel", side=side),
                Grid(case.cx, "Cx", output, side=side),
                Grid(case.ctcx, "Cᵀ C x", tint(VERMILION, 0.2), side=side),
                Grid(case.pseudo, "C⁺ C x", restored, side=side),
            ],
        ),
        (
            f"The adjoint: ⟨Cx, y⟩ = {first:g} and ⟨x, Cᵀy⟩ = {second:g}, equal for every y",
            [Grid(case.y, "y", output, side=side), Grid(case.cty, "Cᵀ y", input_, side=side)],
        ),
    ]
    text = (
        f"C is a {rows}x{columns} matrix of rank {case.rank}: of the {case.x.size} numbers in x "
        f"it keeps {case.rank}. The pseudo-inverse C⁺ gives the smallest x with the same Cx; "
        "no layer can restore more."
    )
    return lay_out("The transpose of a convolution is not its inverse", text, bands, 760)[0].figure


@style.applied()
def overlaps(maps: Sequence[effects.Overlap], name: str) -> Figure:
    """Draw the overlap of kernel copies in each of the last five layers of a decoder."""
    shown = maps[-5:]
    uneven = [m.name for m in shown if m.uneven]
    summary = f"Uneven in {', '.join(uneven)}: checkerboard risk" if uneven else "All layers even"
    left = 84.0
    width = max(left + len(shown) * (TILE + GAP) + MARGIN, 640)
    text = (
        f"{summary}. Upper row: copies of the layer's kernel in each pixel; lower row: paths from "
        "the code. Dark is few."
    )
    paper = style.sheet(width, 2 * TILE + 140, f"Overlap in the decoder of {name}", text)
    for label, y in (("this\nlayer", 24 + TILE / 2), ("all\nlayers", 58 + 1.5 * TILE)):
        paper.text(MARGIN, y, label)
    for column, layer in enumerate(shown):
        x = left + column * (TILE + GAP)
        short = layer.name if len(layer.name) <= 26 else f"{layer.name[:25]}…"
        paper.text(x, 10, short, size=style.SMALL)
        paper.image(layer.own, x, 24, TILE, cmap="viridis", vmax=max(float(layer.own.max()), 1))
        height, width = layer.own.shape
        inner = layer.own[height // 4 : -(height // 4) or None, width // 4 : -(width // 4) or None]
        low, high = int(inner.min()), int(inner.max())
        copies, look = (f"{low}", {}) if low == high else (f"{low} to {high}", ALERT)
        label = f"{format_shape(layer.own.shape)}: {copies} copies inside"
        paper.text(x, 36 + TILE, label, size=style.SMALL, **look)
        paper.image(layer.through, x, 58 + TILE, TILE, cmap="viridis")
        paper.text(x, 70 + 2 * TILE, f"{layer.through.min():.2f} to 1", size=style.SMALL)
    note = "Each map starts at 0 (dark); fewer copies overlap at the border."
    paper.text(MARGIN, paper.height - 26, note, size=style.SMALL, color=GRAY)
    return paper.figure


@style.applied()
def checkerboards(results: Sequence[effects.Checkerboard]) -> Figure:
    """Draw four layers that double a size, with three kinds of weights; (3 rows, 4 columns)."""
    kinds = list(dict.fromkeys(one.weights for one in results))
    names = list(dict.fromkeys(one.name for one in results))
    left, head, step = 92.0, 44.0, TILE + 34
    width = left + len(names) * (TILE + GAP) + MARGIN
    text = (
        "A soft ring, upsampled from 14x14 to 28x28. Below each: the contrast inside 2x2 blocks on "
        "a flat input, 0 is none (random: the mean of 500 draws)."
    )
    title = "Which layers draw checkerboards"
    paper = style.sheet(width, head + len(kinds) * step + 8, title, text)
    for one in results:
        x = left + names.index(one.name) * (TILE + GAP)
        y = head + kinds.index(one.weights) * step
        inner = one.image[2:-2, 2:-2]
        paper.image(inner, x, y, TILE, vmin=float(inner.min()), vmax=float(inner.max()))
        look = ALERT if one.contrast > 0.05 else {}
        paper.text(x, y + TILE + 12, f"contrast {one.contrast:.2f}", size=style.SMALL, **look)
    for number, name in enumerate(names):
        paper.text(left + number * (TILE + GAP), 20, name, linespacing=1.25)
    for number, kind in enumerate(kinds):
        paper.text(MARGIN, head + number * step + TILE / 2, f"{kind}\nweights", weight="bold")
    return paper.figure


@style.applied()
def upscaling(image: Array, factor: int) -> Figure:
    """Draw an image, the bilinear kernel, its transposed convolution, and interpolation."""
    kernel = effects.bilinear_kernel(factor)
    ours, theirs = effects.upsample_bilinear(image, factor), effects.interpolate(image, factor)
    plain = conv_transpose(image, kernel, ConvOptions((factor, factor), "same"))
    tiles = (
        (f"image {format_shape(image.shape)}", image),
        (f"bilinear kernel {format_shape(kernel.shape)}", kernel),
        (f"Conv2DTranspose {format_shape(plain.shape)}", plain),
        ("with the border repeated", ours),
        ("interpolation", theirs),
    )
    text = (
        f"strides {factor}, kernel {format_shape(kernel.shape)}, padding same. Largest difference "
        f"to interpolation: {np.abs(ours - theirs).max():.0e}. Without a repeated border the rim "
        "is dark: there are zeros outside."
    )
    width = MARGIN * 2 + len(tiles) * (TILE + GAP) - GAP
    title = "Bilinear upsampling is a transposed convolution"
    paper = style.sheet(width, TILE + 46, title, text)
    for number, (name, values) in enumerate(tiles):
        x = MARGIN + number * (TILE + GAP)
        paper.text(x, 10, name, size=style.SMALL)
        paper.image(values, x, 24, TILE)
    return paper.figure


@style.applied()
def spectra(originals: Array, reconstructions: Array, stride: int, data: str) -> Figure:
    """Draw the mean spectra of (N, H, W) images and of their reconstructions."""
    pair = {"originals": originals, "reconstructions": reconstructions}
    powers = {name: effects.spectrum(images) for name, images in pair.items()}
    high = max(float(p.max()) for p in powers.values())
    title = f"Spectra: is there a pattern of period {stride}?"
    text = f"{data}. A checkerboard is bright on the dashed lines of the right spectrum alone."
    paper = style.sheet(MARGIN * 2 + 560, 300, title, text)
    for number, (name, power) in enumerate(powers.items()):
        label = f"{name}: peak {effects.stride_peak(pair[name], stride):.2f}"
        axes = paper.panel(MARGIN + number * 290 + 34, 30, 220, 220, label)
        axes.grid(visible=False)
        norm = LogNorm(high * 1e-7, high)
        top, left = (-(n // 2 + 0.5) / n for n in power.shape)  # each pixel's center: its frequency
        axes.imshow(power, norm=norm, cmap="magma", extent=(left, left + 1, top + 1, top))
        axes.set_xlabel("cycles per pixel")
        for at in (-1 / stride, 1 / stride):
            for line in (axes.axvline, axes.axhline):
                line(at, color=SKY, linewidth=0.8, linestyle=(0, (2, 2)))
    note = (
        "dashed: the stride's frequency; peak: the power there over its neighbors', about 1 is none"
    )
    paper.text(MARGIN, 290, note, size=style.SMALL, color=BLUE)
    return paper.figure
