"""What a number in the code is worth: the test error of runs with different codes, beside PCA.

    python -m scripts.bench.rate_quality RUN RUN ... [--output FILE.png]

Runs are folders, ids or names in outputs/ that `convae eval` has measured. Prints a table and
draws a chart.
"""

from __future__ import annotations

import argparse
from math import prod
from pathlib import Path

from convae.errors import ConvaeError
from convae.plots import charts as plots_charts
from convae.plots import style
from convae.runs.run import Run
from convae.tasks.baselines import code_size


def measured(run: Run) -> tuple[int, float, float, int, str]:
    """Code size, test MSE, PCA's, pixel values an image and the data's name, of an evaluated run.

    Raises ConvaeError if it was not evaluated, or not beside PCA.
    """
    result, config = run.metrics, run.config
    if not result:
        raise ConvaeError(f"{run.path}: has no metrics.json; convae eval {run.path} makes it")
    try:
        errors = result["test"]["mse"], result["baselines"]["pca"]["mse"]
    except KeyError:
        raise ConvaeError(
            f"{run.path}: has no MSE beside PCA's: its code is no bottleneck"
        ) from None
    return code_size(config), *errors, prod(config.model.input_shape), result["data"]["name"]


def main() -> int:
    """Print the table and draw the chart; 2 if a run cannot be shown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--runs-dir", default="outputs")
    parser.add_argument("--output", type=Path, default=Path("docs/images/rate_quality.png"))
    arguments = parser.parse_args()
    try:
        found = sorted(measured(Run.find(run, arguments.runs_dir)) for run in arguments.runs)
        if len({row[3:] for row in found}) > 1:
            raise ConvaeError("the runs are of different data: one chart cannot hold them")
    except ConvaeError as error:
        print(f"rate_quality: {error}")
        return 2
    print("| code | times smaller | test MSE | PCA | PCA's error is |\n|---|---|---|---|---|")
    for size, ours, pca, pixels, _ in found:
        print(f"| {size} | {pixels / size:.1f} | {ours:.5f} | {pca:.5f} | {pca / ours:.2f} times |")
    sizes, ours_all, pca_all, all_pixels, names = zip(*found, strict=True)
    chart = plots_charts.rate_quality(sizes, ours_all, pca_all, all_pixels[0], names[0])
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    print(f"\nwrote {style.save(chart, arguments.output)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
