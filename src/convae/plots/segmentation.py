"""Figures of segmentations: scenes with the classes of their pixels, the confusion matrix.

`data` and `note` are those of image_grids.py. Class maps are integers (N, H, W); the last class is
the background, which is dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from convae.plots import style
from convae.plots.image_grids import GAP, LEFT, NARROWEST, draw_rows, shorten, tile_side, to_floats
from convae.plots.style import MARGIN, applied, sheet
from convae.tasks.segment import color_classes

SCENE = 98.0  # points: room for 64 pixels enlarged three times
COLUMNS = 7


@applied()
def segmentation_grid(
    scenes: NDArray[np.uint8],
    truth: NDArray[np.integer],
    predicted: NDArray[np.integer],
    classes: Sequence[str],
    data: str,
    note: str | None = None,
) -> Figure:
    """Draw scenes, the true and the predicted classes of their pixels, and where these differ.

    `classes` are their names, the background last.
    """
    scenes, truth, predicted = scenes[:COLUMNS], truth[:COLUMNS], predicted[:COLUMNS]
    wrong = truth != predicted
    colors = np.array([to_rgb(style.LINE), to_rgb(style.VERMILION)])
    rows = {
        "scene": to_floats(scenes),
        "truth": to_floats(color_classes(truth, len(classes))),
        "prediction": to_floats(color_classes(predicted, len(classes))),
        "wrong pixels": colors[wrong.astype(int)],
    }
    tile = tile_side(scenes, SCENE)
    step = tile + GAP
    width = max(LEFT + len(scenes) * step - GAP + MARGIN, NARROWEST)
    foot = 8 + len(rows) * step
    labels = [shorten(name, 14) for name in classes]
    room = [30.0 + 6.6 * len(label) for label in labels]
    lines = 1 + int(sum(room) // (width - LEFT - MARGIN))
    title = "Scenes, true and predicted classes, wrong pixels"
    paper = sheet(width, foot + 34 + 22 * lines, title, data, note)
    draw_rows(paper, rows, 8, tile)
    for column, share in enumerate(wrong.mean(axis=(1, 2))):
        x = LEFT + column * step + tile / 2
        paper.text(x, foot + 6, f"{share:.1%}", ha="center", size=style.SMALL)
    x, y = LEFT, foot + 32.0
    palette = color_classes(np.arange(len(classes)), len(classes)) / 255
    for label, wide, color in zip(labels, room, palette, strict=True):
        if x + wide > width - MARGIN + 10:
            x, y = LEFT, y + 22
        box: dict[str, Any] = {"facecolor": color, "edgecolor": style.GRAY, "linewidth": 0.8}
        paper.canvas.add_patch(Rectangle((x, y - 7), 14, 14, **box))
        paper.text(x + 20, y, label)
        x += wide
    return paper.figure


@applied()
def confusion_matrix(
    confusion: NDArray[np.floating],
    classes: Sequence[str],
    data: str,
    note: str | None = None,
) -> Figure:
    """Draw the percentage of the pixels of each class (row) that is taken for each (column)."""
    totals = confusion.sum(axis=1, keepdims=True)
    shares = 100 * np.divide(confusion, totals, out=np.zeros_like(confusion), where=totals > 0)
    count = len(classes)
    cell = 40.0 if count <= 12 else 480 / count
    side = cell * count
    subtitle = f"{data}; percentage of the pixels of each class that is taken for each class"
    paper = sheet(side + 210, side + 84, "Confusion matrix", subtitle, note)
    axes = paper.panel(MARGIN + 124, 50, side, side)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    names = [shorten(name, 11) for name in classes]
    axes.xaxis.tick_top()
    axes.set_xticks(range(count), names, rotation=0 if max(map(len, names[:-1])) < 5 else 60)
    axes.set_yticks(range(count), names)
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("prediction", labelpad=8)
    axes.set_ylabel("truth")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    if count <= 12:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.1:
                color = "white" if share > 55 else style.INK
                look: dict[str, Any] = {"ha": "center", "va": "center", "size": style.SMALL}
                axes.text(column, row, f"{share:.1f}", color=color, **look)
    return paper.figure
