"""Compare the quality of float32 and bfloat16 on configs/mnist.yaml, seed by seed.

    python -m scripts.bench.precision                # three seeds, 25 epochs: hours without AMX
    python -m scripts.bench.precision --epochs 8

Prints the validation losses of the last epoch and their difference, which should stay within
0.0003. Results are kept in --output, so that a second call trains only what is missing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from scripts.project import CONFIGS, run_convae, write_json

PRECISIONS = ("float32", "mixed_bfloat16")


def val_loss(seed: int, precision: str, epochs: int, output: Path) -> float:
    """Return the last epoch's validation loss, from a kept result or from a training."""
    kept = output / f"{precision}-{seed}-{epochs}.json"
    if not kept.exists():
        words = [f"seed={seed}", f"runtime.precision={precision}", f"training.epochs={epochs}"]
        folder = f"output.folder={output / 'runs'}"
        write_json(kept, run_convae("train", CONFIGS / "mnist.yaml", *words, folder))
    return float(json.loads(kept.read_text())["val_loss"])


def main() -> int:
    """Train what is missing and print the table; return 1 if a difference is above 0.0003."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path("outputs/precision"))
    arguments = parser.parse_args()
    output = arguments.output.resolve()
    print(f"| seed | {' | '.join(PRECISIONS)} | difference |\n|---|---|---|---|")
    worst = 0.0
    for seed in arguments.seeds:
        exact, rounded = (val_loss(seed, p, arguments.epochs, output) for p in PRECISIONS)
        worst = max(worst, abs(rounded - exact))
        print(f"| {seed} | {exact:.5f} | {rounded:.5f} | {rounded - exact:+.5f} |", flush=True)
    return int(worst > 0.0003)


if __name__ == "__main__":
    raise SystemExit(main())
