from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convae.plots import charts as plots_charts
from convae.plots import image_grids as plots
from convae.tasks import metrics
from tests.plots.test_image_grids import DATA, DIGITS, NOTE, assert_readable, heights, panels, texts

WORDS = {
    "mean_image": "the mean of the training images, whatever goes in",
    "pca": "PCA with 32 components, fitted on the training images",
}


def anomalies() -> tuple[Any, Any]:
    generator = np.random.default_rng(0)
    anomalous = np.arange(400) % 4 > 0
    scores = np.exp(generator.normal(-4, 0.4, 400) + anomalous)
    return scores, anomalous


THRESHOLD = {"score": 0.03, "target_fpr": 0.05, "fpr": 0.06, "recall": 0.8}


def test_all_charts_are_readable(tmp_path: Path) -> None:
    scores, anomalous = anomalies()
    errors = {digit: {"excess": 0.001 * (i + 1)} for i, digit in enumerate(DIGITS)}
    auroc = {digit: {"auroc": 0.99 - i / 100} for i, digit in enumerate(DIGITS)}
    beside = {"this run": 21.2, "mean_image": 11.9, "pca": 18.5}
    charts = {
        "classes": plots_charts.error_by_class(errors, 0.0055, DATA, baseline=0.2, note=NOTE),
        "auroc": plots_charts.error_by_class(auroc, 0.94, DATA, score="auroc", note=NOTE),
        "psnr": plots_charts.scores_beside_baselines(beside, WORDS, DATA, "psnr", NOTE),
        "anomalies": plots_charts.anomaly_scores(scores, anomalous, THRESHOLD, 0.9, DATA, NOTE),
        "rate": plots_charts.rate_quality(
            [49, 8, 32, 16, 98], [0.006, 0.02, 0.008, 0.013, 0.003],
            [0.011, 0.037, 0.016, 0.026, 0.006], 784, DATA, NOTE,
        ),
    }  # fmt: skip
    for name, figure in charts.items():
        title, subtitle, note = [t for t in texts(figure) if t not in WORDS][:3]
        assert len(title) > 10, name
        assert subtitle.startswith(DATA), name
        assert NOTE in texts(figure), note
        assert_readable(name, figure, tmp_path)


def test_bars_for_a_few_classes() -> None:
    errors = {digit: {"excess": 0.001 * (i + 1)} for i, digit in enumerate(DIGITS)}
    figure = plots_charts.error_by_class(errors, 0.0055, DATA, baseline=0.2044)
    (axes,) = panels(figure)
    heights = [bar.get_height() for bar in axes.patches]  # type: ignore[attr-defined]
    assert heights == [errors[digit]["excess"] for digit in DIGITS]
    assert [label.get_text() for label in axes.get_xticklabels()] == DIGITS
    assert axes.lines[0].get_ydata() == [0.0055, 0.0055]
    assert "mean-image baseline 0.2044" in texts(figure)[1]
    assert axes.get_ylabel() == plots.UNITS["excess"]


@pytest.mark.parametrize(("count", "bars"), [(13, 13), (100, 41)])
def test_bars_for_many_classes(count: int, bars: int) -> None:
    errors = {f"class {i}": {"mse": (i * 37 % count + 1) / 1000} for i in range(count)}
    figure = plots_charts.error_by_class(errors, 0.03, DATA, score="mse")
    (axes,) = panels(figure)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert len(names) == len(set(names)) == bars
    assert names[0] == max(errors, key=lambda name: errors[name]["mse"])
    assert ("(60 between)" in names) == (count == 100)
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the worst on top


@pytest.mark.parametrize(("score", "first"), [("psnr", "this run"), ("mse", "PCA")])
def test_the_best_way_stands_on_top(score: str, first: str) -> None:
    beside = {"mean_image": 12.0, "this run": 20.0, "pca": 11.5}
    figure = plots_charts.scores_beside_baselines(beside, WORDS, DATA, score)
    (axes,) = panels(figure)
    widths = [bar.get_width() for bar in axes.patches]  # type: ignore[attr-defined]
    assert widths == sorted(beside.values(), reverse=score == "psnr")
    names = [t for t in texts(figure) if t in {"mean image", "this run", "PCA"}]
    assert names[0] == first
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert axes.get_xlabel() == plots.UNITS[score]


def test_the_histogram_holds_all_images_and_the_curve_is_the_roc() -> None:
    scores, anomalous = anomalies()
    left, right = panels(plots_charts.anomaly_scores(scores, anomalous, THRESHOLD, 0.9, DATA))
    kinds = left.patches[::2]  # each is filled and outlined
    assert [patch.get_data().values.sum() for patch in kinds] == pytest.approx([100, 100])  # type: ignore[attr-defined]
    assert left.lines[0].get_xdata() == [0.03, 0.03]
    curve = right.lines[0]
    area = np.trapezoid(heights(curve), np.asarray(curve.get_xdata(), float)) / 1e4
    assert area == pytest.approx(metrics.auroc(scores, anomalous))
    assert heights(right.lines[2]) == [80.0]


def test_rates_are_sorted_and_compared_with_pca() -> None:
    (axes,) = panels(plots_charts.rate_quality([32, 8], [0.01, 0.02], [0.02, 0.06], 784, DATA))
    lines = {line.get_label(): line for line in axes.lines}
    assert heights(lines["autoencoder"]) == [0.02, 0.01]
    assert heights(lines["PCA"]) == [0.06, 0.02]
    assert [text.get_text() for text in axes.texts] == ["3.0×", "2.0×"]
