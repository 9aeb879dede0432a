"""The style of every figure: the sheet, the palette, the font, and how a figure is saved.

Lengths are in points of 1/72 inch. Files hold two pixels a point, so at half size, as a README
shows them, a point is a pixel and the smallest text is 10 pixels high. Figures are made without
pyplot, which takes half a second to import and keeps every figure in memory.
"""

from __future__ import annotations

import io
import logging
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from numpy.typing import ArrayLike

from convae.console import logger
from convae.files import write_atomic

# Okabe and Ito, "Color universal design" (2008): distinguished with every kind of color vision.
BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, YELLOW = "#56B4E9", "#CC79A7", "#F0E442"
INK, GRAY, LINE = "#1F2933", "#5F6B7A", "#DDE2E8"
NOTICE = "#FFF3D1"
DOTS = 2  # pixels a point
MARGIN = 16.0
TITLE, TEXT, SMALL = 16.0, 11.0, 10.0

FONT = "DejaVu Sans"  # part of matplotlib: the same on every machine
OTHER_FONTS = (  # for characters that it lacks, where they are installed
    "Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Micro Hei", "Hiragino Sans", "Yu Gothic",
    "Microsoft YaHei", "Malgun Gothic", "Noto Sans Thai", "Noto Sans Devanagari", "Nirmala UI",
    "Leelawadee UI", "Arial Unicode MS",
)  # fmt: skip

_SETTINGS: dict[str, Any] = {
    "figure.dpi": 72 * DOTS,
    "font.size": TEXT,
    "text.parse_math": False,  # a folder may have a dollar in its name
    "text.color": INK,
    "axes.titlesize": TEXT,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.titlecolor": INK,
    "axes.labelsize": TEXT,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRAY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": f"cycler(color={[BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY]})",
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "lines.linewidth": 2,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
}
for _name in ("xtick", "ytick"):
    _SETTINGS |= {f"{_name}.labelsize": SMALL, f"{_name}.color": GRAY, f"{_name}.labelcolor": INK}
    _SETTINGS |= {f"{_name}.major.size": 0, f"{_name}.minor.size": 0}


@contextmanager
def applied() -> Iterator[None]:
    """Use this style in place of the user's matplotlibrc; a context manager or a decorator."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)  # type: ignore[arg-type]
        mpl.rcParams["font.family"] = font_families()
        yield


@cache
def font_families() -> list[str]:
    """Return the fonts of figures, each for the characters that those before it lack."""
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # some have no bold face
    installed = font_manager.get_font_names()
    return [FONT, *(name for name in OTHER_FONTS if name in installed)]


@cache
def _warn_of_boxes() -> None:
    logger.warning(
        f"warning: figures show boxes for characters that no font here has. Install one of: "
        f"{', '.join(OTHER_FONTS)}; then delete {mpl.get_cachedir()}, where matplotlib keeps its "
        "list of fonts"
    )


@dataclass(frozen=True)
class Sheet:
    """A titled figure on which everything is placed in points from the top left of its body.

    The canvas is an axes over the complete figure, in points, y downwards; the header is at
    negative y.
    """

    figure: Figure
    canvas: Axes
    width: float
    height: float  # of the body, below the header

    def text(self, x: float, y: float, text: str, **style: Any) -> Text:
        """Write `text` at a point; by default in INK, from x on, centered on y."""
        return self.canvas.text(x, y, text, **({"va": "center"} | style))

    def image(
        self, pixels: ArrayLike, left: float, top: float, side: float, **options: Any
    ) -> AxesImage:
        """Show (H, W) or (H, W, 3) in the middle of a square of `side` points.

        `options` are imshow's; by default gray, from 0 to 1.
        """
        height, width = np.shape(pixels)[:2]
        wide, high = width * zoom(pixels, side), height * zoom(pixels, side)
        left += round((side - wide) / 2 * DOTS) / DOTS
        top += round((side - high) / 2 * DOTS) / DOTS
        extent = (left, left + wide, top + high, top)
        look: dict[str, Any] = {"cmap": "gray", "vmin": 0.0, "vmax": 1.0} | options
        return self.canvas.imshow(pixels, extent=extent, aspect="auto", **look)

    def panel(self, left: float, top: float, width: float, height: float, title: str = "") -> Axes:
        """Return axes whose frame is this box; their labels are outside it."""
        total = self.figure.get_figheight() * 72
        bottom = self.height - top - height
        box = (left / self.width, bottom / total, width / self.width, height / total)
        return self.figure.add_axes(box, title=title)


def zoom(pixels: ArrayLike, side: float) -> float:
    """Return the points per pixel of an image (H, W, ...) in a square of `side` points.

    Small images are enlarged by an integer, so that every pixel has the same size.
    """
    dots = side * DOTS / max(np.shape(pixels)[:2])
    return (int(dots) if dots > 1 else dots) / DOTS


def sheet(width: float, height: float, title: str, subtitle: str, note: str | None = None) -> Sheet:
    """Return an empty sheet with a body of `width` x `height` points below its header.

    `note` is a warning, drawn in a box.
    """
    room = width - 2 * MARGIN
    titles = textwrap.wrap(title, max(20, int(room / (0.62 * TITLE))))
    subtitles = textwrap.wrap(subtitle, max(20, int(room / (0.56 * TEXT))))
    notes = textwrap.wrap(note or "", max(20, int((room - 16) / (0.57 * TEXT))))
    lines = [(TITLE, 22.0, line) for line in titles] + [(TEXT, 17.0, line) for line in subtitles]
    header = MARGIN + sum(step for _, step, _ in lines) + (17 * len(notes) + 16 if notes else 0) + 8
    figure = Figure(figsize=(width / 72, (header + height) / 72), dpi=72 * DOTS, facecolor="white")
    FigureCanvasAgg(figure)
    canvas = figure.add_axes((0, 0, 1, 1), label="canvas")
    canvas.set_axis_off()
    canvas.set(xlim=(0, width), ylim=(height, -header), autoscale_on=False)
    made = Sheet(figure, canvas, width, height)
    y = MARGIN - header
    for size, step, line in lines:
        look = {"weight": "bold"} if size == TITLE else {"color": GRAY}
        made.text(MARGIN, y + step / 2, line, size=size, **look)
        y += step
    if notes:
        box = {"boxstyle": "round,pad=0.5", "facecolor": NOTICE, "edgecolor": ORANGE}
        text = "\n".join(notes)
        made.text(MARGIN + 6, y + 10, text, va="top", linespacing=1.3, bbox=box)
    return made


def log_axis(axes: Axes, which: Literal["x", "y"], values: ArrayLike) -> None:
    """Make an axis logarithmic, from one of 1, 2, 5, 10, ... below `values` to one above.

    Only powers of ten have a tick where there are many. Without a positive value nothing changes.
    """
    positive = np.asarray(values, float)
    positive = positive[np.isfinite(positive) & (positive > 0)]
    if not len(positive):
        return
    steps = [digit * 10.0**power for power in range(-12, 7) for digit in (1, 2, 5)]
    low = max((step for step in steps if step < positive.min()), default=steps[0])
    high = min((step for step in steps if step > positive.max()), default=steps[-1])
    ticks = [step for step in steps if low <= step <= high]
    if len(ticks) > {"x": 8, "y": 14}[which]:
        ticks = [tick for tick in ticks if f"{tick:e}".startswith("1.")]
    if which == "x" and len(ticks) > 2 and ticks[0] == low:
        ticks = ticks[1:]  # the label in the corner would touch that of the y axis
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    axis = {"x": axes.xaxis, "y": axes.yaxis}[which]
    axis.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    axis.set_ticks([], minor=True)


def save(figure: Figure, path: str | Path) -> Path:
    """Write a PNG and return its path; the same figure gives the same bytes."""
    write_atomic(Path(path), to_png(figure))
    return Path(path)


def to_png(figure: Figure) -> bytes:
    """Return a figure as a PNG file."""
    data = io.BytesIO()
    with applied(), warnings.catch_warnings(record=True) as caught:  # ticks are made when drawn
        warnings.filterwarnings("always", "Glyph .* missing from font")
        # Without this, the file would name the version of matplotlib that wrote it.
        figure.savefig(data, format="png", dpi=72 * DOTS, metadata={"Software": None})
    for warning in caught:
        if "missing from font" in str(warning.message):
            _warn_of_boxes()
        else:  # show it: only those of glyphs are said in our own words
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    return data.getvalue()
