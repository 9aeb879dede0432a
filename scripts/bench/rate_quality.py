"""Compare the test error of runs with different code sizes, beside PCA.

    python -m scripts.bench.rate_quality RUN RUN ... [--image FILE.png]

Runs are folders, ids or names in outputs/ that `convae eval` has measured. Prints a table and
draws a chart.
"""

from __future__ import annotations

import argparse
from math import prod
from pathlib import Path

from convae.errors import RunError
from convae.plots.charts import rate_quality
from convae.plots.style import save
from convae.runs.run import Run
from convae.tasks.baselines import code_size
from scripts.project import IMAGES, exit_with, format_markdown


def measure(run: Run) -> tuple[int, float, float, int, str]:
    """Return code size, test MSE, PCA's MSE, pixel values an image and the data's name.

    Raises:
        RunError: The run was not evaluated, or not beside PCA.
    """
    result, config = run.metrics, run.config
    if not result:
        raise RunError(f"{run.path}: has no metrics.json; run convae eval {run.path}")
    try:
        errors = result["test"]["mse"], result["baselines"]["pca"]["mse"]
    except KeyError:
        raise RunError(f"{run.path}: has no MSE beside PCA's: its code is no bottleneck") from None
    return code_size(config), *errors, prod(config.model.input_shape), result["data"]["name"]


def main() -> None:
    """Print the table and draw the chart."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--runs-dir", default="outputs")
    parser.add_argument("--image", type=Path, default=IMAGES / "rate_quality.png")
    arguments = parser.parse_args()
    found = sorted(measure(Run.find(run, arguments.runs_dir)) for run in arguments.runs)
    if len({row[3:] for row in found}) > 1:
        raise RunError("the runs have different data: they do not fit into one chart")
    rows = [
        (size, f"{pixels / size:.1f}", f"{mse:.5f}", f"{pca:.5f}", f"{pca / mse:.2f} times")
        for size, mse, pca, pixels, _ in found
    ]
    print(format_markdown(("code", "times smaller", "test MSE", "PCA", "PCA's error is"), rows))
    sizes, errors, pca_errors, pixels, names = zip(*found, strict=True)
    arguments.image.parent.mkdir(parents=True, exist_ok=True)
    chart = rate_quality(sizes, errors, pca_errors, pixels[0], names[0])
    print(f"\nwrote {save(chart, arguments.image)}")


if __name__ == "__main__":
    exit_with(main)
