"""Matrices drawn as numbered cells, laid out on a sheet, and written to PNG, SVG or GIF.

The same figures give the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from convae.errors import ConfigError
from convae.explain.operation import Array
from convae.explain.worked_example import cell
from convae.files import write_atomic
from convae.plots import style
from convae.plots.style import GRAY, INK, MARGIN, Sheet

EMPTY = "#FFFFFF"
EDGE = "#B9C2CC"
WIDEST = 920.0  # points of a sheet
GAP = 26.0
FORMATS = (".png", ".svg", ".gif")
Band = tuple[str, Sequence["Grid"]]  # a heading, and the grids below it


def tint(color: str, strength: float) -> tuple[float, float, float]:
    """A color mixed with white; strength 0 is white, 1 the color itself."""
    red, green, blue = (1 - strength * (1 - c) for c in to_rgb(color))
    return red, green, blue


@dataclass(frozen=True)
class Grid:
    """A matrix to be drawn: its numbers, its title, and how its cells look."""

    values: Array
    title: str = ""
    colors: Any = EMPTY  # one for all, or (h, w) of them
    blank: Array | None = None  # True: no number in this cell
    faint: Array | None = None  # True: the number in gray
    side: float = 30.0  # points of a cell

    @property
    def width(self) -> float:
        """Points from left to right, room for the title included."""
        return max(float(self.values.shape[1] * self.side), 6.1 * len(self.title))

    @property
    def height(self) -> float:
        """Points from the top of the title to the bottom."""
        return float(self.values.shape[0] * self.side) + 20

    def draw(self, paper: Sheet, left: float, top: float) -> None:
        """Put the grid on paper, its title first, from the top left corner."""
        rows, columns = self.values.shape
        if self.title:
            paper.text(left, top + 8, self.title, size=style.SMALL)
        top += 20
        places = list(np.ndindex(rows, columns))
        boxes = [
            Rectangle((left + c * self.side, top + r * self.side), self.side, self.side)
            for r, c in places
        ]
        single = isinstance(self.colors, str | tuple)
        faces = [self.colors if single else self.colors[r][c] for r, c in places]
        paper.canvas.add_collection(
            PatchCollection(boxes, facecolors=faces, edgecolors=EDGE, linewidths=0.7)
        )
        words = [cell(v) for v in self.values.ravel()]
        longest = max(len(w) for w in words)
        size = min(self.side * 0.44, self.side * 1.45 / max(longest, 1), 13)
        for (r, c), word in zip(places, words, strict=True):
            if self.blank is None or not self.blank[r, c]:
                gray = self.faint is not None and self.faint[r, c]
                x, y = left + (c + 0.5) * self.side, top + (r + 0.5) * self.side
                paper.text(
                    x,
                    y,
                    word,
                    ha="center",
                    va="center_baseline",
                    size=size,
                    color=GRAY if gray else INK,
                )

    def frame(
        self, paper: Sheet, left: float, top: float, box: tuple[int, int, int, int], **changes: Any
    ) -> None:
        """Draw a line around the cells of `box`: first row, first column, rows, columns."""
        row, column, rows, columns = box
        corner = (left + column * self.side, top + 20 + row * self.side)
        look: dict[str, Any] = {"fill": False, "linewidth": 2.2, "edgecolor": INK} | changes
        paper.canvas.add_patch(
            Rectangle(corner, columns * self.side, rows * self.side, zorder=3, **look)
        )


def lay_out(
    title: str, subtitle: str, bands: Sequence[Band], least: float = 660.0, below: float = 0.0
) -> tuple[Sheet, dict[int, tuple[float, float]]]:
    """Bands of grids below each other, each as many rows as it takes; and where each grid lies.

    The sheet is at least `least` points wide and has `below` points of room under the last band.
    """
    room = WIDEST - 2 * MARGIN
    places: list[tuple[Grid, float, float]] = []
    heads: list[tuple[str, float]] = []
    top, widest = 4.0, least
    for head, grids in bands:
        if head:
            heads.append((head, top))
            top += 24
        left, low = MARGIN, 0.0
        for grid in grids:
            if left > MARGIN and left + grid.width > room + MARGIN:
                left, top, low = MARGIN, top + low + 12, 0.0
            places.append((grid, left, top))
            left, low = left + grid.width + GAP, max(low, grid.height)
            widest = max(widest, left - GAP + MARGIN, 7.1 * len(head) + 2 * MARGIN)
        top += low + 22
    paper = style.sheet(widest, top - 6 + below, title, subtitle)
    for head, y in heads:
        paper.text(MARGIN, y + 8, head, weight="bold", size=style.TEXT)
    found = {}
    for grid, left, y in places:
        grid.draw(paper, left, y)
        found[id(grid)] = (left, y)
    return paper, found


def check_format(path: str | Path, formats: Sequence[str] = FORMATS) -> None:
    """Raise ConfigError for a file name that does not end in one of the formats."""
    if Path(path).suffix not in formats:
        raise ConfigError(f"{path}: the name of a picture must end in {' or '.join(formats)}")


def write(figures: Figure | Sequence[Figure], path: str | Path, seconds: float = 0.9) -> Path:
    """Write a figure as PNG or SVG, or figures as the frames of a GIF; by the name's ending.

    The file appears whole or not at all. The last frame stays three times as long.
    """
    path = Path(path)
    check_format(path)
    frames_ = [figures] if isinstance(figures, Figure) else list(figures)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            return style.save(frames_[-1], path)
        write_atomic(path, _gif(frames_, seconds) if path.suffix == ".gif" else _svg(frames_[-1]))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from None
    return path


def _svg(figure: Figure) -> bytes:
    data = io.BytesIO()
    with style.applied(), mpl.rc_context({"svg.hashsalt": "convae", "svg.fonttype": "path"}):
        figure.savefig(data, format="svg", metadata={"Date": None, "Creator": None})
    return data.getvalue()


def _gif(figures: Sequence[Figure], seconds: float) -> bytes:
    from PIL import Image

    pictures = []
    for figure in figures:
        with style.applied():
            figure.canvas.draw()
        pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]
        pictures.append(Image.fromarray(np.ascontiguousarray(pixels)))
    # one palette for all, from the first and last frame, so that nothing flickers
    both = Image.new("RGB", (pictures[0].width, pictures[0].height * 2))
    both.paste(pictures[0], (0, 0))
    both.paste(pictures[-1], (0, pictures[0].height))
    palette = both.quantize(128, method=Image.Quantize.MAXCOVERAGE)
    colors = np.array(palette.getpalette()).reshape(-1, 3)
    colors[colors.min(axis=1) > 247] = 255  # white stays white
    palette.putpalette(colors.ravel().tolist())
    steps = [p.quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]
    times = [int(seconds * 1000)] * (len(steps) - 1) + [int(seconds * 3000)]
    out = io.BytesIO()
    steps[0].save(
        out, "GIF", save_all=True, append_images=steps[1:], duration=times, loop=0, optimize=False
    )
    return out.getvalue()
