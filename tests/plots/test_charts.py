import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convae.plots import charts
from convae.tasks import metrics
from convae.tasks.metrics import METRICS
from tests.plots.test_image_grids import DATA, DIGITS, NOTE, assert_readable, heights, panels, texts

BASELINES = {
    "mean image": (11.9, "the mean of the training images"),
    "PCA": (18.5, "PCA with 32 components, fitted on the training images"),
}


def anomalies() -> tuple[Any, Any]:
    generator = np.random.default_rng(0)
    anomalous = np.arange(400) % 4 > 0
    scores = np.exp(generator.normal(-4, 0.4, 400) + anomalous)
    return scores, anomalous


THRESHOLD = {"score": 0.03, "target_fpr": 0.05, "fpr": 0.06, "recall": 0.8}


def test_all_charts_are_readable(tmp_path: Path) -> None:
    scores, anomalous = anomalies()
    errors = {digit: 0.001 * (i + 1) for i, digit in enumerate(DIGITS)}
    auroc = {digit: 0.99 - i / 100 for i, digit in enumerate(DIGITS)}
    figures = {
        "classes": charts.error_by_class(
            errors, 0.0055, DATA, metric="excess", baseline=0.2, note=NOTE
        ),
        "auroc": charts.error_by_class(auroc, 0.94, DATA, metric="auroc", note=NOTE),
        "psnr": charts.scores_beside_baselines(21.2, BASELINES, DATA, "psnr", NOTE),
        "anomalies": charts.anomaly_scores(scores, anomalous, THRESHOLD, 0.9, DATA, NOTE),
    }  # fmt: skip
    for name, figure in figures.items():
        title, subtitle, note = texts(figure)[:3]
        assert len(title) > 10, name
        assert subtitle.startswith(DATA), name
        assert NOTE in texts(figure), note
        assert_readable(name, figure, tmp_path)


def test_bars_for_a_few_classes() -> None:
    errors = {digit: 0.001 * (i + 1) for i, digit in enumerate(DIGITS)}
    figure = charts.error_by_class(errors, 0.0055, DATA, metric="excess", baseline=0.2044)
    (axes,) = panels(figure)
    heights = [bar.get_height() for bar in axes.patches]  # type: ignore[attr-defined]
    assert heights == list(errors.values())
    assert [label.get_text() for label in axes.get_xticklabels()] == DIGITS
    assert axes.lines[0].get_ydata() == [0.0055, 0.0055]
    assert "mean-image baseline 0.2044" in texts(figure)[1]
    assert axes.get_ylabel() == METRICS["excess"][0]


@pytest.mark.parametrize(("count", "bars"), [(13, 13), (100, 41)])
def test_bars_for_many_classes(count: int, bars: int) -> None:
    errors = {f"class {i}": (i * 37 % count + 1) / 1000 for i in range(count)}
    figure = charts.error_by_class(errors, 0.03, DATA, metric="mse")
    (axes,) = panels(figure)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert len(names) == len(set(names)) == bars
    assert names[0] == max(errors, key=errors.__getitem__)
    assert ("(60 between)" in names) == (count == 100)
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the worst on top


@pytest.mark.parametrize(("metric", "first"), [("psnr", "this run"), ("mse", "mean image")])
def test_the_best_bar_is_on_top(metric: str, first: str) -> None:
    figure = charts.scores_beside_baselines(20.0, BASELINES, DATA, metric)
    (axes,) = panels(figure)
    widths = [bar.get_width() for bar in axes.patches]  # type: ignore[attr-defined]
    assert widths == sorted([11.9, 18.5, 20.0], reverse=metric == "psnr")
    names = [t for t in texts(figure) if t in {"mean image", "this run", "PCA"}]
    assert names[0] == first
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert axes.get_xlabel() == METRICS[metric][0]


def test_the_histogram_holds_all_images_and_the_curve_is_the_roc() -> None:
    scores, anomalous = anomalies()
    left, right = panels(charts.anomaly_scores(scores, anomalous, THRESHOLD, 0.9, DATA))
    kinds = left.patches[::2]  # each is filled and outlined
    assert [patch.get_data().values.sum() for patch in kinds] == pytest.approx([100, 100])  # type: ignore[attr-defined]
    assert left.lines[0].get_xdata() == [0.03, 0.03]
    curve = right.lines[0]
    area = np.trapezoid(heights(curve), np.asarray(curve.get_xdata(), float)) / 1e4
    assert area == pytest.approx(metrics.auroc(scores, anomalous))
    assert heights(right.lines[2]) == [80.0]


def history(epochs: int, **columns: Any) -> list[dict[str, float]]:
    made = [
        {"epoch": e, "loss": 0.06 + 0.2 / e, "val_loss": 0.0586 + 0.2 / e, "val_excess": 0.2 / e}
        for e in range(1, epochs + 1)
    ]
    return [row | {key: value(row["epoch"]) for key, value in columns.items()} for row in made]


def test_training_curves_have_the_floor_and_the_excess() -> None:
    rows = history(25, learning_rate=lambda epoch: 1e-3)
    left, right = panels(charts.training_curves(rows, "binary_crossentropy", DATA))
    lines = {line.get_label(): line for line in left.lines}
    assert set(lines) == {"loss", "val_loss", "floor 0.0586"}
    assert heights(lines["loss"]) == [row["loss"] for row in rows]
    assert lines["floor 0.0586"].get_linestyle() == "--"
    assert heights(right.lines[0]) == [row["val_excess"] for row in rows]
    assert right.get_yscale() == "log"
    assert "nats per pixel" in left.get_title(loc="left")
    assert all(axes.get_xlabel() == "epoch" for axes in (left, right))

    rows = history(25, learning_rate=lambda epoch: 1e-3 / epoch)
    third = panels(charts.training_curves(rows, "binary_crossentropy", DATA))[2]
    assert third.get_title(loc="left") == "learning rate"
    assert heights(third.lines[0]) == [row["learning_rate"] for row in rows]


def test_training_curves_of_one_epoch_without_a_floor() -> None:
    rows = history(1, val_loss=lambda epoch: 0.0651)
    left, right = panels(charts.training_curves(rows, "mean_squared_error", DATA))
    assert {line.get_label() for line in left.lines} == {"loss", "val_loss"}
    assert all(line.get_marker() == "o" for line in (*left.lines, *right.lines))
    assert [label.get_text() for label in right.get_yticklabels()] == ["0.05", "0.1"]
    assert right.get_title(loc="left") == "val_loss (log scale)"
    assert left.get_title(loc="left") == "mean squared error"


def test_training_curves_of_a_loss_that_is_not_a_number() -> None:
    rows = history(2, loss=lambda _: math.nan, val_loss=lambda _: math.nan)
    charts.training_curves(rows, "binary_crossentropy", DATA).canvas.draw()
