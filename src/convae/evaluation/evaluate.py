"""A run on the test split: metrics.json, figures and report.html.

The only place that opens the test split of the data. The weights are those of the epoch with the
lowest validation loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from convae.console import no_bar
from convae.data.loading import load_test, load_training
from convae.errors import RunError
from convae.evaluation import figures as pictures
from convae.evaluation import latent, report
from convae.models.builder import read_model
from convae.plots import style
from convae.runs.run import Run
from convae.runtime.start import start_in_float32
from convae.tasks import Examples, Task, build_task, metrics
from convae.tasks.task import Outputs
from convae.training import loggers
from convae.training.engine import Engine

SAMPLE_NOTE = "bundled sample of 5,000 digits, not the full MNIST"
TRAINED_NOTE = "trained on a bundled sample of 5,000 digits, not on the full MNIST"
BATCH = 1000  # examples whose outputs are in memory at once


def evaluate(run: Run, overrides: Sequence[str] = (), umap: bool = False) -> dict[str, Any]:
    """Measure `run` on its test images, write metrics, figures and report, return the metrics.

    `overrides` may change data and runtime, not the model. The same run gives the same files.
    `umap` adds a map of the codes by UMAP. Raises RunError if the run has no weights, the data do
    not fit them, or there is nothing to map.
    """
    config = run.config_with(overrides)
    if (config.model, config.task) != (run.config.model, run.config.task):
        raise RunError(
            "eval measures the model as it was trained: overrides cannot change model or task"
        )
    weights = run.best
    if umap:
        latent.check_umap(config)
    task = build_task(config)
    training = task.seen(load_training(config.data, task.image_shape))
    test_data = load_test(config.data, task.image_shape)
    examples = task.held_out(test_data.test)
    labels, classes = test_data.test.labels, test_data.classes or ()
    plan = start_in_float32(config)
    model = load_model(run)
    engine = Engine(model, config, plan)

    def score(held_out: Examples) -> metrics.Scores:
        return measure(task, held_out, engine.predict)

    scores = score(examples)
    baselines = task.baselines(training)
    history = run.history
    best = min(history, key=lambda row: row["val_loss"], default=None)
    manifest = run.manifest
    trained, trained_on = manifest.get("data", {}), manifest.get("data_sha256")
    result: dict[str, Any] = {
        "task": config.task.type,
        "data": {"name": test_data.name, "examples": len(examples), "sample": test_data.is_sample},
        "weights": {"file": weights.name, "epoch": best and best["epoch"]},
        "same_training_data": trained_on is None or trained_on == training.sha256,
        "test": task.summarize(scores, labels),
        "per_class": {} if labels is None else task.per_class(scores, labels, classes),
        "baselines": {
            name: task.summarize(measure(task, examples, baseline.outputs), labels)
            for name, baseline in baselines.items()
        },
        "baseline_words": {name: baseline.words for name, baseline in baselines.items()},
        **task.further(scores, labels, training, score),
        "units": dict(task.units),
    }
    result["verdict"] = verdict(task, result)
    codes = None
    if latent.has_bottleneck(config):
        codes = latent.look(model, config, examples.inputs, labels, umap)
        result["latent"] = codes.measures
    run.write_json("metrics.json", result)
    note = TRAINED_NOTE if trained.get("sample") else None
    note = SAMPLE_NOTE if test_data.is_sample else note
    drawn = pictures.draw(
        pictures.Seen(
            config, test_data, examples, scores, engine, model, result, baselines, codes, note
        )
    )
    if history:
        drawn["training"] = pictures.training_curves(
            config.training.loss, history, trained.get("name", training.name), note
        )
    with run.writing("figures"):
        (run.path / "figures").mkdir(exist_ok=True)
        for name, figure in drawn.items():
            style.save(figure, run.path / "figures" / f"{name}.png")
    report.write(run)
    loggers.log_evaluation(run, result["test"])
    return result


def measure(task: Task, examples: Examples, run: Callable[[Any], Outputs]) -> metrics.Scores:
    """The scores of what `run` makes of the examples, a batch in memory at a time."""
    whole = range(0, len(examples), BATCH)
    starts = tqdm(whole, "measuring", delay=2, leave=False, disable=no_bar())
    batches = (examples[slice(start, start + BATCH)] for start in starts)
    scores = [task.scores(batch.targets, run(batch.inputs)) for batch in batches]
    return {name: np.concatenate([part[name] for part in scores]) for name in scores[0]}


def verdict(task: Task, result: dict[str, Any]) -> str:
    """In a sentence: what was asked, how well it is done, and beside what."""
    name = task.headline
    others = {key: table[name] for key, table in result["baselines"].items()}
    better = max if name in metrics.HIGHER_IS_BETTER else min
    rival = better(others, key=lambda key: others[key])
    value, theirs = result["test"][name], others[rival]
    ahead = better(value, theirs) == value and value != theirs
    done = f"The model {task.verdict_words()}: {name.upper()} {value:.4g}"
    words = result["baseline_words"][rival]
    if ahead:
        return f"{done}, where {words} has {theirs:.4g}."
    return f"{done}. That is no better than the {theirs:.4g} of {words}."


def load_model(run: Run) -> Any:
    """The run's best model. Raises RunError if the file is damaged, or not of the run's config."""
    model, shape = read_model(run.best), run.config.model.input_shape
    if tuple(model.input_shape[1:]) != shape:
        raise RunError(
            f"{run.best}: takes images of {list(model.input_shape[1:])}, but the run's config says "
            f"model.input_shape: {list(shape)}"
        )
    return model


def summary(run: Run, result: dict[str, Any]) -> str:
    """The metrics as a short table, and where the files are."""
    data, weights = result["data"], result["weights"]
    sample = f" ({SAMPLE_NOTE})" if data["sample"] else ""
    columns = {"this run": result["test"]} | {
        name.replace("_", " "): table for name, table in result["baselines"].items()
    }
    widths = [max(len(name), 8) + 2 for name in columns]
    names = [f"{name:>{width}}" for name, width in zip(columns, widths, strict=True)]
    lines = [
        f"{data['name']}{sample}: {data['examples']:,} test examples, "
        f"weights of epoch {weights['epoch']}",
        f"{'':12}{''.join(names)}",
    ]
    for metric in result["test"]:
        values = [
            f"{table[metric]:{width}.5f}"
            for table, width in zip(columns.values(), widths, strict=True)
        ]
        lines.append(f"{metric:12}{''.join(values)}  {result['units'][metric]}")
    if threshold := result.get("threshold"):
        lines.append(
            f"a score above {threshold['score']:.5f} is called an anomaly: "
            f"{threshold['recall']:.1%} of them are found, {threshold['fpr']:.1%} of "
            f"normal images are false alarms ({threshold['target_fpr']:.0%} on validation)"
        )
    found = result.get("latent", {})
    if "neighbors_same_class" in found:
        lines.append(
            f"of the five images with the nearest codes {found['neighbors_same_class']:.1%} are "
            f"of the same class (nearest pixels: {found['neighbors_same_class_pixels']:.1%})"
        )
    if not result["same_training_data"]:
        lines.append("the data found now are not the data that this run was trained on")
    files = [run.path / "metrics.json", *sorted((run.path / "figures").glob("*.png"))]
    files.append(run.path / "report.html")
    return "\n".join([result["verdict"], *lines, *(f"wrote {file}" for file in files)])
