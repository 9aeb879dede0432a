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
from convae.plots import style
from convae.runs.run import Run
from convae.tasks.baselines import code_size
from convae.tasks.metrics import METRICS
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


@style.applied()
def draw(found: list[tuple[int, float, float, int, str]], path: Path) -> Path:
    """Draw the test MSE by the size of the code, of autoencoders and of PCA of the same size."""
    sizes, errors, pca_errors, pixels, names = zip(*found, strict=True)
    subtitle = (
        f"{names[0]}; {pixels[0]:,} pixel values an image; below each point PCA's error over it"
    )
    title = "Rate and quality: the error by the size of the code"
    paper = style.sheet(700, 380, title, subtitle)
    axes = paper.panel(style.MARGIN + 60, 10, 560, 310)
    axes.plot(sizes, pca_errors, "s--", color=style.ORANGE, label="PCA")
    axes.plot(sizes, errors, "o-", color=style.BLUE, label="autoencoder")
    for size, error, pca_error in zip(sizes, errors, pca_errors, strict=True):
        axes.annotate(
            f"{pca_error / error:.1f}×", (size, error), (0, -9), textcoords="offset points",
            ha="center", va="top", color=style.BLUE,
        )  # fmt: skip
    style.log_axis(axes, "x", sizes)
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.set_ylim(0, None)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.03)
    axes.set(xlabel="numbers in the code of an image (log scale)", ylabel=METRICS["mse"][0])
    axes.legend(fontsize=style.TEXT)
    return style.save(paper.figure, path)


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
    arguments.image.parent.mkdir(parents=True, exist_ok=True)
    print(f"\nwrote {draw(found, arguments.image)}")


if __name__ == "__main__":
    exit_with(main)
