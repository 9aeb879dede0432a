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

from convae import style
from convae.style import MARGIN, Sheet, applied, save, sheet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "best_and_worst",
    "error_by_class",
    "feature_maps",
    "log_scale",
    "reconstruction_grid",
    "save",
    "training_curves",
]

TILE, GAP = 70.0, 4.0  # points: room for 28 pixels enlarged five times, or for 32 four times
LEFT = 116.0  # where the images begin, right of the words beside them
NARROWEST = 520.0
COLUMNS = 10
ERRORS = "magma"  # black is no error; its lightness rises evenly, so it also reads in grey
CODES = "viridis"
HIGHER_IS_BETTER = {"psnr", "ssim"}
UNITS = {
    "bce": "binary cross-entropy (nats per pixel)",
    "floor": "entropy floor (nats per pixel)",
    "excess": "excess over the entropy floor (nats per pixel)",
    "mse": "mean squared error (grey scale 0 to 1)",
    "psnr": "PSNR (dB)",
    "ssim": "SSIM (1 is equal)",
}


@applied()
def reconstruction_grid(
    images: NDArray[np.uint8],
    reconstructions: NDArray[np.floating],
    data: str,
    *,
    labels: NDArray[np.integer] | None = None,
    classes: Sequence[str] = (),
    note: str | None = None,
) -> Figure:
    """Original, reconstruction and absolute error, one column for each of up to ten classes.

    A column shows the first image of its class; `labels` (N,) index `classes`. Without labels the
    columns are the first ten images. The error of RGB images is the mean over the channels.
    """
    names = _columns(len(images), labels, classes)
    chosen = list(names)
    original = images[chosen] / 255
    error = np.abs(original - reconstructions[chosen]).mean(axis=-1, keepdims=True)
    worst = float(max(error.max(initial=0), 0.01))

    tile = _tile(images, TILE)
    step, head = tile + GAP, 8.0 if labels is None else 26.0
    width = max(LEFT + len(chosen) * step - GAP + MARGIN, NARROWEST)
    title = "Originals, their reconstructions, and the error"
    paper = sheet(width, head + 3 * step + 40, title, data, note)
    rows = {
        "original": original,
        "reconstruction": reconstructions[chosen],
        "absolute error": error,
    }
    for row, (word, pictures) in enumerate(rows.items()):
        top = head + row * step
        paper.text(LEFT - 10, top + tile / 2, word, ha="right")
        look: dict[str, Any] = {"cmap": ERRORS, "vmax": worst} if pictures is error else {}
        for column, picture in enumerate(pictures):
            paper.image(_drawable(picture), LEFT + column * step, top, tile, **look)
    size = style.TEXT if max(map(len, names.values()), default=0) < 7 else style.SMALL
    for column, name in enumerate(names.values()):
        paper.text(
            LEFT + column * step + tile / 2,
            12,
            _short(name, int(step / 6.3)),
            ha="center",
            size=size,
        )
    _scale(paper, LEFT, head + 3 * step + 4, worst, "absolute error (grey scale 0 to 1)")
    return paper.figure


@applied()
def best_and_worst(
    images: NDArray[np.uint8],
    reconstructions: NDArray[np.floating],
    scores: NDArray[np.floating],
    data: str,
    *,
    score: str = "excess",
    indices: Sequence[int] | NDArray[np.integer] | None = None,
    note: str | None = None,
) -> Figure:
    """The ten best and the ten worst reconstructions under their originals, with their scores.

    `scores` (N,) are values of `score`, a key of `metrics.SCORES`; below each stands the image's
    own and its index, which is its place in the arrays or what `indices` (N,) say.
    """
    order = np.argsort(-scores if score in HIGHER_IS_BETTER else scores, kind="stable")
    count = min(COLUMNS, len(order))
    bands = {"best": order[:count], "worst": order[::-1][:count]}

    tile = _tile(images, TILE)
    step = tile + GAP
    band = 2 * step + 78
    width = max(LEFT + count * step - GAP + MARGIN, NARROWEST)
    title = f"The {count} best and the {count} worst reconstructions"
    says = f"{data}; below each its {UNITS[score]} and its index"
    paper = sheet(width, 2 * band - 8, title, says, note)
    for number, (word, chosen) in enumerate(bands.items()):
        top = number * band
        paper.text(LEFT, top + 12, word, weight="bold")
        top += 26
        paper.text(LEFT - 10, top + tile / 2, "original", ha="right")
        paper.text(LEFT - 10, top + step + tile / 2, "reconstruction", ha="right")
        for column, index in enumerate(chosen):
            x = LEFT + column * step
            paper.image(_drawable(images[index] / 255), x, top, tile)
            paper.image(_drawable(reconstructions[index]), x, top + step, tile)
            middle, below = x + tile / 2, top + 2 * step
            paper.text(middle, below + 8, _number(scores[index]), ha="center")
            paper.text(
                middle,
                below + 24,
                f"{index if indices is None else indices[index]:,}",
                ha="center",
                size=style.SMALL,
                color=style.GREY,
            )
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
    axes.annotate(_number(above[-1]), (epochs[-1], above[-1]), (4, -7), **last)
    log_scale(axes, above)

    if changes:
        panels[2].set_title("learning rate")
        panels[2].plot(epochs, rates, color=style.GREEN, **look)
        panels[2].yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return paper.figure


@applied()
def error_by_class(
    classes: Mapping[str, Mapping[str, float]],
    mean: float,
    data: str,
    *,
    score: str = "excess",
    baseline: float | None = None,
    note: str | None = None,
) -> Figure:
    """A bar for each class; `classes` is what `metrics.per_class` gives, `score` a key of it.

    `mean` is the score over all images (dashed); `baseline` is that of the mean image, in words
    only: beside it the bars would vanish. Up to 12 classes stand as they come; more lie on their
    side, worst first, and of more than 40 the 20 worst and the 20 best are shown.
    """
    title = "Quality by class" if score in HIGHER_IS_BETTER else "Error by class"
    says = f"{data}; mean {_number(mean)}"
    if baseline is not None:
        says += f", mean-image baseline {_number(baseline)}"
    values = {name: scores[score] for name, scores in classes.items()}
    line: dict[str, Any] = {"color": style.VERMILION, "linestyle": "--", "linewidth": 1.5}
    if len(values) <= 12:
        paper = sheet(700, 300, title, says, note)
        axes = paper.panel(MARGIN + 56, 16, 556, 230)
        axes.bar(range(len(values)), list(values.values()), color=style.BLUE, width=0.7)
        axes.set_xticks(range(len(values)), [_short(name, 11) for name in values])
        axes.set_xlabel("class")
        axes.set_ylabel(UNITS[score])
        axes.grid(False, axis="x")
        axes.axhline(mean, **line)
        side: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "va": "center"}
        axes.annotate("mean", (1.01, mean), color=style.VERMILION, **side)
        ends: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "size": style.SMALL}
        clear = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        for place, value in enumerate(values.values()):
            axes.annotate(_number(value), (place, value), (0, 4), bbox=clear, **ends)
        return paper.figure

    ranked = sorted(values, key=values.__getitem__, reverse=score not in HIGHER_IS_BETTER)
    if len(ranked) > 40:
        says += f"; the 20 worst and the 20 best of {len(ranked)} classes"
        between = f"({len(ranked) - 40} between)"
        ranked = [*ranked[:20], between, *ranked[-20:]]
        values[between] = 0.0
    height = 17.0 * len(ranked)
    paper = sheet(700, height + 76, title, says, note)
    axes = paper.panel(MARGIN + 150, 24, 470, height)
    axes.barh(range(len(ranked)), [values[name] for name in ranked], color=style.BLUE, height=0.7)
    axes.set_yticks(range(len(ranked)), [_short(name, 22) for name in ranked])
    axes.set_ylim(len(ranked) - 0.4, -0.6)
    axes.set_xlabel(UNITS[score])
    axes.grid(False, axis="y")
    axes.axvline(mean, **line)
    top: dict[str, Any] = {"xycoords": axes.get_xaxis_transform(), "ha": "center", "va": "bottom"}
    axes.annotate("mean", (mean, 1.005), color=style.VERMILION, **top)
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
    tile, code_tile = _tile(images, room), _tile(codes, room)
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
        paper.image(_drawable(image / 255), left, top, tile)
        paper.image(_drawable(reconstructions[row]), right, top, tile)
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
    paper.text(first, foot + 24, "\n".join(lines), va="top", size=style.SMALL, color=style.GREY)
    return paper.figure


def _tile(images: NDArray[Any], room: float) -> float:
    """The side in points of images (N, H, W, C) as large as they get in a square of `room`."""
    return float(max(images.shape[1:3]) * style.zoom(images[0], room))


def _drawable(image: NDArray[np.floating]) -> NDArray[np.floating]:
    """(H, W) of a grey image, (H, W, 3) of a colour one, kept within [0, 1]."""
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
    """A colour bar for errors from 0 to `largest`, with `text` beside it."""
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


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.4f}"


def _short(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"
