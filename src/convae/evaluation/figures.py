"""Which pictures an evaluation draws, task by task; the plots modules know how they are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from convae.evaluation import latent
from convae.plots import charts as plots_charts
from convae.plots import image_grids as plots
from convae.plots import latent as plots_codes
from convae.plots import segmentation as plots_tasks
from convae.tasks.segment import class_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from convae.config.schema import Config
    from convae.data.loading import TestData
    from convae.evaluation.latent import Latent
    from convae.tasks import Examples
    from convae.tasks.metrics import Scores
    from convae.tasks.task import Baseline
    from convae.training.engine import Engine

STEPS = 11  # of a strip between two images

# What goes in (if a picture should say so), what comes out, and what should.
WORDS: dict[str, tuple[str | None, str, str]] = {
    "reconstruct": (None, "reconstruction", "original"),
    "anomaly": (None, "reconstruction", "original"),
    "denoise": ("noisy input", "output", "clean target"),
    "upscale": ("input", "output", "target"),
}
# The baselines of which the best is shown beside the output.
RIVALS: dict[str, dict[str, str]] = {
    "reconstruct": {"pca": "PCA"},
    "anomaly": {},
    "denoise": {
        "median": "median filter",
        "gaussian": "Gaussian filter",
        "total_variation": "total variation",
    },
    "upscale": {"bicubic": "bicubic"},
}
TITLES = {
    "denoise": "Noise off: what goes in, what comes out, and the error",
    "upscale": "Upscaling: what goes in, what comes out, and the error",
}


@dataclass(frozen=True)
class Seen:
    """What an evaluation has seen, and the means to see more of it."""

    config: Config
    test_data: TestData
    examples: Examples
    scores: Scores
    engine: Engine
    model: Any  # keras.Model
    result: dict[str, Any]  # as in metrics.json
    baselines: dict[str, Baseline]
    codes: Latent | None  # of a run with a bottleneck
    note: str | None  # what no picture may leave out

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """The test split's labels, if the examples are its images one by one."""
        return None if self.config.task.type == "segment" else self.test_data.test.labels

    @property
    def classes(self) -> Sequence[str]:
        """The names of the data's classes."""
        return self.test_data.classes or ()

    @property
    def score(self) -> str:
        """The metric by which single images and classes are ranked."""
        if self.config.task.type in {"denoise", "upscale"}:
            return "psnr"
        return "excess" if self.config.training.loss == "binary_crossentropy" else "mse"


def draw(seen: Seen) -> dict[str, Figure]:
    """The pictures of an evaluation by their files' names."""
    found = _of_scenes(seen) if seen.config.task.type == "segment" else _of_images(seen)
    found["scores"] = _scores(seen)
    if seen.codes:
        found |= _of_codes(seen, seen.codes)
    return found


def _of_images(seen: Seen) -> dict[str, Figure]:
    """Of tasks whose output is an image."""
    data, note = seen.test_data.name, seen.note
    inputs, kind = seen.examples.inputs, seen.config.task.type
    labels = seen.labels
    shown = first_of_each(labels, min(10, len(inputs)))
    _, output, target = WORDS[kind]
    rows = _rows(seen, shown, rival=True)
    looks: dict[str, Any] = {"title": TITLES[kind]} if kind in TITLES else {}
    found = {
        "reconstructions": plots.reconstruction_grid(
            rows,
            data,
            compared=(target, output),
            labels=None if labels is None else labels[shown],
            classes=seen.classes,
            note=note,
            **looks,
        )
    }
    if kind == "anomaly" and labels is not None:
        found |= _of_anomalies(seen, labels)
    else:
        ranked = np.argsort(seen.scores[seen.score], kind="stable")
        ends = np.unique([*ranked[:10], *ranked[-10:]])
        found["best_and_worst"] = plots.best_and_worst(
            _rows(seen, ends),
            seen.scores[seen.score][ends],
            data,
            score=seen.score,
            indices=ends,
            note=note,
        )
        if seen.result["per_class"]:
            mean_image = seen.result["baselines"].get("mean_image", {})
            found["error_by_class"] = plots_charts.error_by_class(
                seen.result["per_class"],
                seen.result["test"][seen.score],
                data,
                score=seen.score,
                baseline=mean_image.get(seen.score),
                note=note,
            )
    if not seen.config.model.has_skips:
        few = shown[:3]
        maps = np.asarray(seen.model.get_layer("encoder")(inputs[few] / np.float32(255)))
        found["code"] = plots.feature_maps(inputs[few], maps, rows[output][:3], data, note=note)
    return found


def _rows(seen: Seen, places: Any, rival: bool = False) -> dict[str, NDArray[Any]]:
    """Rows of images by what they are; with `rival`, the best baseline's outputs among them."""
    kind = seen.config.task.type
    into, output, target = WORDS[kind]
    inputs, targets = seen.examples.inputs[places], seen.examples.targets[places]
    rows = {into: inputs} if into else {target: targets}
    table = seen.result["baselines"]
    rivals = [name for name in RIVALS[kind] if name in table]
    if rival and rivals:
        best = max(rivals, key=lambda name: table[name]["psnr"])
        rows[RIVALS[kind][best]] = seen.baselines[best].outputs(inputs)
    rows[output] = seen.engine.predict(inputs)
    return rows | {target: targets}


def _of_anomalies(seen: Seen, labels: NDArray[np.int64]) -> dict[str, Figure]:
    """Scores and threshold, the images that are hardest to tell, and how well each class is."""
    data, note, scores = seen.test_data.name, seen.note, seen.scores["score"]
    anomalous = labels != getattr(seen.config.task, "normal_class", None)
    ranked = np.argsort(scores, kind="stable")
    highest = ranked[~anomalous[ranked]][::-1][:10]
    lowest = ranked[anomalous[ranked]][:10]
    places = np.concatenate([highest, lowest])
    bands = {
        "normal, and yet a high score": np.arange(len(highest)),
        "not normal, and yet a low score": np.arange(len(highest), len(places)),
    }
    auroc = seen.result["test"]["auroc"]
    return {
        "anomaly_scores": plots_charts.anomaly_scores(
            scores, anomalous, seen.result["threshold"], auroc, data, note
        ),
        "hardest": plots.bands_of_images(
            _rows(seen, places),
            bands,
            scores[places],
            data,
            "The images that are hardest to tell",
            f"{data}; below each its anomaly score and its index",
            indices=places,
            note=note,
        ),
        "error_by_class": plots_charts.error_by_class(
            seen.result["per_class"], auroc, data, score="auroc", note=note
        ),
    }


def _of_scenes(seen: Seen) -> dict[str, Figure]:
    """Of the segmentation of scenes."""
    note = seen.note
    names = class_names(seen.classes, seen.config.output_shape[2] - 1)
    data = f"{seen.test_data.name}, {len(seen.examples):,} scenes of its test images"

    def classes_found(places: Any) -> NDArray[np.int64]:
        return np.asarray(seen.engine.predict(seen.examples.inputs[places]).argmax(axis=-1))

    few = slice(plots_tasks.COLUMNS)
    scenes, truth = seen.examples.inputs, seen.examples.targets[..., 0]
    accuracy = seen.scores["accuracy"]
    ranked = np.argsort(accuracy, kind="stable")
    ends = np.unique([*ranked[:10], *ranked[-10:]])
    rows = {
        "scene": scenes[ends],
        "truth": plots_tasks.colored(truth[ends], len(names)),
        "prediction": plots_tasks.colored(classes_found(ends), len(names)),
    }
    return {
        "segmentations": plots_tasks.segmentation_grid(
            scenes[few], truth[few], classes_found(few), names, data, note
        ),
        "best_and_worst": plots.best_and_worst(
            rows, accuracy[ends], data, score="accuracy", indices=ends, note=note
        ),
        "confusion": plots_tasks.confusion_matrix(
            seen.scores["confusion"].sum(axis=0), names, data, note
        ),
        "error_by_class": plots_charts.error_by_class(
            seen.result["per_class"], seen.result["test"]["iou"], data, score="iou", note=note
        ),
    }


def _scores(seen: Seen) -> Figure:
    """This run beside each baseline."""
    score = {"segment": "iou", "anomaly": "auroc"}.get(seen.config.task.type, "psnr")
    tables: Mapping[str, Any] = {"this run": seen.result["test"], **seen.result["baselines"]}
    return plots_charts.scores_beside_baselines(
        {name: table[score] for name, table in tables.items()},
        seen.result["baseline_words"],
        seen.test_data.name,
        score,
        seen.note,
    )


def _of_codes(seen: Seen, found: Latent) -> dict[str, Figure]:
    """What the codes of a bottleneck tell of their images."""
    data, note, count = seen.test_data.name, seen.note, len(found.codes)
    labels = None if seen.labels is None else seen.labels[:count]
    inputs, targets = seen.examples.inputs[:count], seen.examples.targets[:count]
    drawn = {"code_map": plots_codes.code_maps(found.maps, labels, seen.classes, data, note)}
    shown = np.asarray(first_of_each(labels, min(10, count)))
    strips = []
    for first, second in zip(shown[::2], shown[1::2], strict=False):
        codes = latent.line(found.codes[first], found.codes[second], STEPS)
        faded = latent.line(targets[first] / 255, targets[second] / 255, STEPS)
        ends = (first, second) if labels is None else labels[[first, second]]
        words = [plots.short(seen.classes[i] if labels is not None else str(i), 5) for i in ends]
        strips.append((" – ".join(words), latent.decode(seen.model, codes), faded))
    if strips:
        drawn["interpolation"] = plots_codes.interpolations(strips, data, note)
    if count > latent.NEAREST:
        spaces: dict[str, NDArray[Any]] = {"nearest codes": found.codes, "nearest pixels": inputs}
        near = {word: latent.nearest(points, shown) for word, points in spaces.items()}
        drawn["neighbors"] = plots_codes.nearest_neighbors(
            targets, shown, near, labels, seen.classes, data, note
        )
    return drawn


def first_of_each(labels: Any, count: int) -> list[int]:
    """The places of the first images of the first `count` classes, or of all images."""
    if labels is None:
        return list(range(count))
    return [int(np.argmax(labels == label)) for label in np.unique(labels)[:count]]


def training_curves(
    loss: str, history: Sequence[dict[str, float]], data: str, note: str | None
) -> Figure:
    """The curves of a run's history; the floor is what its rows' excess is above."""
    columns = {key: [row[key] for row in history] for key in history[0]}
    if loss == "binary_crossentropy":
        floor = history[0]["val_loss"] - history[0]["val_excess"]
        return plots.training_curves(columns, data, floor=floor, note=note)
    words = {"mean_squared_error": "mean squared error"}.get(loss, "cross-entropy (nats per pixel)")
    return plots.training_curves(columns, data, loss=words, unit="", note=note)
