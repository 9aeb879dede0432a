"""report.html: a run on one page, from its files alone. No TensorFlow, no matplotlib.

Nothing here knows a task: metrics.json brings tables of {metric: number}, and figures/ pictures.
The same files give the same page.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from convae.config.diff import format_leaves
from convae.config.schema import Config
from convae.errors import RunError
from convae.evaluation.html import Picture, duration, number, picture, render, words
from convae.files import write_atomic
from convae.layers import summary as ledger
from convae.runs.run import Run

# What a reader looks at first, and what is said of it; other pictures follow by name.
CAPTIONS = {
    "training": "How the loss fell, and what is left of it above the lowest value possible.",
    "reconstructions": "One image of each class: what went in, what came out, and the difference.",
    "segmentations": "Scenes, the class of each pixel, what was found, and where the two differ.",
    "scores": "This run beside simpler ways to the same end.",
    "anomaly_scores": "How the scores of normal and other images lie, and what a threshold does.",
    "hardest": "Normal images that score high, and others that score low.",
    "best_and_worst": "The test images that came out best, and those that came out worst.",
    "error_by_class": "Which classes are harder than others.",
    "confusion": "Which classes are taken for which.",
    "code_map": "All codes in two dimensions: what lies together is alike to the encoder.",
    "interpolation": "What the decoder makes of the codes between two images.",
    "neighbors": "The images whose codes are nearest, beside those whose pixels are.",
    "code": "What the encoder makes of an image, channel by channel, and what comes back.",
}
# What of metrics.json has a place of its own; what a task adds stands below the metrics.
KNOWN = {
    "task", "data", "weights", "same_training_data", "test", "per_class", "baselines",
    "baseline_words", "units", "verdict",
}  # fmt: skip
HEADLINES = ("excess", "auroc", "iou", "psnr", "ssim", "mse")  # a tile each, the first three found


def write(run: Run) -> Path:
    """Write `run`'s report.html and return its path. Raises RunError if it was not evaluated."""
    html = build(run)
    with run.writing("report.html"):
        write_atomic(run.path / "report.html", html.encode())
    return run.path / "report.html"


def build(run: Run) -> str:
    """The page, as HTML. Raises RunError if `run` was not evaluated yet."""
    measured = run.metrics
    if not measured.get("test"):
        raise RunError(
            f"{run.path}: was not evaluated yet, so there is nothing to report. "
            f"convae eval {shlex.quote(str(run.path))} measures it and writes the report"
        )
    config, manifest, history = run.config, run.manifest, run.history
    test, baselines = measured["test"], measured.get("baselines", {})
    units = measured.get("units", {})
    data, weights = measured.get("data", {}), measured.get("weights", {})
    model = ledger.summary(config.model, compresses=config.task.compresses)
    pictures = figures(run)
    return render(
        "report.html",
        name=config.name,
        id=run.path.name,
        started=manifest.get("started", "").replace("T", " ")[:16],
        data=manifest.get("data", {}).get("name", data.get("name", "")),
        verdict=measured.get("verdict", ""),
        way=way(test, baselines),
        notes=notes(manifest, measured),
        tiles=tiles(test, units, model, manifest, history),
        measured=f"{data.get('examples', 0):,} test examples of {data.get('name', '')}, "
        f"weights of epoch {weights.get('epoch') or 'unknown'} ({weights.get('file', '')})",
        baselines=[
            {"name": name, "words": measured.get("baseline_words", {}).get(name, "")}
            for name in baselines
        ],
        metrics=[
            {
                "name": name,
                "value": value,
                "unit": units.get(name, ""),
                "baselines": [scores.get(name) for scores in baselines.values()],
            }
            for name, value in test.items()
        ],
        further=format_leaves({k: v for k, v in measured.items() if k not in KNOWN}).items(),
        per_class=measured.get("per_class") or {},
        curves=[p for p in pictures if p.title == "Training"],
        pictures=[p for p in pictures if p.title != "Training"],
        history=history,
        model=describe_model(model),
        input_shape=config.model.input_shape,
        layers=model["layers"],
        last_of_encoder=model["layers"][len(config.model.encoder) - 1]["name"],
        warnings=model["warnings"],
        took=took(manifest, history),
        commands=commands(run, manifest),
        weights_sha256=manifest.get("weights_sha256"),
        config=compact(config),
        manifest=format_leaves(manifest).items(),
    )


def way(
    test: Mapping[str, float], baselines: Mapping[str, Mapping[str, float]]
) -> dict[str, Any] | None:
    """How far from the first baseline to the entropy floor, where the metrics know one."""
    name, scores = next(iter(baselines.items()), ("", {}))
    if not scores.get("excess") or "excess" not in test:
        return None
    share = 1 - test["excess"] / scores["excess"]
    return {
        "share": min(max(share, 0.0), 1.0),
        "begin": f"{words(name)}: excess {number(scores['excess'])}",
        "end": "floor: excess 0",
    }


def notes(manifest: Mapping[str, Any], measured: Mapping[str, Any]) -> list[str]:
    """What nobody may overlook."""
    found = []
    if manifest.get("data", {}).get("sample") or measured.get("data", {}).get("sample"):
        found.append("These are the bundled 5,000 digits, not the whole MNIST.")
    if not measured.get("same_training_data", True):
        found.append("The run was trained on other data than were found when it was measured.")
    if (status := manifest.get("status", "finished")) != "finished":
        found.append(f"The training has not finished ({status}): these are its best weights.")
    return found


def tiles(
    test: Mapping[str, float],
    units: Mapping[str, str],
    model: Mapping[str, Any],
    manifest: Mapping[str, Any],
    history: list[dict[str, float]],
) -> list[dict[str, str]]:
    """The numbers at the top."""
    chosen = [name for name in HEADLINES if name in test][:3] or list(test)[:3]
    found = [
        {"label": words(name), "value": number(test[name]), "small": units.get(name, "")}
        for name in chosen
    ]
    ratio = model["code_ratio"]
    said = f"{ratio:.2f} times as many as pixels" if ratio > 1 else f"{1 / ratio:.3g} times fewer"
    found.append({"label": "parameters", "value": f"{model['parameters']:,}", "small": ""})
    found.append({"label": "code", "value": f"{model['code_size']:,}", "small": f"numbers, {said}"})
    if seconds := manifest.get("seconds"):
        epochs = f"{len(history)} epoch" + ("" if len(history) == 1 else "s")
        found.append({"label": "training", "value": duration(seconds), "small": epochs})
    return found


def describe_model(model: Mapping[str, Any]) -> str:
    """The ledger's sums in a sentence."""
    return (
        f"{model['parameters']:,} parameters, {model['macs']:,} MACs and "
        f"{model['activation_bytes'] / 1024:,.1f} KiB of activations for one image (float32); "
        f"a code of {model['code_size']:,} numbers."
    )


def took(manifest: Mapping[str, Any], history: list[dict[str, float]]) -> str:
    """How long it took, and on what."""
    parts = []
    if seconds := manifest.get("seconds"):
        parts.append(f"The training took {duration(seconds)}")
        if history:
            speed = sum(row["images_per_second"] for row in history) / len(history)
            parts[-1] += f": {len(history)} epochs, {speed:,.0f} images per second"
    if device := manifest.get("runtime", {}).get("device_name"):
        parts.append(f"It ran on {device} in {manifest.get('precision', 'float32')}")
    if memory := manifest.get("peak_memory_mib"):
        parts.append(f"Its process held {memory:,.0f} MiB at most")
    return ". ".join(parts) + "." if parts else "How long it took is not known."


def commands(run: Run, manifest: Mapping[str, Any]) -> str:
    """The commands that make this run again, to be copied into a shell."""
    versions = manifest.get("versions", {})
    packages = [
        f"{name}=={versions[name]}" for name in versions if name not in ("python", "convae")
    ]
    folder = shlex.quote(str(run.path))
    lines = []
    if packages:
        lines += [f"# Python {versions.get('python', '')}", f"pip install {' '.join(packages)}"]
    if commit := manifest.get("git_commit"):
        lines.append(f"git checkout {shlex.quote(commit)}  # convae {versions.get('convae', '')}")
    if original := manifest.get("command"):
        lines.append(f"# it was: {original}".replace("\n", " "))
    lines += [f"convae train {folder}/config.yaml", "convae eval"]
    return "\n".join(lines)


def compact(config: Config) -> str:
    """The resolved config as YAML, with pairs and the like on one line."""
    tree = config.model_dump(mode="json")
    return yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, width=96)


def figures(run: Run) -> list[Picture]:
    """The run's pictures, those with a caption first, in its order."""
    paths = {path.stem: path for path in sorted((run.path / "figures").glob("*.png"))}
    order = [
        *(name for name in CAPTIONS if name in paths),
        *(n for n in paths if n not in CAPTIONS),
    ]
    return [
        picture(paths[name], words(name).capitalize(), CAPTIONS.get(name, "")) for name in order
    ]
