"""Pictures of one worked case: every scaled copy, their sum, the cut, the result; and its steps.

`panels` is the whole case on one sheet; `frames` are the kernel's steps, one figure each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure

from convae.console import format_shape
from convae.errors import ConfigError
from convae.explain import operation as transpose
from convae.explain.cell_grid import Band, Grid, lay_out, tint
from convae.explain.operation import Array, Pair
from convae.explain.worked_example import Case, cell
from convae.layers import arithmetic as sizes
from convae.plots import style
from convae.plots.style import BLUE, GREEN, INK, MARGIN, ORANGE, PURPLE, SKY, VERMILION

HUES = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION)  # of the elements, in turn
ZERO = "#F1F3F6"
RESULT = tint(GREEN, 0.14)
NOW = tint(ORANGE, 0.7)  # what the kernel covers at this step
CUT: dict[str, Any] = {"edgecolor": VERMILION, "linestyle": (0, (3, 1.6))}
LARGEST = 24  # cells along a side that can still be read
MOST = 36  # panels of single steps
STEPS = 100  # of an animation
View = Literal["copies", "zeros"]
Colors = list[list[Any]]


@style.applied()
def panels(case: Case, title: str | None = None) -> Figure:
    """The whole case on one sheet. Raises ConfigError if it is too large to be read."""
    _check_size(case)
    return _conv_panels(case, title) if case.operation == "conv" else _panels(case, title)


@style.applied()
def frames(case: Case, title: str | None = None, view: View = "copies") -> list[Figure]:
    """The steps that the kernel takes, and at last the result.

    A transposed convolution is seen as scaled copies that are summed, or (`zeros`) as a kernel that
    slides over a grid of zeros; a convolution always slides.
    """
    _check_size(case)
    slides = case.operation == "conv" or view == "zeros"
    count = case.result().size if slides else case.x.size
    if count > STEPS:
        raise ConfigError(f"an animation holds at most {STEPS} steps. Received: {count}")
    return list(_sliding(case, title) if slides else _adding(case, title))


def _check_size(case: Case) -> None:
    shape = case.padded().shape if case.operation == "conv" else case.zero_grid().shape
    if max(shape) > LARGEST:
        raise ConfigError(
            f"a picture holds at most {LARGEST}x{LARGEST} cells. "
            f"Received: {format_shape(shape)}; the terminal and --json take more"
        )


def _head(case: Case, title: str | None) -> tuple[str, str]:
    """Title and subtitle: of a case without a title of its own, its setting and its size."""
    if title is None:
        return case.title(), case.sizes_line()
    return (
        title,
        f"{format_shape(case.size)} input, {format_shape(case.kernel_size)} kernel; "
        f"{case.sizes_line()}",
    )


# ---- the whole case -----------------------------------------------------------------------------


def _panels(case: Case, title: str | None) -> Figure:
    canvas, result = case.canvas(), case.result()
    side = float(np.clip(880 / (canvas.shape[1] * 2 + result.shape[1] + 6), 11, 28))
    small = side if case.x.size <= 4 else max(9.0, side * 0.62)
    hues = _hues(case)
    total, corner = _sum(case, canvas, side)
    out = Grid(result, f"result {format_shape(result.shape)}", RESULT, side=side)
    rings, kept = _rings(case, side)
    bands: list[Band] = [
        ("", [Grid(case.x, "input", hues, side=side), Grid(case.kernel, "kernel", side=side)])
    ]
    if case.x.size <= MOST:
        copies = [_copy(case, n, side=small) for n in range(case.x.size)]
        bands.append(
            ("1. One copy of the kernel for each element of the input, scaled by it", copies)
        )
    cut = case.crop_line()
    bands.append((f"2. The sum of the copies{'; ' + cut if cut else ''}", [total, out]))
    flipped = Grid(case.kernel[::-1, ::-1], "kernel, flipped", side=side)
    bands.append(
        (
            "The same in another way: zeros between and around, then stride 1 and a flipped kernel",
            [rings, flipped, replace(out)],
        )
    )
    paper, places = lay_out(*_head(case, title), bands)
    if cut:
        total.frame(paper, *places[id(total)], (*corner, *result.shape), **CUT)
        rings.frame(paper, *places[id(rings)], kept, **CUT)
    return paper.figure


def _conv_panels(case: Case, title: str | None) -> Figure:
    padded, result = case.padded(), case.result()
    side = float(
        np.clip(760 / (padded.shape[1] + result.shape[1] + case.kernel.shape[1] + 4), 11, 28)
    )
    inside = _inside(case)
    words = f"input {format_shape(case.size)}" + (
        f", padded to {format_shape(padded.shape)}" * (padded.size > case.x.size)
    )
    main = Grid(padded, words, _sky(inside), faint=~inside, side=side)
    out = Grid(result, f"result {format_shape(result.shape)}", RESULT, side=side)
    bands: list[Band] = [("", [main, Grid(case.kernel, "kernel", side=side), out])]
    if result.size <= MOST:
        windows = []
        for number, at in enumerate(np.ndindex(*result.shape), 1):
            colors, blank = _sky(inside), np.ones(padded.shape, bool)
            for r, c in _window(case, at):
                colors[r][c], blank[r, c] = NOW, False
            words = f"{number}: gives {cell(result[at])}"
            windows.append(Grid(padded, words, colors, blank, side=max(9.0, side * 0.5)))
        head = "Each place of the kernel gives one number: the window times the kernel, summed"
        bands.append((head, windows))
    return lay_out(*_head(case, title), bands)[0].figure


def _hues(case: Case) -> Colors:
    """A tint for every element of the input."""
    rows, columns = case.size
    tints = [tint(hue, 0.34) for hue in HUES]
    return [[tints[(r * columns + c) % len(tints)] for c in range(columns)] for r in range(rows)]


def _copy(case: Case, number: int, side: float) -> Grid:
    """The canvas with the copy of one element alone."""
    values, cells = _copies(case)[number]
    at = divmod(number, case.size[1])
    colors: Colors = [["#FFFFFF"] * values.shape[1] for _ in range(values.shape[0])]
    blank = np.ones(values.shape, bool)
    for r, c in cells:
        colors[r][c], blank[r, c] = _hues(case)[at[0]][at[1]], False
    return Grid(values, f"{number + 1}: {cell(case.x[at])} × kernel", colors, blank, side=side)


def _copies(case: Case) -> list[tuple[Array, list[Pair]]]:
    """For each element the canvas with its copy alone, and the cells that the copy takes."""
    x, kernel = case.x[None, :, :, None], case.kernel[:, :, None, None]
    down, right = case.setting.dilation_rate
    shape = case.canvas().shape
    found = []
    for _, (top, left), copy in transpose.copies(x, kernel, case.setting):
        values = np.zeros(shape, copy.dtype)
        cells = [(top + i * down, left + j * right) for i, j in np.ndindex(*case.kernel_size)]
        for place, value in zip(cells, copy[0, :, :, 0].ravel(), strict=True):
            values[place] = value
        found.append((values, cells))
    return found


def _sum(case: Case, canvas: Array, side: float) -> tuple[Grid, Pair]:
    """The canvas, with the zeros that output_padding puts on, and where the result begins in it."""
    (top, bottom), (left, right) = case.crops
    extra = ((max(-top, 0), max(-bottom, 0)), (max(-left, 0), max(-right, 0)))
    rows, columns = (
        sizes.overlap_counts(
            case.size[a],
            case.kernel_size[a],
            case.setting.strides[a],
            padding=0,
            dilation_rate=case.setting.dilation_rate[a],
        )
        for a in (0, 1)
    )
    counts, values = np.pad(np.outer(rows, columns), extra), np.pad(canvas, extra)
    most = int(counts.max())
    shades = [ZERO] + [tint(BLUE, 0.08 + 0.5 * n / max(most - 1, 1)) for n in range(most)]
    met = f"from 1 copy in a cell (pale) to {most} (dark)" if most > 1 else "no two copies meet"
    colors = [[shades[n] for n in row] for row in counts]
    grid = Grid(
        values, f"sum {format_shape(values.shape)}: {met}", colors, faint=counts == 0, side=side
    )
    return grid, (max(top, 0), max(left, 0))


def _rings(case: Case, side: float) -> tuple[Grid, tuple[int, int, int, int]]:
    """The grid of zeros, with those that output_padding puts on, and the box that the cut leaves.

    The box is (first row, first column, rows, columns).
    """
    (top, bottom), (left, right) = case.crops
    extra = ((max(-top, 0), max(-bottom, 0)), (max(-left, 0), max(-right, 0)))
    zeros = np.pad(case.zero_grid(), extra)
    faint = np.ones(zeros.shape, bool)
    colors: Colors = [[ZERO] * zeros.shape[1] for _ in range(zeros.shape[0])]
    for (r, c), hue in zip(np.ndindex(*case.size), chain(*_hues(case)), strict=True):
        row, column = (
            extra[a][0]
            + sizes.extent(case.kernel_size[a], case.setting.dilation_rate[a])
            - 1
            + (r, c)[a] * case.setting.strides[a]
            for a in (0, 1)
        )
        faint[row, column], colors[row][column] = False, hue
    top, bottom, left, right = (max(n, 0) for n in (top, bottom, left, right))
    kept = top, left, zeros.shape[0] - top - bottom, zeros.shape[1] - left - right
    return Grid(zeros, f"grid {format_shape(zeros.shape)}", colors, faint=faint, side=side), kept


def _inside(case: Case) -> Array:
    """Which cells of a convolution's padded input are the input's own."""
    (top, _), (left, _) = case.setting.conv_pads(case.size, case.kernel_size)
    inside = np.zeros(case.padded().shape, bool)
    inside[top : top + case.size[0], left : left + case.size[1]] = True
    return inside


def _sky(inside: Array) -> Colors:
    own = tint(SKY, 0.22)
    return [[own if i else ZERO for i in row] for row in inside]


def _window(case: Case, at: Pair) -> list[Pair]:
    """The cells under the taps of a convolution's kernel when it makes output `at`."""
    (down, right), (step, across) = case.setting.dilation_rate, case.setting.strides
    taps = np.ndindex(*case.kernel_size)
    return [(at[0] * step + i * down, at[1] * across + j * right) for i, j in taps]


# ---- step by step -------------------------------------------------------------------------------


def _adding(case: Case, title: str | None) -> Iterator[Figure]:
    """Copy after copy added on the canvas, then the cut and the result."""
    copies, result = _copies(case), case.result()
    whole, corner = _sum(case, case.canvas(), side=0)
    side = float(
        np.clip(640 / (whole.values.shape[1] + case.x.shape[1] + case.kernel.shape[1] + 2), 12, 30)
    )
    whole = replace(
        whole, title=f"sum {format_shape(whole.values.shape)}", side=side
    )  # every frame alike
    (top, _), (left, _) = case.crops
    shift = max(-top, 0), max(-left, 0)
    running = np.zeros_like(whole.values)
    hues = _hues(case)
    for number in range(len(copies) + 1):
        last = number == len(copies)
        x, scaled, canvas = (
            Grid(case.x, "input", hues, side=side),
            Grid(case.kernel, "kernel", side=side),
            whole,
        )
        says = f"{len(copies)} copies summed" + (f"; {cut}" if (cut := case.crop_line()) else "")
        if not last:
            at = divmod(number, case.size[1])
            values, cells = copies[number]
            cells = [(r + shift[0], c + shift[1]) for r, c in cells]
            running[
                shift[0] : shift[0] + values.shape[0], shift[1] : shift[1] + values.shape[1]
            ] += values
            colors: Colors = [[ZERO if not n else "#FFFFFF" for n in row] for row in running]
            for r, c in cells:
                colors[r][c] = hues[at[0]][at[1]]
            blank = np.zeros(running.shape, bool)
            scaled = Grid(
                case.x[at] * case.kernel,
                f"{cell(case.x[at])} × kernel",
                hues[at[0]][at[1]],
                side=side,
            )
            canvas = Grid(running.copy(), whole.title, colors, blank, running == 0, side)
            place = (
                number // case.size[1] * case.setting.strides[0],
                at[1] * case.setting.strides[1],
            )
            says = (
                f"Step {number + 1} of {len(copies)}: {cell(case.x[at])} × kernel is added at "
                f"row {place[0]}, column {place[1]}"
            )
        out = Grid(
            result,
            f"result {format_shape(result.shape)}",
            RESULT,
            np.full(result.shape, not last),
            side=side,
        )
        paper, places = lay_out(
            *_head(case, title), [("", [x, scaled]), ("", [canvas, out])], below=26
        )
        if last and case.crop_line():
            canvas.frame(paper, *places[id(canvas)], (*corner, *result.shape), **CUT)
        if not last:
            x.frame(paper, *places[id(x)], (*at, 1, 1))
        paper.text(MARGIN, paper.height - 16, says, size=style.TEXT)
        yield paper.figure


def _sliding(case: Case, title: str | None) -> Iterator[Figure]:
    """The kernel at every place of its way over the padded input, or over the grid of zeros."""
    result = case.result()
    if case.operation == "conv":
        slid, kernel, grid = case, case.kernel, case.padded()
        colors, faint, name = _sky(_inside(case)), ~_inside(case), "padded input"
    else:
        rings, (top, left, rows, columns) = _rings(case, 0)
        box = slice(top, top + rows), slice(left, left + columns)
        grid, faint = rings.values[box], np.asarray(rings.faint)[box]
        colors = [row[box[1]] for row in rings.colors[box[0]]]
        kernel, name = case.kernel[::-1, ::-1], "grid of zeros and input"
        slid = replace(
            case,
            setting=transpose.ConvOptions(dilation_rate=case.setting.dilation_rate),
            operation="conv",
            x=grid,
        )
    side = float(np.clip(760 / (grid.shape[1] + result.shape[1] + kernel.shape[1] + 3), 12, 30))
    done = np.ones(result.shape, bool)
    words = "kernel" if case.operation == "conv" else "kernel, flipped"
    for number, at in enumerate(np.ndindex(*result.shape), 1):
        cells = _window(slid, at)
        done[at] = False
        here = [list(row) for row in colors]
        for r, c in cells:
            here[r][c] = NOW
        shown = Grid(grid, f"{name}, {format_shape(grid.shape)}", here, faint=faint, side=side)
        out_colors: Colors = [[RESULT] * result.shape[1] for _ in range(result.shape[0])]
        out_colors[at[0]][at[1]] = NOW
        out = Grid(
            result, f"result {format_shape(result.shape)}", out_colors, done.copy(), side=side
        )
        paper, _ = lay_out(
            *_head(case, title), [("", [shown, Grid(kernel, words, side=side), out])], below=26
        )
        products = [
            f"{cell(grid[p])}·{cell(kernel[t])}"
            for p, t in zip(cells, np.ndindex(*kernel.shape), strict=True)
        ]
        total = " + ".join(products) if len(products) <= 9 else "window times kernel"
        says = f"Step {number} of {result.size}: {total} = {cell(result[at])}"
        paper.text(MARGIN, paper.height - 16, says, size=style.TEXT, color=INK)
        yield paper.figure
