"""Charts: training curves, metrics by class and beside baselines, anomaly scores.

`data` and `note` are those of image_grids.py; a `metric` is a key of tasks.metrics.METRICS.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from convae.console import format_number
from convae.plots import style
from convae.plots.image_grids import shorten
from convae.plots.style import MARGIN, applied, log_axis, sheet
from convae.tasks.metrics import METRICS, is_higher_better

LOSS_LABELS = {
    "binary_crossentropy": "binary cross-entropy (nats per pixel)",
    "mean_squared_error": "mean squared error",
    "sparse_categorical_crossentropy": "cross-entropy (nats per pixel)",
}


@applied()
def training_curves(
    history: Sequence[Mapping[str, float]], loss: str, data: str, note: str | None = None
) -> Figure:
    """Draw the losses by epoch, the validation loss above its floor, and the learning rate.

    Args:
        history: The rows of history.csv. The terms of the loss have a panel each, as the learning
            rate has where it changes.
        loss: `training.loss` of the config. The floor of the binary cross-entropy is the entropy of
            the validation images; that of the others is 0.
    """
    epochs, losses, val_losses, excess, rates = (
        np.array([row.get(key, np.nan) for row in history], float)
        for key in ("epoch", "loss", "val_loss", "val_excess", "learning_rate")
    )
    has_floor = loss == "binary_crossentropy"
    terms = [key for key in history[0] if f"val_{key}" in history[0] and key != "loss"]
    changes = len(set(rates[np.isfinite(rates)])) > 1
    small = [150.0] * (len(terms) + changes)
    widths = [290.0, 290.0, *small] if small else [350.0, 350.0]
    lefts = [MARGIN + 44 + sum(w + 60 for w in widths[:i]) for i in range(len(widths))]
    paper = sheet(
        lefts[-1] + widths[-1] + MARGIN,
        340,
        "Training: the loss" + (" and the excess over its floor" if has_floor else ""),
        f"{data}; epoch {epochs[-1]:.0f}: loss {losses[-1]:.4f}, val_loss {val_losses[-1]:.4f}",
        note,
    )
    panels = [paper.panel(x, 26, width, 262) for x, width in zip(lefts, widths, strict=True)]
    for axes in panels:
        axes.set(xlabel="epoch", xlim=(epochs[0] - 0.5, epochs[-1] + 0.5))
        locator = MaxNLocator(6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
        axes.xaxis.set_major_locator(locator)
    marker: dict[str, Any] = {"marker": "o" if len(epochs) <= 40 else ""}

    axes = panels[0]
    axes.set_title("loss, all terms (nats per image)" if terms else LOSS_LABELS[loss])
    _plot_both(axes, history, "loss", marker)
    if has_floor:
        floor = val_losses[0] - excess[0]
        axes.axhline(floor, label=f"floor {floor:.4f}", color=style.INK, linestyle="--")
    axes.legend()

    axes, shown = panels[1], excess if has_floor else val_losses
    axes.set_title(f"{'val_excess' if has_floor else 'val_loss'} (log scale)")
    axes.plot(epochs, shown, color=style.BLUE, **marker)
    last: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "va": "top"}
    axes.annotate(format_number(float(shown[-1])), (epochs[-1], shown[-1]), (4, -7), **last)
    log_axis(axes, "y", shown)

    for axes, term in zip(panels[2:], terms, strict=False):
        axes.set_title(f"{term} (nats per image)")
        _plot_both(axes, history, term, marker)
        axes.legend()
    if changes:
        panels[-1].set_title("learning rate")
        panels[-1].plot(epochs, rates, color=style.GREEN, **marker)
        panels[-1].yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return paper.figure


def _plot_both(
    axes: Axes, history: Sequence[Mapping[str, float]], key: str, marker: Mapping[str, Any]
) -> None:
    """Plot a column of the history and that of the validation split."""
    epochs = [row["epoch"] for row in history]
    for name, color in ((key, style.ORANGE), (f"val_{key}", style.BLUE)):
        axes.plot(epochs, [row[name] for row in history], label=name, color=color, **marker)


@applied()
def error_by_class(
    values: Mapping[str, float],
    mean: float,
    data: str,
    *,
    metric: str,
    baseline: float | None = None,
    note: str | None = None,
) -> Figure:
    """Draw a bar for each class.

    Up to 12 classes are vertical bars in their order. More are horizontal, the worst first, and of
    more than 40 the 20 worst and the 20 best are drawn.

    Args:
        values: The value of `metric` of each class.
        mean: The value over all images, a dashed line.
        baseline: The value of the mean image, in the subtitle only: a bar of it would dwarf the
            others.
    """
    title = "Quality by class" if is_higher_better(metric) else "Error by class"
    subtitle = f"{data}; mean {format_number(mean)}"
    if baseline is not None:
        subtitle += f", mean-image baseline {format_number(baseline)}"
    mean_line: dict[str, Any] = {"color": style.VERMILION, "linestyle": "--", "linewidth": 1.5}
    if len(values) <= 12:
        paper = sheet(700, 300, title, subtitle, note)
        axes = paper.panel(MARGIN + 56, 16, 556, 230)
        axes.bar(range(len(values)), list(values.values()), color=style.BLUE, width=0.7)
        axes.set_xticks(range(len(values)), [shorten(name, 11) for name in values])
        axes.set(xlabel="class", ylabel=METRICS[metric][0])
        axes.grid(False, axis="x")
        axes.axhline(mean, **mean_line)
        side: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "va": "center"}
        axes.annotate("mean", (1.01, mean), color=style.VERMILION, **side)
        ends: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "size": style.SMALL}
        for place, value in enumerate(values.values()):
            axes.annotate(format_number(value), (place, value), (0, 4), bbox=_WHITE, **ends)
        return paper.figure

    ranked = sorted(values, key=values.__getitem__, reverse=not is_higher_better(metric))
    lengths = dict(values)
    if len(ranked) > 40:
        subtitle += f"; the 20 worst and the 20 best of {len(ranked)} classes"
        between = f"({len(ranked) - 40} between)"
        ranked = [*ranked[:20], between, *ranked[-20:]]
        lengths[between] = 0.0
    height = 17.0 * len(ranked)
    paper = sheet(700, height + 76, title, subtitle, note)
    axes = paper.panel(MARGIN + 150, 24, 470, height)
    axes.barh(range(len(ranked)), [lengths[name] for name in ranked], color=style.BLUE, height=0.7)
    axes.set_yticks(range(len(ranked)), [shorten(name, 22) for name in ranked])
    axes.set(ylim=(len(ranked) - 0.4, -0.6), xlabel=METRICS[metric][0])
    axes.grid(False, axis="y")
    axes.axvline(mean, **mean_line)
    top: dict[str, Any] = {"xycoords": axes.get_xaxis_transform(), "ha": "center", "va": "bottom"}
    axes.annotate("mean", (mean, 1.005), color=style.VERMILION, **top)
    return paper.figure


_WHITE: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # behind text


@applied()
def scores_beside_baselines(
    value: float,
    baselines: Mapping[str, tuple[float, str]],
    data: str,
    metric: str,
    note: str | None = None,
) -> Figure:
    """Draw a bar for this run and one for each baseline, the best on top.

    Args:
        value: The run's value of `metric`.
        baselines: The value and the description of each baseline, by its label.
    """
    better = is_higher_better(metric)
    rows = sorted(
        {"this run": (value, ""), **baselines}.items(), key=lambda row: row[1][0], reverse=better
    )
    height, left = 50.0 * len(rows), MARGIN + 300
    subtitle = f"{data}; {'higher' if better else 'lower'} is better"
    paper = sheet(780, height + 52, "This run beside simple baselines", subtitle, note)
    axes = paper.panel(left, 4, 390, height)
    colors = [style.BLUE if label == "this run" else style.SKY for label, _ in rows]
    axes.barh(range(len(rows)), [number for _, (number, _) in rows], color=colors, height=0.6)
    axes.set(ylim=(len(rows) - 0.5, -0.5), yticks=[], xlabel=METRICS[metric][0])
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.grid(False, axis="y")
    if metric == "auroc":
        axes.set_xlim(0, 1)
        axes.axvline(0.5, color=style.GRAY, linestyle="--", linewidth=1.2)
    for place, (label, (number, description)) in enumerate(rows):
        wrapped = textwrap.wrap(description, 52)
        lines = [(label, style.TEXT, style.INK)]
        lines += [(line, style.SMALL, style.GRAY) for line in wrapped]
        bold: dict[str, Any] = {"weight": "bold"} if label == "this run" else {}
        y = 4 + 50 * (place + 0.5) - 7 * len(wrapped)
        for index, (line, size, color) in enumerate(lines):
            paper.text(left - 10, y + 14 * index, line, ha="right", size=size, color=color, **bold)
        ends: dict[str, Any] = {"textcoords": "offset points", "va": "center"}
        axes.annotate(format_number(number), (number, place), (5, 0), bbox=_WHITE, **ends, **bold)
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
    """Draw the distributions of the scores of both kinds, and the ROC curve.

    Args:
        scores: The anomaly scores (N,).
        anomalous: Which of them are anomalies (N,).
        threshold: `threshold` of metrics.json.
    """
    fpr, recall = threshold["fpr"], threshold["recall"]
    subtitle = (
        f"{data}; AUROC {auroc:.4f}; at the threshold recall {recall:.1%}, false positive rate "
        f"{fpr:.1%}"
    )
    paper = sheet(860, 352, "Anomaly scores and the threshold", subtitle, note)
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
    log_axis(left, "x", edges)
    left.set_ylim(0, left.get_ylim()[1] * 1.22)  # room for the legend
    left.set_xlabel("anomaly score (log scale)")
    left.legend(ncols=3, loc="upper left", columnspacing=1.2, handlelength=1.6)

    right = paper.panel(MARGIN + 544, 26, 270, 270, "recall (% of the anomalies)")
    order = np.argsort(-scores, kind="stable")
    rates = [np.cumsum(kind[order]) / kind.sum() * 100 for kind in (~anomalous, anomalous)]
    right.plot([0, *rates[0]], [0, *rates[1]], color=style.BLUE)
    right.plot([0, 100], [0, 100], color=style.GRAY, linewidth=1, linestyle=":")
    right.plot([100 * fpr], [100 * recall], "o", color=style.INK, markersize=7)
    beside: dict[str, Any] = {"textcoords": "offset points", "va": "top"}
    right.annotate("threshold", (100 * fpr, 100 * recall), (9, -4), **beside)
    right.set(xlim=(-1, 101), ylim=(-1, 101))
    right.set_xlabel("false positive rate (% of the normal images)")
    return paper.figure
