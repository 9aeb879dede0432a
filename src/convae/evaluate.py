"""A run on the test part: metrics.json and figures.

The only place that opens the test part of the data. The weights are those of the epoch with the
lowest validation loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from convae import metrics, plots, runtime, style
from convae.backend import keras
from convae.data import load_test, load_training
from convae.engine import Engine
from convae.errors import UserError
from convae.run import Run

SAMPLE_NOTE = "bundled sample of 5,000 digits, not the full MNIST"
TRAINED_NOTE = "trained on a bundled sample of 5,000 digits, not on the full MNIST"
UNITS = {
    "bce": "nats per pixel, binary cross-entropy",
    "floor": "nats per pixel, the lowest that any reconstruction can reach",
    "excess": "nats per pixel, bce - floor: 0 is perfect",
    "mse": "of values in [0, 1]: 0 is perfect",
    "psnr": "dB, higher is better",
    "ssim": "1 is perfect",
}


def evaluate(run: Run, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Measure `run` on its test images, write metrics.json and figures/, return the metrics.

    `overrides` may change data and runtime, not the model. The same run gives the same files.
    Raises UserError if the run has no weights or the data do not fit them.
    """
    config = run.config_with(overrides)
    if config.model != run.config.model:
        raise UserError("eval measures the model as it was trained: overrides cannot change model")
    weights = run.best
    training = load_training(config.data, config.model.input_shape)
    test = load_test(config.data, config.model.input_shape)
    images, labels, classes = test.part.images, test.part.labels, test.classes or ()
    # In float32 whatever the training ran in: these are the numbers of the saved file.
    plan = replace(runtime.start(config), precision="float32")
    model = load_model(run)
    reconstructions = Engine(model, config.training.loss, plan).predict(images)

    scores = metrics.image_scores(images, reconstructions)
    mean = np.broadcast_to(metrics.mean_image(training.train.images), images.shape)
    history = run.history
    best = min(history, key=lambda row: row["val_loss"], default=None)
    manifest = run.manifest
    trained, trained_on = manifest.get("data", {}), manifest.get("data_sha256")
    result: dict[str, Any] = {
        "data": {"name": test.name, "images": len(images), "sample": test.sample},
        "weights": {"file": weights.name, "epoch": best and best["epoch"]},
        "same_training_data": trained_on is None or trained_on == training.sha256,
        "test": metrics.summarize(scores),
        "per_class": {} if labels is None else metrics.per_class(scores, labels, classes),
        "baselines": {"mean_image": metrics.summarize(metrics.image_scores(images, mean))},
    }
    run.write_json("metrics.json", result)

    note = TRAINED_NOTE if trained.get("sample") else None
    note = SAMPLE_NOTE if test.sample else note
    few = first_of_each(labels, min(3, len(images)))
    codes = model.get_layer("encoder")(images[few] / np.float32(255)).numpy()
    drawn = {
        "reconstructions": plots.reconstruction_grid(
            images, reconstructions, test.name, labels=labels, classes=classes, note=note
        ),
        "best_and_worst": plots.best_and_worst(
            images, reconstructions, scores["excess"], test.name, note=note
        ),
        "code": plots.feature_maps(images[few], codes, reconstructions[few], test.name, note=note),
    }
    if result["per_class"]:
        drawn["error_by_class"] = plots.error_by_class(
            result["per_class"],
            result["test"]["excess"],
            test.name,
            baseline=result["baselines"]["mean_image"]["excess"],
            note=note,
        )
    if history:
        drawn["training"] = training_curves(
            config.training.loss, history, trained.get("name", training.name), note
        )
    with run.writing("figures"):
        (run.path / "figures").mkdir(exist_ok=True)
        for name, figure in drawn.items():
            style.save(figure, run.path / "figures" / f"{name}.png")
    return result


def load_model(run: Run) -> Any:
    """The run's best model. Raises UserError if the file is damaged."""
    try:
        return keras.models.load_model(run.best, compile=False, safe_mode=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{run.best}: cannot be loaded: {error}") from None


def first_of_each(labels: Any, count: int) -> list[int]:
    """The places of the first images of the first `count` classes, or of all images."""
    if labels is None:
        return list(range(count))
    return [int(np.argmax(labels == label)) for label in np.unique(labels)[:count]]


def training_curves(
    loss: str, history: Sequence[dict[str, float]], data: str, note: str | None
) -> Any:
    """The curves of a run's history; the floor is what its rows' excess is above."""
    columns = {key: [row[key] for row in history] for key in history[0]}
    if loss == "mean_squared_error":
        return plots.training_curves(columns, data, loss="mean squared error", unit="", note=note)
    floor = history[0]["val_loss"] - history[0]["val_excess"]
    return plots.training_curves(columns, data, floor=floor, note=note)


def summary(run: Run, result: dict[str, Any]) -> str:
    """The metrics as a short table, and where the files are."""
    data, weights = result["data"], result["weights"]
    mean_image = result["baselines"]["mean_image"]
    sample = f" ({SAMPLE_NOTE})" if data["sample"] else ""
    lines = [
        f"{data['name']}{sample}: {data['images']:,} test images, "
        f"weights of epoch {weights['epoch']}",
        f"{'':8}{'this run':>10}{'mean image':>12}",
    ]
    lines += [
        f"{name:8}{value:10.5f}{mean_image[name]:12.5f}  {UNITS[name]}"
        for name, value in result["test"].items()
    ]
    if not result["same_training_data"]:
        lines.append("the data found now are not the data that this run was trained on")
    files = [run.path / "metrics.json", *sorted((run.path / "figures").glob("*.png"))]
    return "\n".join([*lines, *(f"wrote {file}" for file in files)])
