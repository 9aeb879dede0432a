"""Which pictures an evaluation draws, task by task; plots.py knows how they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from convae import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from convae.config import Config
    from convae.data import TestData
    from convae.engine import Engine
    from convae.metrics import Scores
    from convae.tasks import Examples
    from convae.tasks.task import Baseline


@dataclass(frozen=True)
class Seen:
    """What an evaluation has seen, and the means to see more of it."""

    config: Config
    test: TestData
    examples: Examples
    scores: Scores
    engine: Engine
    model: Any  # keras.Model
    result: dict[str, Any]  # as in metrics.json
    baselines: dict[str, Baseline]
    note: str | None  # what no picture may leave out

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """The test part's labels, if the examples are its images one by one."""
        return None if self.config.task.type == "segment" else self.test.part.labels


def draw(seen: Seen) -> dict[str, Figure]:
    """The pictures of an evaluation by their files' names."""
    test, targets = seen.test, seen.examples.targets
    labels, classes = seen.labels, test.classes or ()
    shown = first_of_each(labels, min(10, len(targets)))
    outputs = seen.engine.predict(seen.examples.inputs[shown])
    found = {
        "reconstructions": plots.reconstruction_grid(
            targets[shown],
            outputs,
            test.name,
            labels=None if labels is None else labels[shown],
            classes=classes,
            note=seen.note,
        )
    }
    if "excess" in seen.scores:
        ranked = np.argsort(seen.scores["excess"], kind="stable")
        ends = np.unique([*ranked[:10], *ranked[-10:]])
        found["best_and_worst"] = plots.best_and_worst(
            targets[ends],
            seen.engine.predict(seen.examples.inputs[ends]),
            seen.scores["excess"][ends],
            test.name,
            note=seen.note,
            indices=ends,
        )
    if not any(layer.skip for layer in seen.config.model.decoder):
        few = shown[:3]
        codes = seen.model.get_layer("encoder")(seen.examples.inputs[few] / np.float32(255))
        found["code"] = plots.feature_maps(
            targets[few], codes.numpy(), outputs[:3], test.name, note=seen.note
        )
    if seen.result["per_class"] and "excess" in seen.result["test"]:
        found["error_by_class"] = plots.error_by_class(
            seen.result["per_class"],
            seen.result["test"]["excess"],
            test.name,
            baseline=seen.result["baselines"]["mean_image"]["excess"],
            note=seen.note,
        )
    return found


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
