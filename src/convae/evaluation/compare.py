"""Comparison of runs: differences of their configs, metrics, curves, outputs.

The tables come from the runs' files. TensorFlow is imported only to evaluate a run that was not
evaluated yet, and for the outputs of every run on the same images.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from convae.config.diff import format_leaves
from convae.console import format_duration, format_number, format_shape, format_table, logger
from convae.data.loading import load_test
from convae.errors import FileError, RunError
from convae.evaluation.html import format_key, load_picture, render
from convae.files import check_folder, write_atomic
from convae.plots import style
from convae.plots.image_grids import GAP, NARROWEST, draw_rows, to_floats
from convae.plots.style import MARGIN, applied, log_axis
from convae.runs.run import Run
from convae.tasks import build_task
from convae.tasks.metrics import METRICS

# The colors of the runs, as many as can be distinguished.
COLORS = (
    style.BLUE, style.VERMILION, style.GREEN, style.PURPLE, style.ORANGE, style.SKY, style.INK,
)  # fmt: skip
SHOWN = 10  # test images
TILE, LEFT = 56.0, 190.0  # points


def distinct(runs: Sequence[Run]) -> list[Run]:
    """Return `runs` without repetitions.

    Raises:
        RunError: If fewer than two are left, or more than there are colors.
    """
    found = list({run.path.resolve(): run for run in runs}.values())
    if len(found) < 2:
        given = ", ".join(run.path.name for run in runs)
        raise RunError(f"compare needs at least two different runs. Received: {given}")
    if len(found) > len(COLORS):
        raise RunError(f"compare takes at most {len(COLORS)} runs. Received: {len(found)}")
    return found


def compare(runs: Sequence[Run], folder: Path) -> dict[str, Any]:
    """Compare runs, evaluate those that were not evaluated yet, and write figures and a page.

    Args:
        runs: Different runs, see `distinct`.
        folder: Where compare.html, curves.png and reconstructions.png are written.

    Returns:
        The tables of the page, for JSON.

    Raises:
        RunError: If a run has no weights, or cannot be evaluated.
        FileError: If the folder cannot be written.
    """
    check_folder(folder)
    for run in runs:
        _ = run.best  # raises before another run is evaluated
    for run in runs:
        if not run.metrics.get("test"):
            logger.info(f"{run.path.name} was not evaluated yet: evaluating it")
            from convae.evaluation.evaluate import evaluate

            evaluate(run)
    described = [_describe_run(run) for run in runs]
    labels = _labels(described)
    files = {
        "page": folder / "compare.html",
        "curves": folder / "curves.png",
        "reconstructions": folder / "reconstructions.png",
    }
    notes = _notes(runs, labels)
    result: dict[str, Any] = {
        "runs": [{"label": label, **run} for label, run in zip(labels, described, strict=True)],
        "differences": _differences(runs, labels),
        "metrics": _columns([run.metrics["test"] for run in runs], labels),
        "units": {k: v for run in runs for k, v in run.metrics.get("units", {}).items()},
        "notes": notes,
        "files": {name: str(path) for name, path in files.items()},
    }
    figures = {
        "curves": (
            _draw_curves(runs, labels),
            "Curves",
            "The excess of the validation loss over its floor, by epoch and by time.",
        ),
        "reconstructions": (
            _draw_outputs(runs, labels, notes),
            "Outputs",
            "The outputs of every run on the same test images, and their errors.",
        ),
    }
    _write_page(folder, files, figures, result)
    return result


def _write_page(
    folder: Path,
    files: Mapping[str, Path],
    figures: Mapping[str, tuple[Figure, str, str]],
    result: Mapping[str, Any],
) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pictures = [
            load_picture(style.save(figure, files[name]), title, caption)
            for name, (figure, title, caption) in figures.items()
        ]
        page = render(
            "compare.html",
            runs=[run | {"color": c} for run, c in zip(result["runs"], COLORS, strict=False)],
            tables=_tables(result),
            units=result["units"],
            notes=result["notes"],
            identical=not result["differences"],
            pictures=pictures,
        )
        write_atomic(files["page"], page.encode())
    except OSError as error:
        raise FileError(f"{folder}: cannot be written: {error.strerror or error}") from None


def format_result(result: Mapping[str, Any]) -> str:
    """Return the tables, the notes and the files of `compare` as text for a terminal."""
    labels = [run["label"] for run in result["runs"]]
    blocks = []
    for title, rows in _tables(result).items():
        cells = [(title, *labels), *((name, *values) for name, values, _ in rows)]
        blocks.append(format_table([(f"{c[0]:<24}", *(f"{v:>12}" for v in c[1:])) for c in cells]))
    lines = [*result["notes"], *(f"wrote {path}" for path in result["files"].values())]
    return "\n\n".join([*blocks, "\n".join(lines)])


def _describe_run(run: Run) -> dict[str, Any]:
    manifest, history = run.manifest, run.history
    speeds = [row["images_per_second"] for row in history]
    return {
        "name": run.config.name,
        "id": run.path.name,
        "path": str(run.path),
        "parameters": manifest.get("parameters"),
        "epochs": len(history),
        "seconds": manifest.get("seconds"),
        "images_per_second": sum(speeds) / len(speeds) if speeds else None,
        "device": manifest.get("runtime", {}).get("device_name"),
        "precision": manifest.get("precision"),
        "data": manifest.get("data", {}).get("name"),
    }


def _labels(described: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the runs' names, with the end of the id where two have the same."""
    names = [run["name"] for run in described]
    return [
        name if names.count(name) == 1 else f"{name} {run['id'][-4:]}"
        for name, run in zip(names, described, strict=True)
    ]


def _columns(tables: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> dict[str, Any]:
    """Return {key: {label: value}} of the tables, None where a table lacks the key."""
    keys = dict.fromkeys(key for table in tables for key in table)
    return {
        key: {label: table.get(key) for label, table in zip(labels, tables, strict=True)}
        for key in keys
    }


def _differences(runs: Sequence[Run], labels: Sequence[str]) -> dict[str, dict[str, str | None]]:
    """Return the config's keys that differ, without those of the name and the output."""
    dumps = (run.config.model_dump(mode="json", exclude={"name", "output"}) for run in runs)
    rows = _columns([format_leaves(tree) for tree in dumps], labels)
    return {key: row for key, row in rows.items() if len(set(row.values())) > 1}


def _notes(runs: Sequence[Run], labels: Sequence[str]) -> list[str]:
    """Return why the numbers may not be comparable."""
    tests = {str(run.metrics.get("data")) for run in runs}
    notes = [] if len(tests) == 1 else ["The runs were evaluated on different test images."]
    if len({run.manifest.get("data_sha256") for run in runs}) > 1:
        notes.append("The runs were trained on different images.")
    devices = {run.manifest.get("runtime", {}).get("device_name") for run in runs}
    if len(devices) > 1:
        notes.append("The runs were trained on different machines: their times do not compare.")
    for label, run in zip(labels, runs, strict=True):
        if (status := run.manifest.get("status", "finished")) != "finished":
            notes.append(f"The training of {label} has not finished ({status}).")
    return notes


def _tables(result: Mapping[str, Any]) -> dict[str, list[tuple[str, list[str], list[bool]]]]:
    """Return the tables by title: rows of (name, a text for each run, whether it is the best)."""
    runs = result["runs"]
    no_best = [False] * len(runs)
    metrics = [
        (name, [format_number(v) for v in row.values()], _best(name, list(row.values())))
        for name, row in result["metrics"].items()
    ]
    training = []
    for key in ("parameters", "epochs", "seconds", "images_per_second", "precision", "device"):
        show = format_duration if key == "seconds" else format_number
        texts = ["" if run[key] is None else show(run[key]) for run in runs]
        if key != "device" or len(set(texts)) > 1:
            training.append(("time" if key == "seconds" else format_key(key), texts, no_best))
    config = [
        (key, ["–" if v is None else v for v in row.values()], no_best)
        for key, row in result["differences"].items()
    ]
    tables = {"Quality": metrics, "Training": training, "Config: differences": config}
    return {title: rows for title, rows in tables.items() if rows}


def _best(name: str, values: Sequence[float | None]) -> list[bool]:
    """Return which values of a metric are the best; none if all are equal or it has no order."""
    there = [value for value in values if value is not None]
    order = METRICS[name][1] if name in METRICS else ""
    if len(set(there)) < 2 or not order:
        return [False] * len(values)
    best = max(there) if order == "higher" else min(there)
    return [value == best for value in values]


@applied()
def _draw_curves(runs: Sequence[Run], labels: Sequence[str]) -> Figure:
    """Draw the excess of the validation loss by epoch and by minutes of training."""
    histories = [run.history for run in runs]
    subtitle = "val_excess (log scale), by epoch and by time"
    paper = style.sheet(830, 370 + 17 * len(labels), "Learning curves", subtitle)
    for place, unit in enumerate(("epoch", "minutes of training")):
        axes = paper.panel(MARGIN + 50 + place * 395, 16, 335, 290)
        for history, label, color in zip(histories, labels, COLORS, strict=False):
            x = np.array([row["epoch"] for row in history])
            if unit != "epoch":
                x = np.cumsum([row["seconds"] for row in history]) / 60
            y = [row["val_excess"] for row in history]
            axes.plot(x, y, label=label, color=color, marker="o" if len(x) <= 40 else "")
        axes.set_xlabel(unit)
        log_axis(axes, "y", [row["val_excess"] for history in histories for row in history])
    for place, (label, color) in enumerate(zip(labels, COLORS, strict=False)):
        top = 360.0 + 17 * place
        paper.canvas.plot([MARGIN + 50, MARGIN + 74], [top, top], color=color)
        paper.text(MARGIN + 84, top, label)
    return paper.figure


@applied()
def _draw_outputs(runs: Sequence[Run], labels: Sequence[str], notes: list[str]) -> Figure:
    """Draw test examples of the first run, and the outputs of the runs of the same shapes."""
    from convae.evaluation.evaluate import load_model
    from convae.evaluation.figures import first_of_each_class

    config = runs[0].config
    task = build_task(config)
    data = load_test(config.data, task.image_shape)
    examples = task.evaluation_examples(data.test)
    indices = first_of_each_class(task.labels(data.test), min(SHOWN, len(examples)))
    examples = examples[np.array(indices)]
    rows: list[tuple[str, str, Any, Any]] = [("input", style.INK, examples.inputs, ())]
    if not np.array_equal(examples.targets, examples.inputs):
        rows.append(("target", style.INK, task.to_images(examples.targets), ()))
    for run, label, color in zip(runs, labels, COLORS, strict=False):
        first, own = ((c.model.input_shape, c.output_shape) for c in (config, run.config))
        if first == own:
            outputs = load_model(run)(examples.inputs.astype(np.float32) / 255).numpy()
            errors = task.error(examples.targets, outputs)
            rows.append((label, color, task.to_images(outputs), errors))
        else:
            shape = format_shape(own[0])
            notes.append(f"{label} takes images of {shape}, so its outputs are not shown.")
            rows.append((label, color, None, ()))
    step = TILE + 24
    paper = style.sheet(
        max(LEFT + len(examples) * (TILE + GAP) + MARGIN, NARROWEST),
        len(rows) * step + MARGIN,
        "Outputs of every run on the same images",
        f"{data.name}; below each output its {task.error_name}",
    )
    for row, (label, color, images, errors) in enumerate(rows):
        top = 4 + row * step
        paper.text(LEFT - 10, top + TILE / 2, label[:26], ha="right", color=color)
        if images is None:
            paper.text(LEFT, top + TILE / 2, "images of another shape", color=style.GRAY)
            continue
        draw_rows(paper, {"": to_floats(images)}, top, TILE, LEFT)
        small: dict[str, Any] = {"ha": "center", "size": style.SMALL, "color": style.GRAY}
        for column, error in enumerate(errors):
            x = LEFT + column * (TILE + GAP) + TILE / 2
            paper.text(x, top + TILE + 9, f"{error:.2g}", **small)
    return paper.figure
