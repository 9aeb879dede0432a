"""Figures of codes: maps, interpolations, nearest neighbors.

Images, `data` and `note` are those of image_grids.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from convae.plots import style
from convae.plots.image_grids import (
    GAP,
    LEFT,
    NARROWEST,
    SMALL_TILE,
    draw_rows,
    shorten,
    tile_side,
    to_floats,
)
from convae.plots.style import MARGIN, applied, sheet
from convae.tasks.segment import class_colors


@applied()
def code_maps(
    maps: Mapping[str, NDArray[np.floating]],
    labels: NDArray[np.integer] | None,
    classes: Sequence[str],
    data: str,
    note: str | None = None,
) -> Figure:
    """Draw a panel for each map of the codes, points (N, 2) in the color of their class.

    The name of a class is at the median of its points.
    """
    names = [shorten(name, 12) for name in classes] if labels is not None else []
    side = 440
    width = 2 * MARGIN + len(maps) * (side + 24) - 24
    subtitle = f"{data}; a point for each image"
    paper = sheet(width, side + 40, "A map of the codes", subtitle, note)
    colors = class_colors(len(names)) / 255
    dot: dict[str, Any] = {"s": 3.5, "linewidths": 0, "alpha": 0.8, "rasterized": True}
    for number, (label, points) in enumerate(maps.items()):
        axes = paper.panel(MARGIN + number * (side + 24), 26, side, side, label)
        axes.set(facecolor=style.INK, xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        color = style.SKY if labels is None else colors[labels]
        axes.scatter(points[:, 0], points[:, 1], c=color, **dot)
        for index, name in enumerate(names):
            chosen = points[labels == index]
            if not len(chosen):
                continue
            dark = float(colors[index] @ (0.2126, 0.7152, 0.0722)) < 0.42
            edge = withStroke(linewidth=3, foreground="white" if dark else style.INK)
            look: dict[str, Any] = {"ha": "center", "va": "center", "weight": "bold", "size": 15}
            x, y = np.median(chosen, axis=0)
            axes.text(x, y, name, color=colors[index], path_effects=[edge], **look)
    return paper.figure


@applied()
def interpolations(
    strips: Sequence[tuple[str, NDArray[Any], NDArray[Any]]],
    data: str,
    note: str | None = None,
) -> Figure:
    """Draw decoded straight lines between two codes above cross-fades of the two images.

    Each of `strips` is a label, the decoded images and the cross-fade, both (steps, H, W, C).
    """
    steps = len(strips[0][1])
    tile = tile_side(strips[0][1], SMALL_TILE)
    step, left = tile + GAP, LEFT + 20
    pair = 2 * step + 14
    width = max(left + steps * step - GAP + MARGIN, 560.0)
    title = "Straight lines between codes, beside cross-fades of the pixels"
    paper = sheet(width, 26 + len(strips) * pair, title, data, note)
    for column in range(steps):
        x = left + column * step + tile / 2
        share = f"{column / (steps - 1):.0%}"
        paper.text(x, 10, share, ha="center", size=style.SMALL, color=style.GRAY)
    for number, (name, decoded, faded) in enumerate(strips):
        top = 22 + number * pair
        paper.text(MARGIN, top + tile + GAP / 2, name, weight="bold")
        rows = {"code": to_floats(decoded), "pixels": to_floats(faded)}
        draw_rows(paper, rows, top, tile, left)
    return paper.figure


@applied()
def traversals(
    strips: Mapping[int, NDArray[Any]],
    values: NDArray[np.floating],
    data: str,
    note: str | None = None,
) -> Figure:
    """Draw a row for each number of the code by its place in it: images (steps, H, W, C).

    In each row only that number differs, with the `values` (steps,) above the columns.
    """
    first = next(iter(strips.values()))
    tile = tile_side(first, SMALL_TILE)
    step, left = tile + GAP, LEFT + 20
    width = max(left + len(values) * step - GAP + MARGIN, 560.0)
    title = "One image, with one number of its code changed at a time"
    subtitle = f"{data}; the numbers of the code that vary most, in their order"
    paper = sheet(width, 26 + len(strips) * step, title, subtitle, note)
    for column, value in enumerate(values):
        x = left + column * step + tile / 2
        paper.text(x, 10, f"{value:+.1f}", ha="center", size=style.SMALL, color=style.GRAY)
    rows = {f"number {place + 1}": to_floats(images) for place, images in strips.items()}
    draw_rows(paper, rows, 22, tile, left)
    return paper.figure


@applied()
def nearest_neighbors(
    images: NDArray[Any],
    queries: NDArray[np.integer],
    neighbors: Mapping[str, NDArray[np.integer]],
    labels: NDArray[np.integer] | None,
    classes: Sequence[str],
    data: str,
    note: str | None = None,
) -> Figure:
    """Draw a row for each of `queries` (Q,): the image and its nearest neighbors in each space.

    `neighbors` are indices (Q, k) into `images`, the nearest first. Below each image is its class,
    in another color if it is not the query's.
    """
    tile = tile_side(images, SMALL_TILE)
    step, under, aside = tile + GAP, 0.0 if labels is None else 16.0, 22.0
    count = next(iter(neighbors.values())).shape[1]
    block = count * step - GAP
    first = MARGIN + tile + aside
    width = max(first + len(neighbors) * (block + aside) - aside + MARGIN, NARROWEST)
    title = "The nearest neighbors of test images"
    paper = sheet(width, 30 + len(queries) * (step + under) + 6, title, data, note)
    paper.text(MARGIN + tile / 2, 10, "image", ha="center")
    for number, label in enumerate(neighbors):
        paper.text(first + number * (block + aside) + block / 2, 10, label, ha="center")

    def show(index: int, query: int, x: float, y: float) -> None:
        paper.image(to_floats(images[index]), x, y, tile)
        if labels is None:
            return
        look: dict[str, Any] = {"color": style.VERMILION, "weight": "bold"}
        if labels[index] == labels[query]:
            look = {"color": style.GRAY}
        label = shorten(classes[labels[index]], int(step / 6))
        paper.text(x + tile / 2, y + tile + 8, label, ha="center", size=style.SMALL, **look)

    for row, query in enumerate(queries):
        y = 24 + row * (step + under)
        show(int(query), int(query), MARGIN, y)
        for number, found in enumerate(neighbors.values()):
            for column, index in enumerate(found[row]):
                x = first + number * (block + aside) + column * step
                show(int(index), int(query), x, y)
    return paper.figure
