"""Runs beside each other: what differs in their configs, and what came of it.

What a table says comes from the runs' files. TensorFlow is needed only to measure a run that was
not evaluated yet, and for reconstructions of the same images by every run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convae.config.diff import format_leaves
from convae.console import format_table, logger
from convae.errors import RunError
from convae.evaluation.html import duration, number, picture, render, words
from convae.files import write_atomic
from convae.plots import style
from convae.plots.image_grids import NARROWEST, drawable, log_scale
from convae.plots.style import MARGIN, applied
from convae.runs.run import Run
from convae.tasks.metrics import HIGHER_IS_BETTER, LOWER_IS_BETTER

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

MOST = 7  # runs: as many as there are colors that everyone can tell apart
COLORS = (
    style.BLUE,
    style.VERMILION,
    style.GREEN,
    style.PURPLE,
    style.ORANGE,
    style.SKY,
    style.INK,
)
SHOWN = 10  # test images
TILE, GAP, LEFT = 56.0, 4.0, 190.0  # points


def distinct(runs: Sequence[Run]) -> list[Run]:
    """The runs that were named, each once. Raises RunError if that leaves fewer than two."""
    found = list({run.path.resolve(): run for run in runs}.values())
    if len(found) < 2:
        given = ", ".join(run.path.name for run in runs)
        raise RunError(f"compare needs at least two different runs. Received: {given}")
    if len(found) > MOST:
        raise RunError(f"compare takes at most {MOST} runs. Received: {len(found)}")
    return found


def compare(runs: Sequence[Run], folder: Path) -> dict[str, Any]:
    """Compare `runs` (see `distinct`); write pictures and a page to `folder`; return the facts.

    A run that was not evaluated yet is evaluated first. Raises RunError where that cannot be.
    """
    for run in runs:
        if not run.metrics.get("test"):
            logger.info(f"{run.path.name} was not evaluated yet: measuring it")
            from convae.evaluation.evaluate import evaluate

            evaluate(run)
    found = [_facts(run) for run in runs]
    labels = _labels(found)
    result: dict[str, Any] = {
        "runs": [{"label": label, **fact} for label, fact in zip(labels, found, strict=True)],
        "differences": _differences(runs, labels),
        "metrics": _columns([run.metrics["test"] for run in runs], labels),
        "units": {k: v for run in runs for k, v in run.metrics.get("units", {}).items()},
        "notes": _notes(runs, labels),
        "files": {
            "page": str(folder / "compare.html"),
            "curves": str(folder / "curves.png"),
            "reconstructions": str(folder / "reconstructions.png"),
        },
    }
    files = {name: Path(path) for name, path in result["files"].items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        style.save(curves([run.history for run in runs], labels), files["curves"])
        style.save(_reconstructions(runs, labels, result["notes"]), files["reconstructions"])
        write_atomic(files["page"], _page(result, files).encode())
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror or error}") from None
    return result


def told(result: Mapping[str, Any]) -> str:
    """The facts as text for a terminal."""
    labels = [run["label"] for run in result["runs"]]
    blocks = []
    for title, rows in _tables(result).items():
        cells = [(title, *labels), *((name, *values) for name, values, _ in rows)]
        blocks.append(format_table([(f"{c[0]:<24}", *(f"{v:>12}" for v in c[1:])) for c in cells]))
    lines = [*result["notes"], *(f"wrote {path}" for path in result["files"].values())]
    return "\n\n".join([*blocks, "\n".join(lines)])


def _facts(run: Run) -> dict[str, Any]:
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


def _labels(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """The runs' names; where two share one, with the end of their ids."""
    names = [fact["name"] for fact in facts]
    return [
        n if names.count(n) == 1 else f"{n} {fact['id'][-4:]}"
        for n, fact in zip(names, facts, strict=True)
    ]


def _columns(tables: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> dict[str, Any]:
    """{key: {label: value}} of the tables' keys, None where a table has none."""
    keys = dict.fromkeys(key for table in tables for key in table)
    return {
        key: {label: table.get(key) for label, table in zip(labels, tables, strict=True)}
        for key in keys
    }


def _differences(runs: Sequence[Run], labels: Sequence[str]) -> dict[str, dict[str, str | None]]:
    """The config's keys whose values are not the same everywhere; where results go is no matter."""
    dumps = (run.config.model_dump(mode="json", exclude={"name", "output"}) for run in runs)
    rows = _columns([format_leaves(tree) for tree in dumps], labels)
    return {key: row for key, row in rows.items() if len(set(row.values())) > 1}


def _notes(runs: Sequence[Run], labels: Sequence[str]) -> list[str]:
    """Why numbers may not be comparable."""
    tests = {str(run.metrics.get("data")) for run in runs}
    found = [] if len(tests) == 1 else ["The runs were measured on different test images."]
    if len({run.manifest.get("data_sha256") for run in runs}) > 1:
        found.append("The runs were trained on different images.")
    devices = {run.manifest.get("runtime", {}).get("device_name") for run in runs}
    if len(devices) > 1:
        found.append("The runs were trained on different machines: their times do not compare.")
    for label, run in zip(labels, runs, strict=True):
        if (status := run.manifest.get("status", "finished")) != "finished":
            found.append(f"The training of {label} has not finished ({status}).")
    return found


def _tables(result: Mapping[str, Any]) -> dict[str, list[tuple[str, list[str], list[bool]]]]:
    """By title, rows of (name, a text a run, whether it is the best a run)."""
    runs = result["runs"]
    metrics = [
        (name, [number(v) for v in row.values()], _best(name, list(row.values())))
        for name, row in result["metrics"].items()
    ]
    training: list[tuple[str, list[str], list[bool]]] = []
    for key in ("parameters", "epochs", "seconds", "images_per_second", "precision", "device"):
        show = duration if key == "seconds" else number
        texts = ["" if run[key] is None else show(run[key]) for run in runs]
        name = {"seconds": "time"}.get(key, words(key))
        if key != "device" or len(set(texts)) > 1:
            training.append((name, texts, [False] * len(runs)))
    config = [
        (key, ["–" if v is None else v for v in row.values()], [False] * len(runs))
        for key, row in result["differences"].items()
    ]
    tables = {"Quality": metrics, "Training": training, "Config: what differs": config}
    return {title: rows for title, rows in tables.items() if rows}


def _best(name: str, values: Sequence[float | None]) -> list[bool]:
    """Which of a metric's values are the best; none where all are equal or nobody knows."""
    there = [value for value in values if value is not None]
    if len(set(there)) < 2 or name not in LOWER_IS_BETTER | HIGHER_IS_BETTER:
        return [False] * len(values)
    best = max(there) if name in HIGHER_IS_BETTER else min(there)
    return [value == best for value in values]


def _page(result: Mapping[str, Any], files: Mapping[str, Path]) -> str:
    return render(
        "compare.html",
        runs=[run | {"color": color} for run, color in zip(result["runs"], COLORS, strict=False)],
        tables=_tables(result),
        units=result["units"],
        notes=result["notes"],
        identical=not result["differences"],
        pictures=[
            picture(
                files["curves"],
                "Curves",
                "The validation loss, and what is left of it above the floor, by epoch and by "
                "time.",
            ),
            picture(
                files["reconstructions"],
                "Reconstructions",
                "The same test images through every run, and how far each is off.",
            ),
        ],
    )


@applied()
def curves(histories: Sequence[Sequence[Mapping[str, float]]], labels: Sequence[str]) -> Figure:
    """What is left of the validation loss above its floor, by epoch and by minutes of training."""
    paper = style.sheet(
        830,
        60 + 310 + 17 * len(labels),
        "How the runs learned",
        "val_loss above its floor (log scale), by epoch and by time",
    )
    for place, what in enumerate(("epoch", "minutes of training")):
        axes = paper.panel(MARGIN + 50 + place * 395, 16, 335, 290)
        for history, label, color in zip(histories, labels, COLORS, strict=False):
            seconds, x = 0.0, []
            for row in history:
                seconds += row["seconds"]
                x.append(row["epoch"] if what == "epoch" else seconds / 60)
            y = [row["val_excess"] for row in history]
            axes.plot(x, y, label=label, color=color, marker="o" if len(x) <= 40 else "")
        axes.set_xlabel(what)
        log_scale(axes, np.concatenate([[row["val_excess"] for row in h] for h in histories]))
    for place, (label, color) in enumerate(zip(labels, COLORS, strict=False)):
        top = 360.0 + 17 * place
        paper.canvas.plot([MARGIN + 50, MARGIN + 74], [top, top], color=color)
        paper.text(MARGIN + 84, top, label)
    return paper.figure


def _reconstructions(runs: Sequence[Run], labels: Sequence[str], notes: list[str]) -> Figure:
    """The first run's first test examples through every run that takes and gives such images."""
    from convae.data.loading import load_test
    from convae.evaluation.evaluate import load_model
    from convae.evaluation.figures import first_of_each
    from convae.tasks import build_task

    config = runs[0].config
    task = build_task(config)
    test_data = load_test(config.data, task.image_shape)
    held_out = task.held_out(test_data.test)
    single = len(held_out) == len(test_data.test)  # each example is one image of the split
    chosen = first_of_each(test_data.test.labels if single else None, min(SHOWN, len(held_out)))
    examples = held_out[np.array(chosen)]
    rows: dict[str, NDArray[np.float32] | None] = {}
    for run, label in zip(runs, labels, strict=True):
        rows[label], other = None, run.config
        shapes = {(c.model.input_shape, c.output_shape) for c in (config, other)}
        if len(shapes) == 1:
            rows[label] = load_model(run)(examples.inputs.astype(np.float32) / 255).numpy()
        else:
            shape = "×".join(map(str, other.model.input_shape))
            notes.append(f"{label} takes images of {shape}: none of its beside the others.")
    segments = config.task.type == "segment"
    return side_by_side(examples.inputs, examples.targets, rows, test_data.name, segments)


@applied()
def side_by_side(
    inputs: NDArray[np.uint8],
    targets: NDArray[np.uint8],
    rows: Mapping[str, NDArray[np.float32] | None],
    data: str,
    segments: bool,
) -> Figure:
    """What goes in, what should come out where that is something else, and a row for each label.

    `inputs` and `targets` are (N, H, W, C), the rows (N, H', W', C') in [0, 1]. With
    `segments` the rows are the chances of classes, and `targets` the right ones.
    """
    classes = max((r.shape[-1] for r in rows.values() if r is not None), default=1)
    wanted = targets / (classes - 1 if segments else 255)
    pictures: dict[str, Any] = {"input": inputs / 255}
    if not np.array_equal(targets, inputs):
        pictures["target"] = wanted
    known = list(pictures)
    for label, outputs in rows.items():
        pictures[label] = outputs
        if segments and outputs is not None:
            pictures[label] = outputs.argmax(-1, keepdims=True) / (classes - 1)
    step = TILE + 24
    what = "share of wrong pixels" if segments else "mean squared error"
    paper = style.sheet(
        max(LEFT + len(inputs) * (TILE + GAP) + MARGIN, NARROWEST),
        len(pictures) * step + MARGIN,
        "The same images through every run",
        f"{data}; below each output its {what}",
    )
    for row, (label, images) in enumerate(pictures.items()):
        top = 4 + row * step
        color = style.INK if label in known else COLORS[row - len(known)]
        paper.text(LEFT - 10, top + TILE / 2, label[:26], ha="right", color=color)
        if images is None:
            paper.text(LEFT, top + TILE / 2, "takes or gives other images", color=style.GRAY)
            continue
        for column, image in enumerate(images):
            x = LEFT + column * (TILE + GAP)
            paper.image(drawable(image), x, top, TILE)
            if label not in known:
                difference = image - wanted[column]
                score = np.mean(difference != 0 if segments else difference**2)
                look: dict[str, Any] = {"ha": "center", "size": style.SMALL, "color": style.GRAY}
                paper.text(x + TILE / 2, top + TILE + 9, f"{score:.2g}", **look)
    return paper.figure
