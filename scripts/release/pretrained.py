"""Train what is shipped, measure it, and put weights and cards into the package.

python -m scripts.release.pretrained [--anew] [NAME ...]      # make pretrained

A finished run of the same config and data in outputs/ is taken; `--anew` trains in any case.
Writes src/convae/assets/pretrained/NAME.keras and NAME.json, and docs/pretrained.md.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from convae.config.loader import load_config
from convae.config.schema import Config
from convae.data.loading import SAMPLE_PATH
from convae.runs import pretrained
from convae.runs.run import Run

ROOT = Path(__file__).parents[2]
NAMES = ("mnist", "bottleneck", "denoise", "upscale", "segment", "anomaly")
KEPT = (
    "versions", "platform", "git_commit", "command", "started", "seed", "device", "precision",
    "threads", "runtime", "parameters", "data", "data_sha256", "status", "seconds",
    "peak_memory_mib", "weights_sha256",
)  # fmt: skip
SIZE = 1_000_000  # bytes that a file of weights may have


def main(words: list[str]) -> None:
    """Bring the asked names, or all, up to date."""
    anew = "--anew" in words
    for name in [word for word in words if not word.startswith("--")] or NAMES:
        run = (None if anew else finished(name)) or trained(name)
        ship(name, run)
    document()


def finished(name: str) -> Run | None:
    """The newest finished run that trained what the config asks for, on the whole MNIST."""
    wanted = comparable(load_config(ROOT / f"configs/{name}.yaml"))
    fitting = [
        run
        for run in Run.all(str(ROOT / "outputs"))
        if run.path.parent.name == name
        and run.manifest.get("status") == "finished"
        and run.manifest["data"]["name"] == "MNIST"
        and comparable(run.config) == wanted
    ]
    return fitting[-1] if fitting else None


def comparable(config: Config) -> dict[str, Any]:
    """What decides a model's weights."""
    whole = config.model_dump(exclude={"runtime", "output"})
    del whole["data"]["path"]
    return whole


def trained(name: str) -> Run:
    """A new run of configs/NAME.yaml."""
    command = ["convae", "train", f"configs/{name}.yaml", "data.allow_sample=false", "--json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
    return Run(ROOT / json.loads(done.stdout)["run"])


def ship(name: str, run: Run) -> None:
    """Measure `run` and copy its best weights and what is known of them into the package."""
    metrics = measured(run)
    shutil.copyfile(run.best, pretrained.FOLDER / f"{name}.keras")
    size = (pretrained.FOLDER / f"{name}.keras").stat().st_size
    if size > SIZE:
        raise SystemExit(f"{name}.keras: {size:,} bytes are more than {SIZE:,}")
    config = run.config_with(["data.path=null", "data.allow_sample=true", "output.folder=outputs"])
    card: dict[str, Any] = {
        "name": name,
        "config": config.to_yaml(),
        "manifest": {key: run.manifest.get(key) for key in KEPT},
        "bytes": size,
        **{
            key: metrics[key]
            for key in (
                "summary",
                "test",
                "baselines",
                "baseline_descriptions",
                "units",
                "threshold",
            )
            if key in metrics
        },
    }
    path = pretrained.FOLDER / f"{name}.json"
    path.write_text(json.dumps(card, indent=1) + "\n")
    # The sample is there wherever the package is: what the weights reach on it can be checked.
    shutil.rmtree(ROOT / "outputs" / name / "pretrained", ignore_errors=True)
    on_sample = measured(Run(pretrained.unpack(name, str(ROOT / "outputs"))), str(SAMPLE_PATH))
    path.write_text(json.dumps({**card, "sample": on_sample["test"]}, indent=1) + "\n")
    print(f"{name}: {card['summary']}")


def measured(run: Run, data: str | None = None) -> dict[str, Any]:
    """What `convae eval` says of a run."""
    words = [f"data.path={data}"] if data else []
    command = ["convae", "eval", str(run.path), *words, "--json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
    return dict(json.loads(done.stdout))


def document() -> None:
    """docs/pretrained.md, from the cards."""
    lines = [
        "# Shipped weights",
        "",
        "Made by `make pretrained`; each is plain Keras layers and opens without convae. The "
        'command line takes one as `pretrained:NAME`, Python as `convae.load("NAME")`.',
        "",
        "The bundled sample's 1,000 test digits come from MNIST's training part, so all of these "
        "weights but those of unlike data have seen them in training: its figures check the files, "
        "not the quality. The quality is that on MNIST's own 10,000 test digits.",
        "",
        "| name | what it does | parameters | size | trained in | on |",
        "|---|---|---|---|---|---|",
    ]
    cards = [pretrained.card(name) for name in pretrained.names()]
    for card in cards:
        made = card["manifest"]
        lines.append(
            f"| [`{card['name']}`](#{card['name']}) | {card['summary']} | {made['parameters']:,} "
            f"| {card['bytes'] / 1000:.0f} kB | {made['seconds']:.0f} s "
            f"| {made['runtime']['device_name']}, {made['precision']} |"
        )
    for card in cards:
        lines += ["", *described(card)]
    (ROOT / "docs/pretrained.md").write_text("\n".join(lines) + "\n")


def described(card: dict[str, Any]) -> list[str]:
    """A card as Markdown."""
    made, metrics = card["manifest"], list(card["test"])
    columns = {"these weights": card["test"], **card["baselines"]}
    words = {"these weights": "", **card["baseline_descriptions"]}
    lines = [f"## {card['name']}", "", card["summary"], ""]
    lines += [f"| on MNIST's 10,000 test digits | {' | '.join(metrics)} |"]
    lines += ["|---" * (len(metrics) + 1) + "|"]
    for name, table in columns.items():
        values = " | ".join(f"{table[metric]:.5g}" for metric in metrics)
        lines.append(f"| {words[name] or name} | {values} |")
    versions = ", ".join(f"{key} {value}" for key, value in made["versions"].items())
    lines += [
        "",
        f"Trained by `{made['command']}` at commit {str(made['git_commit'])[:9]}, seed "
        f"{made['seed']}, in {made['seconds']:.0f} s on {made['runtime']['device_name']} "
        f"({made['precision']}); {versions}. Data {made['data']['name']}, "
        f"SHA-256 `{made['data_sha256'][:16]}...`; weights `{made['weights_sha256'][:16]}...`. "
        f"Config: [configs/{card['name']}.yaml](../configs/{card['name']}.yaml).",
    ]
    return lines


if __name__ == "__main__":
    main(sys.argv[1:])
