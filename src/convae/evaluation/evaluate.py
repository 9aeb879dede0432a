"""Evaluation of a run on the test split: metrics.json, figures and report.html.

The only module that reads the test split for a run's metrics. The weights are those of the epoch
with the lowest validation loss.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from convae.console import format_number, progress_bar
from convae.data.loading import Split, TestData, TrainingData, load_test, load_training
from convae.errors import RunError
from convae.evaluation import latent, report
from convae.evaluation.figures import EvaluationContext, draw
from convae.models.builder import read_model
from convae.plots import style
from convae.plots.charts import training_curves
from convae.runs.run import Run
from convae.runtime.start import start_in_float32
from convae.tasks import Evaluation, Examples, Task, build_task, metrics
from convae.tasks.baselines import Baseline
from convae.tasks.task import Predictor
from convae.training import loggers
from convae.training.engine import Engine

SAMPLE_NOTE = "bundled sample of 5,000 digits, not the full MNIST"
BATCH = 1000  # examples whose outputs are in memory at once


def evaluate(
    run: Run,
    overrides: Sequence[str] = (),
    umap: bool = False,
    training: TrainingData | None = None,
) -> dict[str, Any]:
    """Evaluate `run` on its test split, write metrics, figures and report, return the metrics.

    Args:
        run: A run with weights.
        overrides: `key=value` of `data` and `runtime`.
        umap: Whether to add a map of the codes by UMAP.
        training: The images that the run was trained on, where they have just been read.

    Returns:
        The contents of metrics.json. The same run gives the same files.

    Raises:
        RunError: If the run has no weights, the data do not fit them, the overrides change the
            model or the task, or there are no codes for UMAP.
    """
    config = run.config_with(overrides)
    if (config.model, config.task) != (run.config.model, run.config.task):
        raise RunError("eval evaluates the trained model: overrides cannot change model or task")
    _ = run.best  # raises before the data are read
    task = build_task(config)
    if umap:
        latent.check_umap(task)
    training = training or task.filter(load_training(config.data, task.image_shape))
    test_data = load_test(config.data, task.image_shape)
    plan = start_in_float32(config)
    loaded = load_model(run)
    model = latent.TrainedModel(loaded, Engine(loaded, config, plan))
    measured = _measure(task, training, test_data.test, model)
    examples, labels, codes = measured.examples, measured.labels, None
    if latent.has_bottleneck(task):
        codes = latent.analyze(model, config, examples.inputs, labels, umap)
    result = _result(run, task, test_data, measured)
    if codes:
        result["latent"] = codes.measures
    result["summary"] = summarize(task, result, measured.baselines)
    run.write_json("metrics.json", result)
    context = EvaluationContext(
        task, task.describe_examples(test_data.name, len(examples)), examples, labels,
        test_data.classes or (), measured.scores, model, result, measured.baselines, codes,
        _sample_note(run, test_data.is_sample),
    )  # fmt: skip
    _write_figures(run, context, test_data.name)
    report.write(run)
    loggers.log_evaluation(run, result["test"])
    return result


def _measure(task: Task, training: TrainingData, test: Split, model: Predictor) -> Evaluation:
    """Return the scores of the model on the test split, and the baselines to compare it with."""

    def score(examples: Examples) -> metrics.Scores:
        return _score(task, examples, model)

    examples = task.evaluation_examples(test)
    scores, baselines = score(examples), task.baselines(training)
    return Evaluation(examples, task.labels(test), scores, training, test, model, baselines, score)


def _result(run: Run, task: Task, found: TestData, measured: Evaluation) -> dict[str, Any]:
    """Return the contents of metrics.json, but for the codes and the summary."""
    examples, labels, scores = measured.examples, measured.labels, measured.scores
    best = min(run.history, key=lambda row: row["val_loss"], default={"epoch": None})
    return {
        "task": task.settings.type,
        "data": {"name": found.name, "examples": len(examples), "sample": found.is_sample},
        "weights": {"file": run.best.name, "epoch": best["epoch"]},
        "same_training_data": run.manifest.get("data_sha256") in {None, measured.data.sha256},
        "test": task.summarize(scores, labels),
        "per_class": task.per_class(scores, labels, found.classes or ()),
        "baselines": {
            name: task.summarize(_score(task, examples, baseline), labels)
            for name, baseline in measured.baselines.items()
        },
        "baseline_descriptions": {name: b.description for name, b in measured.baselines.items()},
        **task.extra_metrics(measured),
        "units": dict(task.units),
    }


def _sample_note(run: Run, tested_on_sample: bool) -> str | None:
    if tested_on_sample:
        return SAMPLE_NOTE
    if run.manifest.get("data", {}).get("sample"):
        return "trained on a bundled sample of 5,000 digits, not on the full MNIST"
    return None


def _score(task: Task, examples: Examples, model: Predictor) -> metrics.Scores:
    starts = range(0, len(examples), BATCH)
    bar = progress_bar(starts, desc="evaluating")
    batches = (examples[slice(start, start + BATCH)] for start in bar)
    scores = [task.score(model, batch) for batch in batches]
    return {name: np.concatenate([batch[name] for batch in scores]) for name in scores[0]}


def _write_figures(run: Run, context: EvaluationContext, test_name: str) -> None:
    figures = draw(context)
    if run.history:
        data = run.manifest.get("data", {}).get("name", test_name)
        figures["training"] = training_curves(
            run.history, run.config.training.loss, data, context.note
        )
    with run.writing("figures"):
        (run.path / "figures").mkdir(exist_ok=True)
        for name, figure in figures.items():
            style.save(figure, run.path / "figures" / f"{name}.png")


def summarize(task: Task, result: Mapping[str, Any], baselines: Mapping[str, Baseline]) -> str:
    """Return one sentence: the task, the headline metric, and that of the best baseline."""
    name, value = task.headline, result["test"][task.headline]
    values = {key: table[name] for key, table in result["baselines"].items()}
    better = max if metrics.is_higher_better(name) else min
    best = better(values, key=values.__getitem__)
    text = task.description.format(**vars(task.settings))
    text += f": {name.upper()} {format_number(value)} "
    text += f"({baselines[best].label}: {format_number(values[best])})"
    worse = value == values[best] or better(value, values[best]) != value
    return text + (", which is no better than the baseline" if worse else "")


def load_model(run: Run) -> Any:
    """Return the Keras model of the run's best epoch.

    Raises:
        RunError: If the file is damaged or does not fit the run's config.
    """
    model, shape = read_model(run.best), run.config.model.input_shape
    if tuple(model.input_shape[1:]) != shape:
        raise RunError(
            f"{run.best}: takes images of {list(model.input_shape[1:])}, but the run's config says "
            f"model.input_shape: {list(shape)}"
        )
    return model


def format_result(run: Run, result: Mapping[str, Any]) -> str:
    """Return the summary, a table of the metrics, and the files of `evaluate` as text."""
    data, weights = result["data"], result["weights"]
    sample = f" ({SAMPLE_NOTE})" if data["sample"] else ""
    tables = {"this run": result["test"], **result["baselines"]}
    columns = {name.replace("_", " "): table for name, table in tables.items()}
    widths = {name: max(len(name), 8) + 2 for name in columns}
    lines = [
        result["summary"],
        f"{data['name']}{sample}: {data['examples']:,} test examples, "
        f"weights of epoch {weights['epoch'] or 'not known'}",
        f"{'':12}{''.join(f'{name:>{width}}' for name, width in widths.items())}",
    ]
    for metric in result["test"]:
        values = "".join(f"{columns[name][metric]:{width}.5f}" for name, width in widths.items())
        lines.append(f"{metric:12}{values}  {result['units'][metric]}")
    lines += build_task(run.config).format_extra_metrics(result)
    codes = result.get("latent", {})
    if "neighbors_same_class" in codes:
        lines.append(
            f"neighbors: {codes['neighbors_same_class']:.1%} of the five nearest codes are of the "
            f"same class (nearest pixels: {codes['neighbors_same_class_pixels']:.1%})"
        )
    if not result["same_training_data"]:
        lines.append("the data found now are not the data that this run was trained on")
    files = [run.path / "metrics.json", *sorted((run.path / "figures").glob("*.png"))]
    return "\n".join([*lines, *(f"wrote {file}" for file in (*files, run.path / "report.html"))])
