"""Figures of one worked example: scaled copies, their sum, the crop, the result; and its steps.

`panels` draws the whole example on one sheet; `frames` draws the kernel's steps, a figure each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure

from convae.arrays import Array
from convae.console import format_shape
from convae.errors import ConfigError
from convae.explain.cell_grid import Band, Box, Grid, lay_out, tint
from convae.explain.operation import ConvOptions, Pair
from convae.explain.worked_example import Case, format_cell
from convae.plots import style
from convae.plots.style import BLUE, GREEN, MARGIN, ORANGE, PURPLE, SKY, VERMILION

HUES = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION)  # of the elements, in turn
WHITE, ZERO = "#FFFFFF", "#F1F3F6"
INPUT, RESULT = tint(SKY, 0.22), tint(GREEN, 0.14)
CURRENT = tint(ORANGE, 0.7)  # under the kernel at this step
CROP: dict[str, Any] = {"edgecolor": VERMILION, "linestyle": (0, (3, 1.6))}
MAX_SIDE = 24  # cells along a side that are still readable
MAX_PANELS = 36  # of single steps
MAX_STEPS = 100  # of an animation
View = Literal["copies", "zeros"]
Colors = list[list[Any]]


@style.applied()
def panels(case: Case, title: str | None = None) -> Figure:
    """Draw the whole example on one sheet.

    Raises:
        ConfigError: It has more than 24 cells along a side.
    """
    _check_size(case)
    return _conv_panels(case, title) if case.is_conv else _transpose_panels(case, title)


@style.applied()
def frames(case: Case, title: str | None = None, view: View = "copies") -> list[Figure]:
    """Draw the steps of the kernel, one figure each, and at last the result.

    Args:
        case: The example. A convolution's kernel always slides.
        title: A title instead of the options.
        view: A transposed convolution as "copies" that are summed, or as a kernel that slides over
            a grid of "zeros".

    Raises:
        ConfigError: It has more than 24 cells along a side, or more than 100 steps.
    """
    _check_size(case)
    slides = case.is_conv or view == "zeros"
    count = case.result().size if slides else case.x.size
    if count > MAX_STEPS:
        raise ConfigError(f"an animation has at most {MAX_STEPS} steps. Received: {count}")
    return list(_sliding(case, title) if slides else _adding(case, title))


def _check_size(case: Case) -> None:
    shape = case.padded().shape if case.is_conv else case.zero_grid().shape
    if max(shape) > MAX_SIDE:
        raise ConfigError(
            f"a picture has at most {MAX_SIDE}x{MAX_SIDE} cells. Received: {format_shape(shape)}; "
            "the terminal and --json take more"
        )


def _header(case: Case, title: str | None) -> tuple[str, str]:
    if title is None:
        return case.format_title(), case.format_sizes()
    sizes = f"{format_shape(case.size)} input, {format_shape(case.kernel_size)} kernel"
    return title, f"{sizes}; {case.format_sizes()}"


def _cell_side(points: float, cells: int, low: float, high: float) -> float:
    return float(np.clip(points / cells, low, high))


# ---- the whole example --------------------------------------------------------------------------


def _transpose_panels(case: Case, title: str | None) -> Figure:
    result = case.result()
    side = _cell_side(880, case.canvas().shape[1] * 2 + result.shape[1] + 6, 11, 28)
    small = side if case.x.size <= 4 else max(9.0, side * 0.62)
    total, corner = _sum_grid(case, side)
    output = _result_grid(result, side)
    zeros, kept = _zero_grid(case, side)
    bands: list[Band] = [("", [Grid(case.x, "input", _hues(case), side=side), _kernel(case, side)])]
    if case.x.size <= MAX_PANELS:
        bands.append(("1. One scaled copy of the kernel for each input", _copy_grids(case, small)))
    crop = case.format_crop()
    bands.append((f"2. The sum of the copies{'; ' + crop if crop else ''}", [total, output]))
    method = "Another method: insert zeros between and around, then stride 1 and a flipped kernel"
    flipped = Grid(case.kernel[::-1, ::-1], "flipped kernel", side=side)
    bands.append((method, [zeros, flipped, replace(output)]))
    paper, places = lay_out(*_header(case, title), bands)
    if crop:
        total.frame(paper, *places[id(total)], (*corner, *result.shape), **CROP)
        zeros.frame(paper, *places[id(zeros)], kept, **CROP)
    return paper.figure


def _conv_panels(case: Case, title: str | None) -> Figure:
    padded, result = case.padded(), case.result()
    side = _cell_side(760, padded.shape[1] + result.shape[1] + case.kernel.shape[1] + 4, 11, 28)
    inside = _inside(case)
    name = f"input {format_shape(case.size)}"
    if padded.size > case.x.size:
        name += f", padded to {format_shape(padded.shape)}"
    main = Grid(padded, name, _input_colors(inside), faint=~inside, side=side)
    bands: list[Band] = [("", [main, _kernel(case, side), _result_grid(result, side)])]
    if result.size <= MAX_PANELS:
        windows = []
        for number, place in enumerate(np.ndindex(*result.shape), 1):
            colors, blank = _input_colors(inside), np.ones(padded.shape, bool)
            for r, c in _window(case, place):
                colors[r][c], blank[r, c] = CURRENT, False
            name = f"{number}: gives {format_cell(result[place])}"
            windows.append(Grid(padded, name, colors, blank, side=max(9.0, side * 0.5)))
        bands.append(("Each output is the sum of one window times the kernel", windows))
    return lay_out(*_header(case, title), bands)[0].figure


def _kernel(case: Case, side: float) -> Grid:
    return Grid(case.kernel, "kernel", side=side)


def _result_grid(result: Array, side: float, blank: Array | None = None) -> Grid:
    return Grid(result, f"result {format_shape(result.shape)}", RESULT, blank, side=side)


def _hues(case: Case) -> Colors:
    """Return a tint for each element of the input."""
    rows, columns = case.size
    tints = [tint(hue, 0.34) for hue in HUES]
    return [[tints[(r * columns + c) % len(tints)] for c in range(columns)] for r in range(rows)]


def _copy_grids(case: Case, side: float) -> list[Grid]:
    """Return the canvas with the copy of one element alone, for each element."""
    shape, hues = case.canvas().shape, _hues(case)
    grids = []
    for number, ((row, column), cells) in enumerate(case.copies(), 1):
        values, blank = np.zeros(shape, case.canvas().dtype), np.ones(shape, bool)
        colors: Colors = [[WHITE] * shape[1] for _ in range(shape[0])]
        for (r, c), value in cells.items():
            values[r, c], blank[r, c], colors[r][c] = value, False, hues[row][column]
        name = f"{number}: {format_cell(case.x[row, column])} × kernel"
        grids.append(Grid(values, name, colors, blank, side=side))
    return grids


def _sum_grid(case: Case, side: float) -> tuple[Grid, Pair]:
    """Return the canvas with the zeros that output_padding adds, and the result's first cell."""
    ones = replace(case, x=np.ones(case.size, int), kernel=np.ones(case.kernel_size, int))
    counts = np.pad(ones.canvas(), case.added_zeros)
    values = np.pad(case.canvas(), case.added_zeros)
    most = int(counts.max())
    shades = [ZERO] + [tint(BLUE, 0.08 + 0.5 * n / max(most - 1, 1)) for n in range(most)]
    overlap = f"from 1 copy in a cell (pale) to {most} (dark)" if most > 1 else "no copies overlap"
    colors = [[shades[n] for n in row] for row in counts]
    name = f"sum {format_shape(values.shape)}: {overlap}"
    (top, _), (left, _) = case.crops
    return Grid(values, name, colors, faint=counts == 0, side=side), (max(top, 0), max(left, 0))


def _zero_grid(case: Case, side: float) -> tuple[Grid, Box]:
    """Return the grid of zeros with those that output_padding adds, and the box the crop leaves."""
    added = case.added_zeros
    zeros = np.pad(case.zero_grid(), added)
    faint = np.ones(zeros.shape, bool)
    colors: Colors = [[ZERO] * zeros.shape[1] for _ in range(zeros.shape[0])]
    extents = case.options.extents(case.kernel_size)
    for place in np.ndindex(*case.size):
        row, column = (
            added[a][0] + extents[a] - 1 + place[a] * case.options.strides[a] for a in (0, 1)
        )
        faint[row, column], colors[row][column] = False, _hues(case)[place[0]][place[1]]
    top, bottom, left, right = (max(n, 0) for pair in case.crops for n in pair)
    kept = top, left, zeros.shape[0] - top - bottom, zeros.shape[1] - left - right
    name = f"grid {format_shape(zeros.shape)}"
    return Grid(zeros, name, colors, faint=faint, side=side), kept


def _inside(case: Case) -> Array:
    """Return which cells of a convolution's padded input are the input's own."""
    return np.pad(np.ones(case.size, bool), case.options.conv_pads(case.size, case.kernel_size))


def _input_colors(inside: Array) -> Colors:
    return [[INPUT if i else ZERO for i in row] for row in inside]


def _window(case: Case, place: Pair) -> list[Pair]:
    """Return the cells under the taps of a convolution's kernel for the output at `place`."""
    (down, right), (step, across) = case.options.dilation_rate, case.options.strides
    taps = np.ndindex(*case.kernel_size)
    return [(place[0] * step + i * down, place[1] * across + j * right) for i, j in taps]


# ---- step by step -------------------------------------------------------------------------------


def _frame(
    header: tuple[str, str],
    bands: Sequence[Band],
    note: str,
    outlined: tuple[Grid, Box] | None = None,
    **look: Any,
) -> Figure:
    """Draw one step: grids, a note below them, and a line around the cells of one grid."""
    paper, places = lay_out(*header, bands, below=26)
    if outlined:
        grid, box = outlined
        grid.frame(paper, *places[id(grid)], box, **look)
    paper.text(MARGIN, paper.height - 16, note, size=style.TEXT)
    return paper.figure


def _adding(case: Case, title: str | None) -> Iterator[Figure]:
    """Draw copy after copy added on the canvas, then the crop and the result."""
    copies, result, hues, header = case.copies(), case.result(), _hues(case), _header(case, title)
    total, corner = _sum_grid(case, side=0)
    shape = total.values.shape
    side = _cell_side(640, shape[1] + case.x.shape[1] + case.kernel.shape[1] + 2, 12, 30)
    total = replace(total, title=f"sum {format_shape(shape)}", side=side)  # equal in every frame
    input_ = Grid(case.x, "input", hues, side=side)
    empty = _result_grid(result, side, np.ones(result.shape, bool))
    (top, _), (left, _) = case.added_zeros
    running = np.zeros_like(total.values)
    for number, ((row, column), cells) in enumerate(copies, 1):
        value, hue = case.x[row, column], hues[row][column]
        for (r, c), product in cells.items():
            running[top + r, left + c] += product
        colors: Colors = [[ZERO if not n else WHITE for n in line] for line in running]
        for r, c in cells:
            colors[top + r][left + c] = hue
        name = f"{format_cell(value)} × kernel"
        scaled = Grid(value * case.kernel, name, hue, side=side)
        canvas = Grid(running.copy(), total.title, colors, faint=running == 0, side=side)
        place = row * case.options.strides[0], column * case.options.strides[1]
        note = f"Step {number} of {len(copies)}: add {name} at row {place[0]}, column {place[1]}"
        bands: list[Band] = [("", [input_, scaled]), ("", [canvas, empty])]
        yield _frame(header, bands, note, (input_, (row, column, 1, 1)))
    crop = case.format_crop()
    note = f"{len(copies)} copies summed" + (f"; {crop}" if crop else "")
    bands = [("", [input_, _kernel(case, side)]), ("", [total, _result_grid(result, side)])]
    outlined = (total, (*corner, *result.shape)) if crop else None
    yield _frame(header, bands, note, outlined, **CROP)


def _sliding(case: Case, title: str | None) -> Iterator[Figure]:
    """Draw the kernel at every place of the padded input, or of the grid of zeros."""
    result, header = case.result(), _header(case, title)
    if case.is_conv:
        slid, kernel, grid, name = case, _kernel(case, 0), case.padded(), "padded input"
        colors, faint = _input_colors(_inside(case)), ~_inside(case)
    else:
        zeros, (top, left, rows, columns) = _zero_grid(case, 0)
        box = slice(top, top + rows), slice(left, left + columns)
        grid, faint = zeros.values[box], np.asarray(zeros.faint)[box]
        colors = [row[box[1]] for row in zeros.colors[box[0]]]
        kernel, name = Grid(case.kernel[::-1, ::-1], "flipped kernel"), "grid of zeros and input"
        options = ConvOptions(dilation_rate=case.options.dilation_rate)
        slid = Case(grid, case.kernel, options, "conv")
    cells = grid.shape[1] + result.shape[1] + kernel.values.shape[1] + 3
    side = _cell_side(760, cells, 12, 30)
    kernel = replace(kernel, side=side)
    blank = np.ones(result.shape, bool)
    for number, place in enumerate(np.ndindex(*result.shape), 1):
        window = _window(slid, place)
        blank[place] = False
        current = [list(row) for row in colors]
        for r, c in window:
            current[r][c] = CURRENT
        shown = Grid(grid, f"{name}, {format_shape(grid.shape)}", current, faint=faint, side=side)
        output_colors: Colors = [[RESULT] * result.shape[1] for _ in range(result.shape[0])]
        output_colors[place[0]][place[1]] = CURRENT
        output = replace(_result_grid(result, side, blank.copy()), colors=output_colors)
        pairs = zip((grid[cell] for cell in window), kernel.values.ravel(), strict=True)
        products = [f"{format_cell(a)}·{format_cell(b)}" for a, b in pairs]
        total = " + ".join(products) if len(products) <= 9 else "window times kernel"
        note = f"Step {number} of {result.size}: {total} = {format_cell(result[place])}"
        yield _frame(header, [("", [shown, kernel, output])], note)
