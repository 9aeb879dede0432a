"""The figures of an evaluation: each name that a task lists has one function here.

To add a figure, write its function, add it to FIGURES, name it in a task's `figures`, and give it a
caption in evaluation/report.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from convae.arrays import Array, Labels
from convae.errors import ConfigError
from convae.evaluation import latent
from convae.plots import charts, image_grids, segmentation
from convae.plots import latent as latent_plots
from convae.tasks import Examples, Task, likelihood
from convae.tasks.baselines import Baseline
from convae.tasks.metrics import Scores

STEPS = 11  # of an interpolation between two images, or along a number of the code
COUNT = 10  # images in a figure
SAMPLES = 100  # images of random codes
REACH = 3.0  # standard deviations of the prior in both directions
TRAVERSED = 1000  # images whose codes show which numbers vary most


@dataclass(frozen=True)
class EvaluationContext:
    """What the figures of an evaluation are drawn from."""

    task: Task
    data: str  # what figures call the examples
    examples: Examples
    labels: Labels | None  # of the examples
    classes: Sequence[str]  # the names of the data's classes
    scores: Scores
    model: latent.TrainedModel
    result: dict[str, Any]  # as in metrics.json
    baselines: Mapping[str, Baseline]
    codes: latent.Latent | None  # of a run with a bottleneck
    note: str | None  # a warning on every figure

    @property
    def shown(self) -> list[int]:
        """The indices of the first example of each class, at most COUNT."""
        return first_of_each_class(self.labels, min(COUNT, len(self.examples)))

    def rows(self, indices: Any, baseline: bool = False) -> dict[str, Array]:
        """Return images of the examples at `indices` by the label of their row.

        The inputs are left out where they are the targets. With `baseline`, the outputs of the best
        of the task's `compared_baselines` are among them.
        """
        task, examples = self.task, self.examples[indices]
        target = {task.target_label: task.to_images(examples.targets)}
        copies = examples.targets is examples.inputs
        rows = target if copies else {task.input_label: examples.inputs}
        table = self.result["baselines"]
        if baseline and (compared := [n for n in task.compared_baselines if n in table]):
            best = self.baselines[max(compared, key=lambda name: table[name][task.chart_metric])]
            rows = rows | {best.label: task.to_images(best.outputs(examples.inputs))}
        outputs = task.to_images(self.model.outputs(examples.inputs))
        return rows | {task.output_label: outputs} | target


def draw(context: EvaluationContext) -> dict[str, Figure]:
    """Return the figures of an evaluation by the names of their files, without `training`.

    Raises:
        ConfigError: If the task lists a figure that FIGURES does not have.
    """
    names = [*context.task.figures, "scores", "code_map", "interpolation", "neighbors"]
    if unknown := [name for name in names if name not in FIGURES]:
        task = type(context.task).__name__
        raise ConfigError(f"{task}.figures: {', '.join(unknown)} not in evaluation.figures.FIGURES")
    figures = {name: FIGURES[name](context) for name in names}
    return {name: figure for name, figure in figures.items() if figure}


def _reconstructions(context: EvaluationContext) -> Figure:
    task, labels = context.task, context.labels
    return image_grids.reconstruction_grid(
        context.rows(context.shown, baseline=True),
        context.data,
        compared=(task.target_label, task.output_label),
        title=task.title,
        labels=None if labels is None else labels[context.shown],
        classes=context.classes,
        note=context.note,
    )


def _best_and_worst(context: EvaluationContext) -> Figure:
    metric = context.task.ranking_metric
    scores = context.scores[metric]
    ranked = np.argsort(scores, kind="stable")
    indices = np.unique([*ranked[:COUNT], *ranked[-COUNT:]])
    rows = context.rows(indices)
    return image_grids.best_and_worst(
        rows, scores[indices], context.data, metric=metric, indices=indices, note=context.note
    )


def _hardest(context: EvaluationContext) -> Figure:
    """Draw the normal images with the highest scores, and the anomalies with the lowest."""
    scores = context.scores[context.task.ranking_metric]
    positive = context.task.positives(context.labels)
    ranked = np.argsort(scores, kind="stable")
    highest = ranked[~positive[ranked]][::-1][:COUNT]
    lowest = ranked[positive[ranked]][:COUNT]
    indices = np.concatenate([highest, lowest])
    bands = {
        "normal images with the highest scores": np.arange(len(highest)),
        "anomalies with the lowest scores": np.arange(len(highest), len(indices)),
    }
    return image_grids.bands_of_images(
        context.rows(indices),
        bands,
        scores[indices],
        "The images that are hardest to classify",
        f"{context.data}; below each image its anomaly score and its index",
        indices=indices,
        note=context.note,
    )


def _anomaly_scores(context: EvaluationContext) -> Figure:
    task, result = context.task, context.result
    scores, anomalous = context.scores[task.ranking_metric], task.positives(context.labels)
    threshold, auroc = result["threshold"], result["test"][task.headline]
    return charts.anomaly_scores(scores, anomalous, threshold, auroc, context.data, context.note)


def _error_by_class(context: EvaluationContext) -> Figure | None:
    metric, result = context.task.class_metric, context.result
    if not result["per_class"]:
        return None
    values = {name: metrics[metric] for name, metrics in result["per_class"].items()}
    mean, baseline = result["test"][metric], result["baselines"].get("mean_image", {}).get(metric)
    return charts.error_by_class(
        values, mean, context.data, metric=metric, baseline=baseline, note=context.note
    )


def _code(context: EvaluationContext) -> Figure | None:
    summary = context.task.config.model_summary
    if summary.model.has_skips:  # the code is not all that the decoder takes
        return None
    inputs = context.examples.inputs[context.shown[:3]]
    codes = context.model.encode(inputs)[0].reshape(-1, *summary.code_shape)
    outputs = context.model.outputs(inputs)
    return image_grids.feature_maps(inputs, codes, outputs, context.data, note=context.note)


def _segmentations(context: EvaluationContext) -> Figure:
    examples = context.examples[slice(segmentation.COLUMNS)]
    truth, predicted = (
        examples.targets[..., 0],
        context.model.outputs(examples.inputs).argmax(axis=-1),
    )
    names = context.task.class_names(context.classes)
    return segmentation.segmentation_grid(
        examples.inputs, truth, predicted, names, context.data, context.note
    )


def _confusion(context: EvaluationContext) -> Figure:
    counts = context.scores["confusion"].sum(axis=0)
    names = context.task.class_names(context.classes)
    return segmentation.confusion_matrix(counts, names, context.data, context.note)


def _scores(context: EvaluationContext) -> Figure:
    """Draw the run's metric beside that of each baseline."""
    metric, result = context.task.chart_metric, context.result
    baselines = {
        baseline.label: (result["baselines"][name][metric], baseline.description)
        for name, baseline in context.baselines.items()
    }
    value, data = result["test"][metric], result["data"]["name"]
    return charts.scores_beside_baselines(value, baselines, data, metric, context.note)


def _code_map(context: EvaluationContext) -> Figure | None:
    codes, classes = context.codes, context.classes
    if not codes:
        return None
    return latent_plots.code_maps(codes.maps, codes.labels, classes, context.data, context.note)


def _interpolation(context: EvaluationContext) -> Figure | None:
    """Draw lines between codes of two classes each, beside cross-fades of the pixels."""
    if not context.codes:
        return None
    codes, labels = context.codes.codes, context.codes.labels
    shown = [index for index in context.shown if index < len(codes)]
    strips = []
    for pair in zip(shown[::2], shown[1::2], strict=False):
        points, pixels = (
            np.linspace(values[pair[0]], values[pair[1]], STEPS, dtype=np.float32)
            for values in (codes, context.examples.targets)
        )
        names = [str(i) if labels is None else context.classes[labels[i]] for i in pair]
        label = " – ".join(image_grids.shorten(name, 5) for name in names)
        strips.append((label, context.model.decode(points), pixels / 255))
    return latent_plots.interpolations(strips, context.data, context.note) if strips else None


def _samples(context: EvaluationContext) -> Figure:
    """Draw images of random codes."""
    images = likelihood.samples(context.model, SAMPLES, context.task.config.seed)
    title, subtitle = "Images of random codes", f"{SAMPLES} samples of the prior, none left out"
    return image_grids.grid_of_images(images, title, subtitle, context.note)


def _traversal(context: EvaluationContext) -> Figure | None:
    """Draw what each number of the code changes in one image."""
    codes = context.model.encode(context.examples.inputs[:TRAVERSED])[0]
    numbers = np.argsort(-codes.var(axis=0), kind="stable")[:COUNT]
    values = np.linspace(-REACH, REACH, STEPS, dtype=np.float32)
    points = np.repeat(codes[:1], len(numbers) * STEPS, axis=0)
    points[np.arange(len(points)), np.repeat(numbers, STEPS)] = np.tile(values, len(numbers))
    images = context.model.decode(points)
    strips = images.reshape(len(numbers), STEPS, *images.shape[1:])
    return latent_plots.traversals(
        dict(zip(numbers.tolist(), strips, strict=True)), values, context.data, context.note
    )


def _neighbors(context: EvaluationContext) -> Figure | None:
    if not context.codes or len(context.codes.codes) <= latent.NEAREST:
        return None
    codes, count = context.codes, len(context.codes.codes)
    queries = np.array([index for index in context.shown if index < count])
    spaces: dict[str, Array] = {
        "nearest codes": codes.codes,
        "nearest pixels": context.examples.inputs[:count],
    }
    return latent_plots.nearest_neighbors(
        context.examples.targets,
        queries,
        {name: latent.nearest(points, queries) for name, points in spaces.items()},
        codes.labels,
        context.classes,
        context.data,
        context.note,
    )


FIGURES: dict[str, Callable[[EvaluationContext], Figure | None]] = {
    "reconstructions": _reconstructions,
    "segmentations": _segmentations,
    "scores": _scores,
    "anomaly_scores": _anomaly_scores,
    "hardest": _hardest,
    "best_and_worst": _best_and_worst,
    "error_by_class": _error_by_class,
    "confusion": _confusion,
    "code": _code,
    "samples": _samples,
    "traversal": _traversal,
    "code_map": _code_map,
    "interpolation": _interpolation,
    "neighbors": _neighbors,
}


def first_of_each_class(labels: Labels | None, count: int) -> list[int]:
    """Return the indices of the first image of each of `count` classes, or of `count` images."""
    if labels is None:
        return list(range(count))
    return [int(np.argmax(labels == label)) for label in np.unique(labels)[:count]]
