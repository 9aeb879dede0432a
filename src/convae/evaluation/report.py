"""report.html: a run on one page, from its files alone. No TensorFlow, no matplotlib.

metrics.json has tables of {metric: number} for every task. The same files give the same page.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from convae.config import scalars
from convae.config.diff import format_leaves
from convae.console import format_duration, format_number
from convae.errors import RunError
from convae.evaluation.html import format_key, load_picture, render
from convae.files import write_atomic
from convae.runs.run import Run

# The captions of figures, in the order on the page; other figures follow by name.
CAPTIONS = {
    "training": "The loss by epoch, and what is left of it above the lowest possible value.",
    "reconstructions": "One image of each class: input, output and absolute error.",
    "samples": "Images that the decoder makes of random codes.",
    "segmentations": "Scenes, true and predicted classes, and the wrong pixels.",
    "scores": "This run beside simple baselines.",
    "anomaly_scores": "The scores of normal images and anomalies, and the ROC curve.",
    "hardest": "Normal images with high scores, and anomalies with low ones.",
    "best_and_worst": "The test images with the best and the worst metrics.",
    "error_by_class": "The metric of each class.",
    "confusion": "Which classes are taken for which.",
    "code_map": "All codes in two dimensions: similar codes are near each other.",
    "interpolation": "The decoded codes between those of two images.",
    "traversal": "One image, with one number of its code changed at a time.",
    "neighbors": "The images with the nearest codes, and those with the nearest pixels.",
    "code": "Input, code by channel, and reconstruction.",
}
# Keys of metrics.json with a place of their own; the others are listed below the metrics.
KNOWN = {
    "task", "data", "weights", "same_training_data", "test", "per_class", "baselines",
    "baseline_descriptions", "units", "summary",
}  # fmt: skip
HEADLINES = (
    "elbo",
    "excess",
    "auroc",
    "iou",
    "psnr",
    "ssim",
    "mse",
)  # a tile each, the first three found


def write(run: Run) -> Path:
    """Write `run`'s report.html and return its path.

    Raises:
        RunError: If the run was not evaluated.
    """
    html = build(run)
    with run.writing("report.html"):
        write_atomic(run.path / "report.html", html.encode())
    return run.path / "report.html"


def build(run: Run) -> str:
    """Return the page as HTML; a metrics.json of an earlier version may lack some keys.

    Raises:
        RunError: If the run was not evaluated.
    """
    metrics = run.metrics
    if not metrics.get("test"):
        raise RunError(
            f"{run.path}: was not evaluated yet, so there is nothing to report. "
            f"convae eval {shlex.quote(str(run.path))} measures it and writes the report"
        )
    config, manifest, history = run.config, run.manifest, run.history
    model, tree = config.model_summary.to_dict(), config.model_dump(mode="json")
    test, baselines, test_data, units = (
        metrics.get(key, {}) for key in ("test", "baselines", "data", "units")
    )
    paths = {path.stem: path for path in sorted((run.path / "figures").glob("*.png"))}
    pictures = {
        name: load_picture(paths[name], format_key(name).capitalize(), CAPTIONS.get(name, ""))
        for name in dict.fromkeys((*CAPTIONS, *paths))
        if name in paths
    }
    return render(
        "report.html",
        name=config.name,
        id=run.path.name,
        started=manifest.get("started", "").replace("T", " ")[:16],
        data=manifest.get("data", {}).get("name", test_data.get("name", "")),
        notes=_notes(manifest, metrics),
        tiles=_tiles(test, units, model, manifest, history),
        summary=metrics.get("summary", ""),
        progress=_progress(test, baselines),
        test=test,
        test_data=test_data,
        units=units,
        weights=metrics.get("weights", {}),
        baselines=baselines,
        descriptions=metrics.get("baseline_descriptions", {}),
        extra_metrics=format_leaves({k: v for k, v in metrics.items() if k not in KNOWN}).items(),
        per_class=metrics.get("per_class"),
        curves=[picture for name, picture in pictures.items() if name == "training"],
        pictures=[picture for name, picture in pictures.items() if name != "training"],
        history=history,
        model=model,
        input_shape=config.model.input_shape,
        last_of_encoder=model["layers"][len(config.model.encoder) - 1]["name"],
        time=_describe_time(manifest, history),
        commands=_commands(run, manifest),
        config=scalars.dump(tree, default_flow_style=None, width=96),
        manifest=manifest,
        manifest_leaves=format_leaves(manifest).items(),
    )


def _progress(
    test: Mapping[str, float], baselines: Mapping[str, Mapping[str, float]]
) -> dict[str, Any] | None:
    """Return how far the run is between the first baseline and the floor, if it has an excess."""
    name, scores = next(iter(baselines.items()), ("", {}))
    if not scores.get("excess") or "excess" not in test:
        return None
    share = 1 - test["excess"] / scores["excess"]
    return {
        "share": min(max(share, 0.0), 1.0),
        "begin": f"{format_key(name)}: excess {format_number(scores['excess'])}",
        "end": "floor: excess 0",
    }


def _notes(manifest: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[str]:
    """Return the warnings at the top of the page."""
    notes = []
    if manifest.get("data", {}).get("sample") or metrics.get("data", {}).get("sample"):
        notes.append("These are the bundled 5,000 digits, not the full MNIST.")
    if not metrics.get("same_training_data", True):
        notes.append("The run was trained on other data than were found when it was evaluated.")
    if (status := manifest.get("status", "finished")) != "finished":
        notes.append(f"The training has not finished ({status}): these are its best weights.")
    return notes


def _tiles(
    test: Mapping[str, float],
    units: Mapping[str, str],
    model: Mapping[str, Any],
    manifest: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
) -> list[tuple[str, str, str]]:
    """Return the numbers at the top of the page: (label, number, small text)."""
    names = [name for name in HEADLINES if name in test][:3] or list(test)[:3]
    tiles = [(format_key(n), format_number(test[n]), units.get(n, "")) for n in names]
    ratio = model["code_ratio"]
    size = f"{ratio:.2f} times as many as pixels" if ratio > 1 else f"{1 / ratio:.3g} times fewer"
    tiles.append(("parameters", f"{model['parameters']:,}", ""))
    tiles.append(("code", f"{model['code_size']:,}", f"numbers, {size}"))
    if seconds := manifest.get("seconds"):
        epochs = f"{len(history)} epoch" + ("" if len(history) == 1 else "s")
        tiles.append(("training", format_duration(seconds), epochs))
    return tiles


def _describe_time(manifest: Mapping[str, Any], history: Sequence[Mapping[str, float]]) -> str:
    parts = []
    if seconds := manifest.get("seconds"):
        parts.append(f"The training took {format_duration(seconds)}")
        if history:
            speed = sum(row["images_per_second"] for row in history) / len(history)
            parts[-1] += f": {len(history)} epochs, {speed:,.0f} images per second"
    if device := manifest.get("runtime", {}).get("device_name"):
        parts.append(f"It ran on {device} in {manifest.get('precision', 'float32')}")
    if memory := manifest.get("peak_memory_mib"):
        parts.append(f"The process used {memory:,.0f} MiB at most")
    return ". ".join(parts) + "." if parts else "The time is not known."


def _commands(run: Run, manifest: Mapping[str, Any]) -> str:
    """Return the shell commands that repeat this run."""
    versions = manifest.get("versions", {})
    packages = [f"{k}=={v}" for k, v in versions.items() if k not in ("python", "convae")]
    lines = []
    if packages:
        lines += [f"# Python {versions.get('python', '')}", f"pip install {' '.join(packages)}"]
    if commit := manifest.get("git_commit"):
        lines.append(f"git checkout {shlex.quote(commit)}  # convae {versions.get('convae', '')}")
    if original := manifest.get("command"):
        lines.append(f"# original command: {original}".replace("\n", " "))
    lines += [f"convae train {shlex.quote(str(run.path / 'config.yaml'))}", "convae eval"]
    return "\n".join(lines)
