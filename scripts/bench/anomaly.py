"""Take each digit in turn as the normal class, train, evaluate, and print a table of AUROCs.

python -m scripts.bench.anomaly [key=value ...]      # make anomaly

Runs are kept in outputs/anomaly-0 to anomaly-9; finished ones of the same config are used again.
"""

from __future__ import annotations

import sys

from convae.config.loader import load_config
from convae.evaluation.evaluate import evaluate
from convae.training.trainer import train
from scripts.project import CONFIGS, finished_runs, format_markdown

# Ruff et al., "Deep one-class classification", ICML 2018, table 1: means over the ten digits of a
# deep convolutional autoencoder and of Deep SVDD.
DCAE, DEEP_SVDD = 0.897, 0.948
COLUMNS = ("AUROC", "with MSE", "PCA", "PCA with MSE", "recall", "FPR", "seconds")


def measure(digit: int, overrides: list[str]) -> list[float]:
    """Return the values of COLUMNS for one digit."""
    words = [f"name=anomaly-{digit}", f"task.normal_class={digit}", *overrides]
    config = load_config(CONFIGS / "anomaly.yaml", words)
    runs = finished_runs(config.name, config.output.folder, lambda run: run.config == config)
    run = runs[-1] if runs else train(config)
    result = evaluate(run)
    test, pca, threshold = result["test"], result["baselines"]["pca"], result["threshold"]
    aurocs = [table[key] for table in (test, pca) for key in ("auroc", "auroc_mse")]
    return [*aurocs, threshold["recall"], threshold["fpr"], run.manifest["seconds"]]


def main(overrides: list[str]) -> None:
    """Print ten rows and their mean, as Markdown."""
    rows: list[tuple[object, list[float]]] = []
    for digit in range(10):
        rows.append((digit, measure(digit, overrides)))
        print(*rows[-1], file=sys.stderr)
    columns = zip(*(values for _, values in rows), strict=True)
    rows.append(("mean", [sum(column) / len(column) for column in columns]))
    cells = [[label, *(f"{v:.4f}" for v in row[:-1]), f"{row[-1]:.0f}"] for label, row in rows]
    print(format_markdown(("normal digit", *COLUMNS), cells))
    print(f"\nDeep convolutional autoencoder {DCAE}, Deep SVDD {DEEP_SVDD} (Ruff et al. 2018)")


if __name__ == "__main__":
    main(sys.argv[1:])
