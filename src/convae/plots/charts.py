"""Measurements -> charts: errors by class, a run beside its baselines, anomalies, rate and quality.

`data` and `note` are as in plots.py.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from convae.plots import style
from convae.plots.image_grids import UNITS, number_word, short
from convae.plots.style import MARGIN, applied, sheet
from convae.tasks.metrics import HIGHER_IS_BETTER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

NAMES = {"pca": "PCA", "gaussian": "Gaussian"}  # the others are words already


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
    says = f"{data}; mean {number_word(mean)}"
    if baseline is not None:
        says += f", mean-image baseline {number_word(baseline)}"
    values = {name: scores[score] for name, scores in classes.items()}
    line: dict[str, Any] = {"color": style.VERMILION, "linestyle": "--", "linewidth": 1.5}
    if len(values) <= 12:
        paper = sheet(700, 300, title, says, note)
        axes = paper.panel(MARGIN + 56, 16, 556, 230)
        axes.bar(range(len(values)), list(values.values()), color=style.BLUE, width=0.7)
        axes.set_xticks(range(len(values)), [short(name, 11) for name in values])
        axes.set_xlabel("class")
        axes.set_ylabel(UNITS[score])
        axes.grid(False, axis="x")
        axes.axhline(mean, **line)
        side: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "va": "center"}
        axes.annotate("mean", (1.01, mean), color=style.VERMILION, **side)
        ends: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "size": style.SMALL}
        clear = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        for place, value in enumerate(values.values()):
            axes.annotate(number_word(value), (place, value), (0, 4), bbox=clear, **ends)
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
    axes.set_yticks(range(len(ranked)), [short(name, 22) for name in ranked])
    axes.set_ylim(len(ranked) - 0.4, -0.6)
    axes.set_xlabel(UNITS[score])
    axes.grid(False, axis="y")
    axes.axvline(mean, **line)
    top: dict[str, Any] = {"xycoords": axes.get_xaxis_transform(), "ha": "center", "va": "bottom"}
    axes.annotate("mean", (mean, 1.005), color=style.VERMILION, **top)
    return paper.figure


@applied()
def scores_beside_baselines(
    scores: Mapping[str, float],
    words: Mapping[str, str],
    data: str,
    score: str,
    note: str | None = None,
) -> Figure:
    """A bar for each way to the same end, the best on top.

    `scores` hold values of `score`, a key of UNITS, of "this run" and of baselines; `words` say
    more about each of these, by name.
    """
    better = score in HIGHER_IS_BETTER
    ranked = sorted(scores, key=scores.__getitem__, reverse=better)
    height = 50.0 * len(ranked)
    left = MARGIN + 300
    title = "This run beside simpler ways to the same end"
    says = f"{data}; {'higher' if better else 'lower'} is better"
    paper = sheet(780, height + 52, title, says, note)
    axes = paper.panel(left, 4, 390, height)
    colors = [style.BLUE if name == "this run" else style.SKY for name in ranked]
    values = [scores[name] for name in ranked]
    axes.barh(range(len(ranked)), values, color=colors, height=0.6)
    axes.set_ylim(len(ranked) - 0.5, -0.5)
    axes.set_yticks([])
    axes.set_xlabel(UNITS[score])
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.grid(False, axis="y")
    if score == "auroc":
        axes.set_xlim(0, 1)
        axes.axvline(0.5, color=style.GRAY, linestyle="--", linewidth=1.2)
    for place, (name, value) in enumerate(zip(ranked, values, strict=True)):
        said = textwrap.wrap(words.get(name, ""), 52)
        lines = [(NAMES.get(name, name.replace("_", " ")), style.TEXT, style.INK)]
        lines += [(line, style.SMALL, style.GRAY) for line in said]
        bold: dict[str, Any] = {"weight": "bold"} if name == "this run" else {}
        y = 4 + 50 * (place + 0.5) - 7 * len(said)
        for number, (line, size, color) in enumerate(lines):
            paper.text(left - 10, y + 14 * number, line, ha="right", size=size, color=color, **bold)
        digits = f"{value:.2f}" if score == "psnr" else number_word(value)
        ends: dict[str, Any] = {"textcoords": "offset points", "va": "center"}
        clear = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        axes.annotate(digits, (value, place), (5, 0), bbox=clear, **ends, **bold)
    return paper.figure


@applied()
def anomaly_scores(
    scores: NDArray[np.floating],
    anomalous: NDArray[np.bool_],
    threshold: Mapping[str, float],
    auroc: float,
    data: str,
    note: str | None = None,
) -> Figure:
    """How the scores of normal and of other images lie, and what any threshold would do.

    `scores` and `anomalous` are (N,); `threshold` is what metrics.json says about the chosen one.
    """
    alarms, found = threshold["fpr"], threshold["recall"]
    says = (
        f"{data}; AUROC {auroc:.4f}; at the threshold {found:.1%} of the anomalies are found and "
        f"{alarms:.1%} of the normal images are false alarms"
    )
    paper = sheet(860, 352, "Anomaly scores, and the threshold", says, note)
    low, high = np.quantile(scores, 0.001), np.quantile(scores, 0.999)
    edges = np.geomspace(max(low, 1e-6), max(high, 2e-6), 41)
    left = paper.panel(MARGIN + 44, 26, 420, 270, "images with that score (% of their kind)")
    kinds = {"normal": (~anomalous, style.BLUE), "anomalies": (anomalous, style.VERMILION)}
    for kind, (chosen, color) in kinds.items():
        inside = scores[chosen].clip(edges[0], edges[-1])
        shares = 100 * np.histogram(inside, edges)[0] / chosen.sum()
        label = f"{kind} ({chosen.sum():,})"
        left.stairs(shares, edges, fill=True, color=color, alpha=0.45, label=label)
        left.stairs(shares, edges, color=color, linewidth=1.2)
    line: dict[str, Any] = {"color": style.INK, "linestyle": "--", "linewidth": 1.5}
    left.axvline(threshold["score"], ymax=0.82, label=f"threshold {threshold['score']:.4f}", **line)
    left.set_xscale("log")
    left.set_xlim(edges[0], edges[-1])
    ticks = [d * 10.0**p for p in range(-6, 1) for d in (1, 2, 5)]
    ticks = [tick for tick in ticks if edges[0] <= tick <= edges[-1]]
    left.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    left.set_xticks([], minor=True)
    left.set_ylim(0, left.get_ylim()[1] * 1.22)  # room for the legend
    left.set_xlabel("anomaly score (log scale)")
    left.legend(ncols=3, loc="upper left", columnspacing=1.2, handlelength=1.6)

    right = paper.panel(MARGIN + 544, 26, 270, 270, "anomalies found (%)")
    order = np.argsort(-scores, kind="stable")
    for_each = [np.cumsum(kind[order]) / kind.sum() * 100 for kind in (~anomalous, anomalous)]
    right.plot([0, *for_each[0]], [0, *for_each[1]], color=style.BLUE)
    right.plot([0, 100], [0, 100], color=style.GRAY, linewidth=1, linestyle=":")
    right.plot([100 * alarms], [100 * found], "o", color=style.INK, markersize=7)
    beside: dict[str, Any] = {"textcoords": "offset points", "va": "top"}
    right.annotate("threshold", (100 * alarms, 100 * found), (9, -4), **beside)
    right.set_xlim(-1, 101)
    right.set_ylim(-1, 101)
    right.set_xlabel("false alarms (% of normal images)")
    return paper.figure


@applied()
def rate_quality(
    sizes: Sequence[int],
    ours: Sequence[float],
    pca: Sequence[float],
    pixels: int,
    data: str,
    note: str | None = None,
) -> Figure:
    """The test MSE against the size of the code, of models and of PCA with as many components."""
    order = np.argsort(sizes)
    x, y, linear = (np.asarray(values, float)[order] for values in (sizes, ours, pca))
    says = f"{data}; {pixels:,} pixel values an image; below each point PCA's error over it"
    paper = sheet(700, 380, "Rate and quality: what a number in the code is worth", says, note)
    axes = paper.panel(MARGIN + 60, 10, 560, 310)
    axes.plot(x, linear, "s--", color=style.ORANGE, label="PCA")
    axes.plot(x, y, "o-", color=style.BLUE, label="autoencoder")
    for size, mine, theirs in zip(x, y, linear, strict=True):
        axes.annotate(
            f"{theirs / mine:.1f}×", (size, mine), (0, -9), textcoords="offset points",
            ha="center", va="top", color=style.BLUE,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(x[0] / 1.15, x[-1] * 1.15)
    axes.set_xticks(x, [f"{size:,.0f}" for size in x])
    axes.set_xticks([], minor=True)
    axes.set_ylim(0, None)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.03)
    axes.set_xlabel("numbers in the code of an image (log scale)")
    axes.set_ylabel(UNITS["mse"])
    axes.legend(fontsize=style.TEXT)
    return paper.figure
