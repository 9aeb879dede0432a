"""Figures of images in rows: reconstructions, the best and the worst, codes.

Images are uint8 or float32 in [0, 1], (N, H, W, C) with C 1 or 3. In every figure `data` names the
images ("MNIST, 10,000 test images") and `note` is a warning ("bundled sample of 5,000 digits, not
the full MNIST").
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convae.console import format_number, format_shape
from convae.plots import style
from convae.plots.style import MARGIN, Sheet, applied, sheet
from convae.tasks.metrics import METRICS, is_higher_better

TILE, GAP = 70.0, 4.0  # points: room for 28 pixels enlarged five times, or for 32 four times
SMALL_TILE = 44.0  # room for 28 pixels enlarged three times
LEFT = 116.0  # where the images begin, right of the labels of the rows
NARROWEST = 520.0
COLUMNS = 10
ERROR_COLORS = "magma"  # black is no error; its lightness rises evenly, so it also reads in gray
CODE_COLORS = "viridis"


@applied()
def reconstruction_grid(
    rows: Mapping[str, NDArray[Any]],
    data: str,
    *,
    compared: tuple[str, str],
    title: str,
    labels: NDArray[np.integer] | None = None,
    classes: Sequence[str] = (),
    note: str | None = None,
) -> Figure:
    """Draw rows of images, and the absolute error between two of them.

    Args:
        rows: Up to ten images for each label of a row. Their sizes may differ between rows, as
            those of the inputs of an upscaling do.
        compared: The labels of the two rows. The error of RGB images is the mean over the channels.
        labels: (N,) indices into `classes`, the names above the columns.
    """
    shown = {label: to_floats(images[:COLUMNS]) for label, images in rows.items()}
    first, second = (shown[label] for label in compared)
    error = np.abs(first - second).mean(axis=-1, keepdims=True)
    worst = float(max(error.max(initial=0), 0.01))
    names = [] if labels is None else [classes[label] for label in labels[:COLUMNS]]

    tile = tile_side(first, TILE)
    step, head = tile + GAP, 26.0 if names else 8.0
    foot = head + (len(rows) + 1) * step
    width = max(LEFT + len(first) * step - GAP + MARGIN, NARROWEST)
    paper = sheet(width, foot + 40, title, data, note)
    draw_rows(paper, shown, head, tile)
    draw_rows(paper, {"absolute error": error}, foot - step, tile, cmap=ERROR_COLORS, vmax=worst)
    size = style.TEXT if max(map(len, names), default=0) < 7 else style.SMALL
    for column, name in enumerate(names):
        x = LEFT + column * step + tile / 2
        paper.text(x, 12, shorten(name, int(step / 6.3)), ha="center", size=size)

    bar = paper.panel(LEFT, foot + 4, 144, 9)
    ramp = np.linspace(0, worst, 256)[None]
    bar.imshow(ramp, cmap=ERROR_COLORS, aspect="auto", extent=(0, worst, 0, 1))
    bar.set_yticks([])
    bar.set_xticks([0, worst], ["0", f"{worst:.2f}"])
    bar.grid(False)
    bar.spines[:].set_visible(False)
    paper.text(LEFT + 164, foot + 9, "absolute error (gray scale 0 to 1)")
    return paper.figure


def best_and_worst(
    rows: Mapping[str, NDArray[Any]],
    scores: NDArray[np.floating],
    data: str,
    *,
    metric: str,
    indices: Sequence[int] | NDArray[np.integer],
    note: str | None = None,
) -> Figure:
    """Draw the ten best and the ten worst examples by `scores` (N,), values of `metric`.

    `indices` (N,) are the places of the examples in the data.
    """
    order = np.argsort(-scores if is_higher_better(metric) else scores, kind="stable")
    count = min(COLUMNS, len(order))
    bands = {"best": order[:count], "worst": order[::-1][:count]}
    title = f"The {count} best and the {count} worst"
    subtitle = f"{data}; below each image its {METRICS[metric][0]} and its index"
    return bands_of_images(rows, bands, scores, title, subtitle, indices=indices, note=note)


@applied()
def bands_of_images(
    rows: Mapping[str, NDArray[Any]],
    bands: Mapping[str, NDArray[np.integer]],
    scores: NDArray[np.floating],
    title: str,
    subtitle: str,
    *,
    indices: Sequence[int] | NDArray[np.integer],
    note: str | None = None,
) -> Figure:
    """Draw the images of `rows` at the places of each band, with their scores and indices."""
    tile = tile_side(next(iter(rows.values())), TILE)
    step, count = tile + GAP, max(map(len, bands.values()))
    band = len(rows) * step + 78
    width = max(LEFT + count * step - GAP + MARGIN, NARROWEST)
    paper = sheet(width, len(bands) * band - 8, title, subtitle, note)
    for number, (label, places) in enumerate(bands.items()):
        top = number * band
        paper.text(LEFT, top + 12, label, weight="bold")
        shown = {name: to_floats(images[places]) for name, images in rows.items()}
        draw_rows(paper, shown, top + 26, tile)
        below = top + 26 + len(rows) * step
        for column, place in enumerate(places):
            x = LEFT + column * step + tile / 2
            paper.text(x, below + 8, format_number(float(scores[place])), ha="center")
            small: dict[str, Any] = {"size": style.SMALL, "color": style.GRAY, "ha": "center"}
            paper.text(x, below + 24, f"{indices[place]:,}", **small)
    return paper.figure


@applied()
def feature_maps(
    images: NDArray[np.uint8],
    codes: NDArray[np.floating],
    reconstructions: NDArray[np.floating],
    data: str,
    *,
    note: str | None = None,
) -> Figure:
    """Draw a row for each image: the input, the channels of its code, its reconstruction.

    Up to 16 channels of `codes` (N, h, w, c) are drawn, each on its own scale over all rows.
    """
    channels = min(codes.shape[-1], 16)
    room = TILE if channels <= 8 else 42.0
    tile, code_tile = tile_side(images, room), tile_side(codes, room)
    row_step, step = max(tile, code_tile) + GAP, code_tile + GAP
    left, head, aside = MARGIN + 20, 26.0, 24.0
    first = left + tile + aside  # the left edge of the code
    right = first + channels * step - GAP + aside
    foot = head + len(images) * row_step
    subtitle = f"{data}; {_describe_code(images.shape[1:], codes.shape[1:])}"
    if channels < codes.shape[-1]:
        subtitle += f", {channels} of {codes.shape[-1]} channels shown"
    width = max(right + tile + 20 + MARGIN, NARROWEST)
    paper = sheet(width, foot + 62, "Input, code and reconstruction", subtitle, note)

    for row, image in enumerate(to_floats(images)):
        top = head + row * row_step + (row_step - GAP - tile) / 2
        paper.image(drawable(image), left, top, tile)
        paper.image(drawable(reconstructions[row]), right, top, tile)
    paper.text(left + tile / 2, 12, "input", ha="center")
    paper.text(right + tile / 2, 12, "reconstruction", ha="center")
    for channel in range(channels):
        maps, x = codes[..., channel], first + channel * step
        low, high = min(float(maps.min()), 0.0), float(maps.max())
        scale: dict[str, Any] = {"cmap": CODE_COLORS, "vmin": low, "vmax": max(high, low + 1e-6)}
        for row, code in enumerate(maps):
            top = head + row * row_step + (row_step - GAP - code_tile) / 2
            paper.image(code, x, top, code_tile, **scale)
        paper.text(x + code_tile / 2, 12, f"{channel + 1}", ha="center")
        paper.text(x + code_tile / 2, foot + 8, f"{high:.3g}", ha="center", size=style.SMALL)
    legend = "each channel on its own scale, from 0 (or its minimum) to the maximum below it"
    lines = textwrap.wrap(legend, int((paper.width - first) / 6))
    paper.text(first, foot + 24, "\n".join(lines), va="top", size=style.SMALL, color=style.GRAY)
    return paper.figure


@applied()
def grid_of_images(
    images: NDArray[Any], title: str, subtitle: str, note: str | None = None
) -> Figure:
    """Draw images (N, H, W, C) in a grid that is about square."""
    columns = max(math.ceil(math.sqrt(len(images))), 1)
    tile = tile_side(images, SMALL_TILE)
    step = tile + GAP
    width = max(columns * step - GAP + 2 * MARGIN, NARROWEST)
    paper = sheet(width, -(-len(images) // columns) * step + MARGIN, title, subtitle, note)
    for place, image in enumerate(to_floats(images)):
        row, column = divmod(place, columns)
        paper.image(drawable(image), MARGIN + column * step, row * step, tile)
    return paper.figure


def draw_rows(
    paper: Sheet,
    rows: Mapping[str, NDArray[Any]],
    top: float,
    tile: float,
    left: float = LEFT,
    **options: Any,
) -> None:
    """Draw rows of images in [0, 1], each in a square of side `tile`, right of their labels."""
    for row, (label, images) in enumerate(rows.items()):
        y = top + row * (tile + GAP)
        wrapped = "\n".join(textwrap.wrap(label, int(left / 7.5)))
        paper.text(left - 10, y + tile / 2, wrapped, ha="right")
        for column, image in enumerate(images):
            paper.image(drawable(image), left + column * (tile + GAP), y, tile, **options)


def to_floats(images: NDArray[Any]) -> NDArray[Any]:
    """Return uint8 images in [0, 1], and others as they are."""
    return images / 255 if images.dtype == np.uint8 else images


def tile_side(images: NDArray[Any], room: float) -> float:
    """Return the side in points of images (N, H, W, C) that are to fit a square of `room`."""
    return float(max(images.shape[1:3]) * style.zoom(images[0], room))


def drawable(image: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return (H, W) of a gray image or (H, W, 3) of a color image, clipped to [0, 1]."""
    return np.asarray(np.clip(image[..., 0] if image.shape[-1] == 1 else image, 0, 1))


def shorten(name: str, length: int) -> str:
    """Return `name`, cut where it is longer than `length`."""
    return name if len(name) <= length else name[: length - 1] + "…"


def _describe_code(image: tuple[int, ...], code: tuple[int, ...]) -> str:
    """Such as: code 22x22x8 = 3,872 numbers for 784 pixels (4.94 times more)."""
    pixels, numbers = math.prod(image), math.prod(code)
    unit = "pixels" if image[-1] == 1 else "pixel values"
    ratio = f"{max(numbers, pixels) / min(numbers, pixels):.3g} times "
    ratio += "more" if numbers > pixels else "fewer"
    if numbers == pixels:
        ratio = "as many"
    return f"code {format_shape(code)} = {numbers:,} numbers for {pixels:,} {unit} ({ratio})"
