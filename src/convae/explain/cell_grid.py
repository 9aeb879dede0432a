"""Matrices drawn as numbered cells, laid out on a sheet, and written to PNG, SVG or GIF."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from convae.arrays import Array
from convae.errors import ConfigError
from convae.explain.worked_example import format_cell
from convae.files import write_output
from convae.plots import style
from convae.plots.style import GRAY, INK, MARGIN, Sheet

EDGE = "#B9C2CC"
MAX_WIDTH = 920.0  # points of a sheet
GAP, TITLE_HEIGHT = 26.0, 20.0
Band = tuple[str, Sequence["Grid"]]  # a heading, and the grids below it
Box = tuple[int, int, int, int]  # first row, first column, rows, columns


def tint(color: str, strength: float) -> tuple[float, float, float]:
    """Return a color mixed with white; strength 0 is white, 1 the color itself."""
    red, green, blue = (1 - strength * (1 - c) for c in to_rgb(color))
    return red, green, blue


@dataclass(frozen=True)
class Grid:
    """A matrix to draw: its numbers, its title, and the look of its cells."""

    values: Array
    title: str = ""
    colors: Any = "#FFFFFF"  # one for all cells, or (h, w) of them
    blank: Array | None = None  # (h, w), True: no number in this cell
    faint: Array | None = None  # (h, w), True: the number in gray
    side: float = 30.0  # points of a cell

    @property
    def width(self) -> float:
        """Points from left to right, including the title."""
        return max(float(self.values.shape[1] * self.side), 6.1 * len(self.title))

    @property
    def height(self) -> float:
        """Points from the top of the title to the bottom."""
        return float(self.values.shape[0] * self.side) + TITLE_HEIGHT

    def draw(self, paper: Sheet, left: float, top: float) -> None:
        """Draw the grid below its title, from the top left corner."""
        paper.text(left, top + 8, self.title, size=style.SMALL)
        top += TITLE_HEIGHT
        cells = list(np.ndindex(*self.values.shape))
        corners = [(left + c * self.side, top + r * self.side) for r, c in cells]
        boxes = [Rectangle(corner, self.side, self.side) for corner in corners]
        single = isinstance(self.colors, str | tuple)
        faces = [self.colors if single else self.colors[r][c] for r, c in cells]
        patches = PatchCollection(boxes, facecolors=faces, edgecolors=EDGE, linewidths=0.7)
        paper.canvas.add_collection(patches)
        words = [format_cell(v) for v in self.values.ravel()]
        size = min(self.side * 0.44, self.side * 1.45 / max(map(len, words)), 13)
        for (r, c), word in zip(cells, words, strict=True):
            if self.blank is None or not self.blank[r, c]:
                gray = self.faint is not None and self.faint[r, c]
                x, y = left + (c + 0.5) * self.side, top + (r + 0.5) * self.side
                look = {"ha": "center", "va": "center_baseline", "color": GRAY if gray else INK}
                paper.text(x, y, word, size=size, **look)

    def frame(self, paper: Sheet, left: float, top: float, box: Box, **changes: Any) -> None:
        """Draw a line around the cells of `box`."""
        row, column, rows, columns = box
        corner = (left + column * self.side, top + TITLE_HEIGHT + row * self.side)
        look: dict[str, Any] = {"fill": False, "linewidth": 2.2, "edgecolor": INK} | changes
        width, height = columns * self.side, rows * self.side
        paper.canvas.add_patch(Rectangle(corner, width, height, zorder=3, **look))


def lay_out(
    title: str, subtitle: str, bands: Sequence[Band], least: float = 660.0, below: float = 0.0
) -> tuple[Sheet, dict[int, tuple[float, float]]]:
    """Draw bands of grids below each other, each wrapped into as many rows as it needs.

    Args:
        title: Of the sheet.
        subtitle: Below the title.
        bands: Headings, and the grids below each.
        least: The minimum width of the sheet, in points.
        below: Points of room under the last band.

    Returns:
        The sheet, and (left, top) of each grid by its id.
    """
    room = MAX_WIDTH - 2 * MARGIN
    places: list[tuple[Grid, float, float]] = []
    headings: list[tuple[str, float]] = []
    top, widest = 4.0, least
    for heading, grids in bands:
        if heading:
            headings.append((heading, top))
            top += 24
        left, low = MARGIN, 0.0
        for grid in grids:
            if left > MARGIN and left + grid.width > room + MARGIN:
                left, top, low = MARGIN, top + low + 12, 0.0
            places.append((grid, left, top))
            left, low = left + grid.width + GAP, max(low, grid.height)
            widest = max(widest, left - GAP + MARGIN, 7.1 * len(heading) + 2 * MARGIN)
        top += low + 22
    paper = style.sheet(widest, top - 6 + below, title, subtitle)
    for heading, y in headings:
        paper.text(MARGIN, y + 8, heading, weight="bold", size=style.TEXT)
    for grid, left, y in places:
        grid.draw(paper, left, y)
    return paper, {id(grid): (left, y) for grid, left, y in places}


def check_format(path: str | Path, *, steps: bool = True) -> None:
    """Raise ConfigError unless a file name ends in a format; .gif needs `steps` to show."""
    formats = [name for name in WRITERS if steps or name != ".gif"]
    if Path(path).suffix not in formats:
        raise ConfigError(f"{path}: the name of a picture must end in {' or '.join(formats)}")


def write(figures: Figure | Sequence[Figure], path: str | Path) -> Path:
    """Write the last of the figures as PNG or SVG, or all as the frames of a GIF.

    The same figures give the same bytes. The last frame stays three times as long.

    Raises:
        ConfigError: The name does not end in .png, .svg or .gif.
        FileError: The file cannot be written.
    """
    check_format(path)
    frames = [figures] if isinstance(figures, Figure) else list(figures)
    return write_output(path, WRITERS[Path(path).suffix](frames))


def _svg(figures: Sequence[Figure]) -> bytes:
    data = io.BytesIO()
    with style.applied(), mpl.rc_context({"svg.hashsalt": "convae", "svg.fonttype": "path"}):
        figures[-1].savefig(data, format="svg", metadata={"Date": None, "Creator": None})
    return data.getvalue()


def _gif(figures: Sequence[Figure]) -> bytes:
    pictures = []
    for figure in figures:
        with style.applied():
            figure.canvas.draw()
        pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]
        pictures.append(Image.fromarray(np.ascontiguousarray(pixels)))
    # One palette for all, from the first and last frame, so that nothing flickers.
    both = Image.new("RGB", (pictures[0].width, pictures[0].height * 2))
    both.paste(pictures[0], (0, 0))
    both.paste(pictures[-1], (0, pictures[0].height))
    palette = both.quantize(128, method=Image.Quantize.MAXCOVERAGE)
    colors = np.array(palette.getpalette()).reshape(-1, 3)
    colors[colors.min(axis=1) > 247] = 255  # white stays white
    palette.putpalette(colors.ravel().tolist())
    first, *others = [p.quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]
    times = [900] * len(others) + [2700]  # milliseconds
    data = io.BytesIO()
    first.save(
        data, "GIF", save_all=True, append_images=others, duration=times, loop=0, optimize=False
    )
    return data.getvalue()


WRITERS: dict[str, Callable[[Sequence[Figure]], bytes]] = {
    ".png": lambda figures: style.to_png(figures[-1]),
    ".svg": _svg,
    ".gif": _gif,
}
