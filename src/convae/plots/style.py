"""The look of every figure: one sheet, one palette, one font, one way to save.

Lengths are in points of 1/72 inch. Files hold two pixels a point, so at half size, as a README
shows them, a point is a pixel and the smallest text is 10 pixels high. Figures are made without
pyplot: it costs half a second of import and keeps every figure alive.
"""

from __future__ import annotations

import io
import textwrap
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from convae.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.image import AxesImage
    from matplotlib.text import Text
    from numpy.typing import ArrayLike, NDArray

# Okabe and Ito, "Color universal design" (2008): told apart with every kind of color vision.
BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, YELLOW = "#56B4E9", "#CC79A7", "#F0E442"
INK, GRAY, LINE = "#1F2933", "#5F6B7A", "#DDE2E8"
NOTICE = "#FFF3D1"
# Ten classes on INK, the background: of 48 candidates that are light enough, those whose nearest
# two (CIE 1976) are 32 apart, and 22 with deuteranopia and protanopia (Machado et al. 2009).
CLASSES = (
    "#6A8CFF", "#F0E442", "#D55E00", "#8FA3B0", "#D9B3FF",
    "#FFFFFF", "#00A86B", "#A0522D", "#B2DF8A", "#0072B2",
)  # fmt: skip

DOTS = 2  # pixels a point
MARGIN = 16.0
TITLE, TEXT, SMALL = 16.0, 11.0, 10.0

_SETTINGS: dict[str, Any] = {
    "figure.dpi": 72 * DOTS,
    "font.family": ["DejaVu Sans"],  # matplotlib brings it along: the same on every machine
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
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.color": GRAY,
    "ytick.color": GRAY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 2,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
}


@contextmanager
def applied() -> Iterator[None]:
    """Draw in this style, whatever the user's matplotlibrc says; also a decorator."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)  # type: ignore[arg-type]
        yield


@dataclass(frozen=True)
class Sheet:
    """A titled figure on which everything is placed in points, from the top left of its body.

    Made by `sheet`. The canvas is an axes over the whole figure, in points, y downwards; the
    header lies at negative y.
    """

    figure: Figure
    canvas: Axes
    width: float
    height: float  # of the body, below the header

    def text(self, x: float, y: float, text: str, **style: Any) -> Text:
        """Write `text` at a point; by default in ink, zero_center on y, beginning at x."""
        return self.canvas.text(x, y, text, **({"va": "center"} | style))

    def image(
        self,
        pixels: ArrayLike,
        left: float,
        top: float,
        side: float,
        *,
        cmap: str | Colormap = "gray",
        vmin: float = 0.0,
        vmax: float = 1.0,
    ) -> AxesImage:
        """Show (H, W) or (H, W, 3) in the middle of a square of `side` points."""
        height, width = np.shape(pixels)[:2]
        wide, high = width * zoom(pixels, side), height * zoom(pixels, side)
        left += round((side - wide) / 2 * DOTS) / DOTS
        top += round((side - high) / 2 * DOTS) / DOTS
        extent = (left, left + wide, top + high, top)
        return self.canvas.imshow(
            pixels, cmap=cmap, vmin=vmin, vmax=vmax, extent=extent, aspect="auto"
        )

    def panel(self, left: float, top: float, width: float, height: float, title: str = "") -> Axes:
        """Axes for a chart whose frame is this box; leave room outside it for labels."""
        total = self.figure.get_figheight() * 72
        bottom = self.height - top - height
        box = (left / self.width, bottom / total, width / self.width, height / total)
        axes = self.figure.add_axes(box)
        axes.set_title(title)
        return axes


def zoom(pixels: ArrayLike, side: float) -> float:
    """Points a pixel for an image (H, W, ...) in a square of `side` points.

    Small images are enlarged by a whole number, so that every pixel keeps the same size.
    """
    dots = side * DOTS / max(np.shape(pixels)[:2])
    return (int(dots) if dots > 1 else dots) / DOTS


def sheet(width: float, height: float, title: str, subtitle: str, note: str | None = None) -> Sheet:
    """An empty sheet with a body of `width` x `height` points below its header.

    `note` is what nobody may overlook, such as data that are not what one thinks: it is set off in
    a box of its own.
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
    canvas.set_xlim(0, width)
    canvas.set_ylim(height, -header)
    canvas.set_autoscale_on(False)
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


def class_colors(count: int) -> NDArray[np.float64]:
    """RGB in [0, 1], (count, 3): CLASSES, or where they do not reach, a rainbow of even lightness.

    More than ten classes cannot all be told apart by color alone.
    """
    if count <= len(CLASSES):
        return np.array([to_rgb(color) for color in CLASSES[:count]])
    return np.asarray(mpl.colormaps["turbo"](np.linspace(0.05, 1, count))[:, :3], np.float64)


def save(figure: Figure, path: str | Path) -> Path:
    """Write a PNG, whole or not at all; the same figure gives the same bytes. Returns the path."""
    path, data = Path(path), io.BytesIO()
    with applied():  # ticks are made only when they are drawn
        # Without this, the file would name the version of matplotlib that wrote it.
        figure.savefig(data, format="png", dpi=72 * DOTS, metadata={"Software": None})
    write_atomic(path, data.getvalue())
    return path
