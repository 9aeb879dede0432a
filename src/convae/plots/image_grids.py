"""Arrays -> figures: what a run's images, scores and history look like. No TensorFlow, no pyplot.

Images are uint8 (N, H, W, C) with C 1 or 3; reconstructions are float32 of the same shape in
[0, 1]. In every figure `data` names the images that are seen ("MNIST, 10,000 test images") and
`note` is what nobody may overlook ("bundled sample of 5,000 digits, not the full MNIST").
"""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from convae.plots import style
from convae.plots.style import MARGIN, Sheet, applied, sheet
from convae.tasks.metrics import HIGHER_IS_BETTER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

TILE, GAP = 70.0, 4.0  # points: room for 28 pixels enlarged five times, or for 32 four times
LEFT = 116.0  # where the images begin, right of the words beside them
NARROWEST = 520.0
COLUMNS = 10
ERRORS = "magma"  # black is no error; its lightness rises evenly, so it also reads in gray
CODES = "viridis"
UNITS = {
    "bce": "binary cross-entropy (nats per pixel)",
    "floor": "entropy floor (nats per pixel)",
    "excess": "excess over the entropy floor (nats per pixel)",
    "mse": "mean squared error (gray scale 0 to 1)",
    "psnr": "PSNR (dB)",
    "ssim": "SSIM (1 is equal)",
    "iou": "intersection over union (1 is perfect)",
    "accuracy": "share of pixels that are right",
    "auroc": "AUROC (1 is perfect, 0.5 a coin)",
}


@applied()
def reconstruction_grid(
    rows: Mapping[str, NDArray[Any]],
    data: str,
    *,
    compared: tuple[str, str] = ("original", "reconstruction"),
    title: str = "Originals, their reconstructions, and the error",
    labels: NDArray[np.integer] | None = None,
    classes: Sequence[str] = (),
    note: str | None = None,
) -> Figure:
    """Rows of images by what they are, then the absolute error between the two `compared`.

    There is a column for each of up to ten classes, which shows the first image of its class;
    `labels` (N,) index `classes`. Without labels the columns are the first ten images. Rows may
    differ in the size of their images, as what goes into an upscaling does. The error of RGB
    images is the mean over the channels.
    """
    names = _columns(len(rows[compared[0]]), labels, classes)
    chosen = list(names)
    shown = {word: in_floats(images[chosen]) for word, images in rows.items()}
    first, second = (shown[word] for word in compared)
    error = np.abs(first - second).mean(axis=-1, keepdims=True)
    worst = float(max(error.max(initial=0), 0.01))

    tile = tile_side(first, TILE)
    step, head = tile + GAP, 8.0 if labels is None else 26.0
    foot = head + (len(rows) + 1) * step
    width = max(LEFT + len(chosen) * step - GAP + MARGIN, NARROWEST)
    paper = sheet(width, foot + 40, title, data, note)
    draw_rows(paper, shown, head, tile)
    draw_rows(paper, {"absolute error": error}, foot - step, tile, cmap=ERRORS, vmax=worst)
    size = style.TEXT if max(map(len, names.values()), default=0) < 7 else style.SMALL
    for column, name in enumerate(names.values()):
        x, word = LEFT + column * step + tile / 2, short(name, int(step / 6.3))
        paper.text(x, 12, word, ha="center", size=size)
    _scale(paper, LEFT, foot + 4, worst, "absolute error (gray scale 0 to 1)")
    return paper.figure


def best_and_worst(
    rows: Mapping[str, NDArray[Any]],
    scores: NDArray[np.floating],
    data: str,
    *,
    score: str = "excess",
    indices: Sequence[int] | NDArray[np.integer] | None = None,
    note: str | None = None,
) -> Figure:
    """The ten best and the ten worst outputs among `rows` of images, with their scores.

    `scores` (N,) are values of `score`, a key of UNITS; below each stands the image's own and its
    index, which is its place in the arrays or what `indices` (N,) say.
    """
    order = np.argsort(-scores if score in HIGHER_IS_BETTER else scores, kind="stable")
    count = min(COLUMNS, len(order))
    title = f"The {count} best and the {count} worst"
    bands = {"best": order[:count], "worst": order[::-1][:count]}
    says = f"{data}; below each its {UNITS[score]} and its index"
    return bands_of_images(rows, bands, scores, data, title, says, indices=indices, note=note)


@applied()
def bands_of_images(
    rows: Mapping[str, NDArray[Any]],
    bands: Mapping[str, NDArray[np.integer]],
    scores: NDArray[np.floating],
    data: str,
    title: str,
    says: str,
    *,
    indices: Sequence[int] | NDArray[np.integer] | None = None,
    note: str | None = None,
) -> Figure:
    """For each of `bands`, the images of `rows` at its places, and below each its score and index.

    `says` is the line below the title, which begins with `data`.
    """
    tile = tile_side(next(iter(rows.values())), TILE)
    step, count = tile + GAP, max(map(len, bands.values()))
    band = len(rows) * step + 78
    width = max(LEFT + count * step - GAP + MARGIN, NARROWEST)
    paper = sheet(width, len(bands) * band - 8, title, says, note)
    for number, (word, chosen) in enumerate(bands.items()):
        top = number * band
        paper.text(LEFT, top + 12, word, weight="bold")
        shown = {name: in_floats(images[chosen]) for name, images in rows.items()}
        draw_rows(paper, shown, top + 26, tile)
        below = top + 26 + len(rows) * step
        for column, index in enumerate(chosen):
            middle = LEFT + column * step + tile / 2
            paper.text(middle, below + 8, number_word(scores[index]), ha="center")
            place = f"{index if indices is None else indices[index]:,}"
            small: dict[str, Any] = {"size": style.SMALL, "color": style.GRAY}
            paper.text(middle, below + 24, place, ha="center", **small)
    return paper.figure


@applied()
def training_curves(
    history: Mapping[str, ArrayLike],
    data: str,
    *,
    floor: float | None = None,
    loss: str = "binary cross-entropy",
    unit: str = "nats per pixel",
    note: str | None = None,
) -> Figure:
    """The losses by epoch, how far the validation loss is from its floor, and the learning rate.

    `history` has columns of history.csv: `epoch`, `loss`, `val_loss` and, to be shown where it
    changes, `learning_rate`. `floor` is the lowest validation loss that any reconstruction can
    reach; None where that is 0, as for the mean squared error.
    """
    epochs, losses, val_losses, rates = (
        np.asarray(history.get(name, ()), float)
        for name in ("epoch", "loss", "val_loss", "learning_rate")
    )
    changes = bool(np.ptp(rates)) if len(rates) else False
    widths = [290.0, 290.0, 150.0] if changes else [350.0, 350.0]
    lefts = [MARGIN + 44 + sum(w + 60 for w in widths[:i]) for i in range(len(widths))]
    paper = sheet(
        lefts[-1] + widths[-1] + MARGIN,
        340,
        "Training: the loss" + ("" if floor is None else ", and what is left above its floor"),
        f"{data}; epoch {epochs[-1]:.0f}: loss {losses[-1]:.4f}, val_loss {val_losses[-1]:.4f}",
        note,
    )
    panels = [paper.panel(x, 26, width, 262) for x, width in zip(lefts, widths, strict=True)]
    for axes in panels:
        axes.set_xlabel("epoch")
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        axes.xaxis.set_major_locator(
            MaxNLocator(6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
        )
    look: dict[str, Any] = {"marker": "o" if len(epochs) <= 40 else ""}

    axes = panels[0]
    axes.set_title(f"{loss} ({unit})" if unit else loss)
    axes.plot(epochs, losses, label="loss", color=style.ORANGE, **look)
    axes.plot(epochs, val_losses, label="val_loss", color=style.BLUE, **look)
    if floor is not None:
        axes.axhline(floor, label=f"floor {floor:.4f}", color=style.INK, linestyle="--")
    axes.legend()

    axes = panels[1]
    above = val_losses - (floor or 0)
    what = "val_loss" if floor is None else "val_loss above its floor"
    axes.set_title(f"{what} ({unit}, log scale)" if unit else f"{what} (log scale)")
    axes.plot(epochs, above, color=style.BLUE, **look)
    last: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "va": "top"}
    axes.annotate(number_word(above[-1]), (epochs[-1], above[-1]), (4, -7), **last)
    log_scale(axes, above)

    if changes:
        panels[2].set_title("learning rate")
        panels[2].plot(epochs, rates, color=style.GREEN, **look)
        panels[2].yaxis.set_major_formatter(lambda value, _: f"{value:g}")
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
    """What the encoder makes of images: a row each with the input, its code, its reconstruction.

    `codes` (N, h, w, c) are what the encoder gives; up to 16 of their channels are shown, each on
    its own scale over all rows, so that weak ones are seen too. A few images are enough: every
    one becomes a row.
    """
    channels = min(codes.shape[-1], 16)
    room = TILE if channels <= 8 else 42.0
    tile, code_tile = tile_side(images, room), tile_side(codes, room)
    row_step, step = max(tile, code_tile) + GAP, code_tile + GAP
    left, head, aside = MARGIN + 20, 26.0, 24.0
    first = left + tile + aside  # the left edge of the code
    right = first + channels * step - GAP + aside
    foot = head + len(images) * row_step
    says = _code_size(images.shape[1:], codes.shape[1:])
    if channels < codes.shape[-1]:
        says += f", {channels} of {codes.shape[-1]} channels shown"
    title = "From image to code to reconstruction"
    paper = sheet(
        max(right + tile + 20 + MARGIN, NARROWEST), foot + 62, title, f"{data}; {says}", note
    )

    for row, image in enumerate(images):
        top = head + row * row_step + (row_step - GAP - tile) / 2
        paper.image(drawable(image / 255), left, top, tile)
        paper.image(drawable(reconstructions[row]), right, top, tile)
    paper.text(left + tile / 2, 12, "input", ha="center")
    paper.text(right + tile / 2, 12, "reconstruction", ha="center")
    for channel in range(channels):
        maps, x = codes[..., channel], first + channel * step
        low, high = min(float(maps.min()), 0.0), float(maps.max())
        scale: dict[str, Any] = {"cmap": CODES, "vmin": low, "vmax": max(high, low + 1e-6)}
        for row, code in enumerate(maps):
            top = head + row * row_step + (row_step - GAP - code_tile) / 2
            paper.image(code, x, top, code_tile, **scale)
        paper.text(x + code_tile / 2, 12, f"{channel + 1}", ha="center")
        paper.text(x + code_tile / 2, foot + 8, f"{high:.3g}", ha="center", size=style.SMALL)
    legend = "each channel on its own scale, from 0 (or its least) up to the value below it"
    lines = textwrap.wrap(legend, int((paper.width - first) / 6))
    paper.text(first, foot + 24, "\n".join(lines), va="top", size=style.SMALL, color=style.GRAY)
    return paper.figure


def draw_rows(
    paper: Sheet, rows: Mapping[str, NDArray[Any]], top: float, tile: float, **look: Any
) -> None:
    """Draw rows of images (N, H, W, C) in [0, 1], a square of side `tile` each, beside words."""
    for row, (word, images) in enumerate(rows.items()):
        y = top + row * (tile + GAP)
        paper.text(LEFT - 10, y + tile / 2, "\n".join(textwrap.wrap(word, 15)), ha="right")
        for column, image in enumerate(images):
            paper.image(drawable(image), LEFT + column * (tile + GAP), y, tile, **look)


def in_floats(images: NDArray[Any]) -> NDArray[Any]:
    """Gray values in [0, 1] of images that are bytes, or that have them already."""
    return images / 255 if images.dtype == np.uint8 else images


def tile_side(images: NDArray[Any], room: float) -> float:
    """The side in points of images (N, H, W, C) as large as they get in a square of `room`."""
    return float(max(images.shape[1:3]) * style.zoom(images[0], room))


def drawable(image: NDArray[np.floating]) -> NDArray[np.floating]:
    """(H, W) of a gray image, (H, W, 3) of a color one, kept within [0, 1]."""
    return np.asarray(np.clip(image[..., 0] if image.shape[-1] == 1 else image, 0, 1))


def _columns(
    count: int, labels: NDArray[np.integer] | None, classes: Sequence[str]
) -> dict[int, str]:
    """The images to show, by index, each with what stands above it."""
    if labels is None:
        return dict.fromkeys(range(min(count, COLUMNS)), "")
    there = [index for index in range(len(classes)) if np.any(labels == index)]
    return {int(np.argmax(labels == i)): classes[i] for i in there[:COLUMNS]}


def _scale(paper: Sheet, left: float, top: float, largest: float, text: str) -> None:
    """A color bar for errors from 0 to `largest`, with `text` beside it."""
    axes = paper.panel(left, top, 144, 9)
    ramp = np.linspace(0, largest, 256)[None]
    axes.imshow(ramp, cmap=ERRORS, aspect="auto", extent=(0, largest, 0, 1))
    axes.set_yticks([])
    axes.set_xticks([0, largest], ["0", f"{largest:.2f}"])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    paper.text(left + 164, top + 5, text)


def log_scale(axes: Axes, values: NDArray[np.float64]) -> None:
    """A log axis that reaches from one of 1, 2, 5, 10, ... to another: it always has labels."""
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return
    steps = [digit * 10.0**power for power in range(-12, 7) for digit in (1, 2, 5)]
    low = max((s for s in steps if s < values.min()), default=steps[0])
    high = min((s for s in steps if s > values.max()), default=steps[-1])
    ticks = [s for s in steps if low <= s <= high]
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks([], minor=True)


def _code_size(image: tuple[int, ...], code: tuple[int, ...]) -> str:
    """Such as: code 22x22x8 = 3,872 numbers for 784 pixels (4.94 times more)."""
    there, here = math.prod(image), math.prod(code)
    what = "pixels" if image[-1] == 1 else "pixel values"
    ratio = f"{max(here, there) / min(here, there):.3g} times {'more' if here > there else 'fewer'}"
    if here == there:
        ratio = "as many"
    return f"code {'x'.join(map(str, code))} = {here:,} numbers for {there:,} {what} ({ratio})"


def number_word(value: float) -> str:
    """Four digits behind the point, where they say something."""
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.4f}"


def short(name: str, length: int) -> str:
    """A name, cut where it is longer than `length`."""
    return name if len(name) <= length else name[: length - 1] + "…"
