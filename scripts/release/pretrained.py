"""Train and measure the weights that come with the package, and write their cards.

python -m scripts.release.pretrained [--retrain] [NAME ...]      # make pretrained

A finished run of the same config and data in outputs/ is used again, unless --retrain is given.
Writes NAME.keras, NAME.json and NAME.md into src/convae/runs/pretrained_weights, and
docs/pretrained.md.
"""

from __future__ import annotations

import argparse
import shutil
from typing import Any

from convae.config.loader import load_config
from convae.config.schema import Config
from convae.data.datasets import SAMPLE_PATH
from convae.runs import pretrained
from convae.runs.run import Run
from scripts import project
from scripts.docs import model_cards
from scripts.project import CONFIGS, ROOT

NAMES = ("mnist", "bottleneck", "denoise", "upscale", "segment", "anomaly", "generate")
MANIFEST_KEYS = (
    "versions", "platform", "git_commit", "command", "started", "seed", "device", "precision",
    "threads", "runtime", "parameters", "data", "data_sha256", "status", "seconds",
    "peak_memory_mib", "weights_sha256",
)  # fmt: skip
LEFT_OUT = {"task", "data", "weights", "same_training_data", "per_class", "latent"}  # of metrics
MAX_SIZE = 1_000_000  # bytes of a file of weights


def main() -> None:
    """Bring the named weights, or all, up to date."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", choices=NAMES, default=NAMES, metavar="NAME")
    parser.add_argument("--retrain", action="store_true")
    arguments = parser.parse_args()
    for name in arguments.names:
        run = None if arguments.retrain else find(name)
        if run is None:
            words = ("train", name, "data.allow_sample=false")
            run = Run(ROOT / project.run_convae(*words)["run"])
        ship(name, run)
    model_cards.main()


def find(name: str) -> Run | None:
    """Return the newest finished run of the config on the complete MNIST."""

    def weights_config(config: Config) -> dict[str, Any]:
        sources = {"path", "download", "allow_sample"}
        return config.model_dump(exclude={"runtime": True, "output": True, "data": sources})

    wanted = weights_config(load_config(CONFIGS / f"{name}.yaml"))

    def fits(run: Run) -> bool:
        return run.manifest["data"]["name"] == "MNIST" and weights_config(run.config) == wanted

    runs = project.finished_runs(name, ROOT / "outputs", fits)
    return runs[-1] if runs else None


def ship(name: str, run: Run) -> None:
    """Measure `run`, and copy its best weights and their card into the package."""
    metrics = project.run_convae("eval", run.path)
    weights, card_path = (pretrained.FOLDER / f"{name}.{ending}" for ending in ("keras", "json"))
    shutil.copyfile(run.best, weights)
    size = weights.stat().st_size
    if size > MAX_SIZE:
        raise SystemExit(f"{name}.keras: {size:,} bytes are more than {MAX_SIZE:,}")
    config = run.config_with(["data.path=null", "data.allow_sample=true", "output.folder=outputs"])
    card: dict[str, Any] = {
        "name": name,
        "config": config.to_yaml(),
        "manifest": {key: run.manifest.get(key) for key in MANIFEST_KEYS},
        "bytes": size,
        **{key: value for key, value in metrics.items() if key not in LEFT_OUT},
    }
    project.write_json(card_path, card)
    # Everybody has the sample: its metrics let a user check the files.
    shutil.rmtree(ROOT / "outputs" / name / "pretrained", ignore_errors=True)
    unpacked = Run(pretrained.unpack(name, str(ROOT / "outputs")))
    sample = project.run_convae("eval", unpacked.path, f"data.path={SAMPLE_PATH}")
    project.write_json(card_path, {**card, "sample": sample["test"]})
    print(f"{name}: {card['summary']}")


if __name__ == "__main__":
    main()
