"""Each digit in turn is the normal one: train, measure, and print the table of AUROCs.

python -m scripts.bench.anomaly [key=value ...]      # make anomaly

Runs are kept in outputs/anomaly-0 to anomaly-9; those that are there and finished are taken.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from convae.config.loader import load_config
from convae.evaluation.evaluate import evaluate
from convae.runs.run import Run
from convae.training.trainer import train

CONFIG = Path(__file__).parents[2] / "configs/anomaly.yaml"
# Ruff et al., "Deep one-class classification", ICML 2018, table 1: means over the ten digits of a
# deep convolutional autoencoder and of Deep SVDD.
DCAE, DEEP_SVDD = 0.897, 0.948


def main(overrides: list[str]) -> None:
    """Ten rows and their mean, as Markdown."""
    rows = []
    for digit in range(10):
        words = [f"name=anomaly-{digit}", f"task.normal_class={digit}", *overrides]
        config = load_config(CONFIG, words)
        known = [
            run for run in Run.all(config.output.folder) if run.path.parent.name == config.name
        ]
        done = [r for r in known if r.manifest.get("status") == "finished" and r.config == config]
        run = done[-1] if done else train(config)
        result = evaluate(run)
        rows.append({**figures(result), "seconds": run.manifest["seconds"]})
        print(digit, rows[-1], file=sys.stderr)
    print(table(rows))


def figures(result: dict[str, Any]) -> dict[str, float]:
    """The columns of one digit."""
    return {
        "AUROC": result["test"]["auroc"],
        "with MSE": result["test"]["auroc_mse"],
        "PCA": result["baselines"]["pca"]["auroc"],
        "PCA with MSE": result["baselines"]["pca"]["auroc_mse"],
        "found": result["threshold"]["recall"],
        "false alarms": result["threshold"]["fpr"],
    }


def table(rows: list[dict[str, float]]) -> str:
    """A line for each digit, and the mean."""
    names = list(rows[0])
    mean = {name: sum(row[name] for row in rows) / len(rows) for name in names}
    lines = [f"| normal digit | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for label, row in [*((str(d), row) for d, row in enumerate(rows)), ("mean", mean)]:
        cells = [f"{row[name]:.4f}" if name != "seconds" else f"{row[name]:.0f}" for name in names]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    lines.append(
        f"\nDeep convolutional autoencoder {DCAE}, Deep SVDD {DEEP_SVDD} (means, Ruff et al. 2018)."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
