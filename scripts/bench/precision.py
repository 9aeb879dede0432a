"""Does bfloat16 cost quality? configs/mnist.yaml in both precisions, seed by seed.

    python -m scripts.bench.precision                # three seeds, 25 epochs: hours without AMX
    python -m scripts.bench.precision --epochs 8

Prints the validation losses of the last epoch and their difference, which should stay within
0.0003. Finished trainings are kept in --output-dir, so that a second call goes on with the rest.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

CONFIG = Path(__file__).parents[2] / "configs/mnist.yaml"
PRECISIONS = ("float32", "mixed_bfloat16")


def val_loss(seed: int, precision: str, epochs: int, output: Path) -> float:
    """The last epoch's validation loss, from the kept result or from a training."""
    kept = output / f"{precision}-{seed}-{epochs}.json"
    if not kept.exists():
        words = [f"seed={seed}", f"runtime.precision={precision}", f"training.epochs={epochs}"]
        command = [sys.executable, "-m", "convae", "train", str(CONFIG), *words, "--json"]
        command.append(f"output.folder={output / 'runs'}")
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        kept.write_text(done.stdout.splitlines()[-1] + "\n")
    return float(json.loads(kept.read_text())["val_loss"])


def main() -> int:
    """Train what is missing and print the table; 1 if a difference is above 0.0003."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/precision"))
    arguments = parser.parse_args()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    print(f"| seed | {' | '.join(PRECISIONS)} | difference |\n|---|---|---|---|")
    worst = 0.0
    for seed in arguments.seeds:
        exact, rounded = (
            val_loss(seed, precision, arguments.epochs, arguments.output_dir)
            for precision in PRECISIONS
        )
        worst = max(worst, abs(rounded - exact))
        print(f"| {seed} | {exact:.5f} | {rounded:.5f} | {rounded - exact:+.5f} |", flush=True)
    return int(worst > 0.0003)


if __name__ == "__main__":
    raise SystemExit(main())
