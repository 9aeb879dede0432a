"""A trained model for other runtimes: ONNX, LiteRT, SavedModel, or plain arrays.

Whatever is written is loaded again in that runtime and compared with Keras before it gets its name.
A format holds the whole model, its encoder and its decoder; the decoder of a model with skip
connections takes the code and then all that the encoder gives besides.
"""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from convae import files as atomic
from convae.config.schema import Config
from convae.console import no_bar
from convae.data.loading import SAMPLE_PATH, Split, load_test, load_training
from convae.data.readers import SplitName, read_npz
from convae.errors import ConvaeError, RunError
from convae.inference.export_formats import (
    ENDINGS,
    INT8,
    PACKAGES,
    READERS,
    Floats,
    Runner,
    Unsupported,
    explained,
    keras_runner,
    write,
)
from convae.runs.run import Run
from convae.tasks import build_task

FORMATS = ("onnx", "litert", "saved_model", "weights")
LIMIT = 1e-4  # the largest difference from Keras that an export in float32 may have
IMAGES, BATCH, CALIBRATION = 1000, 100, 100
SECONDS = 0.2  # that each latency is measured for


@dataclass(frozen=True)
class Part:
    """The model, its encoder or its decoder, with what it takes and what Keras makes of that."""

    name: str
    model: Any  # a Keras model whose inputs have names to be known by
    inputs: list[Floats]
    outputs: list[Floats]
    latency: dict[str, float]
    calibration: list[Floats]  # inputs, too, but of other images


def export(run: Run, formats: Sequence[str], output: str | None = None) -> dict[str, Any]:
    """Write the best weights of `run` in `formats` to `output`, or to its own folder export/.

    Returns what was written and how it compares, as `summary` tells it. All formats are written or
    none. Raises RunError for a format that is unknown, lacks its packages or cannot hold the
    model, for a difference from Keras above LIMIT, and for a folder that cannot be written.
    """
    chosen = check(formats)
    folder = Path(output) if output else run.path / "export"
    weights = run.best
    from convae.models.builder import read_model

    model = read_model(weights)
    with built_aside(folder) as work:
        comparison = comparison_of(run.config)
        parts = parts_of(model, comparison)
        files: list[dict[str, Any]] = []
        notes: list[str] = []
        todo: list[tuple[str, Part, str]] = [
            (form, part, precision)
            for form in chosen
            for part in (parts[:1] if form == "weights" else parts)
            for precision in ("float32", *(INT8 if form == "litert" else ()))
        ]
        bar = tqdm(todo, desc="export", unit=" files", leave=False, disable=no_bar())
        for form, part, precision in bar:
            try:
                if form == "weights":
                    files.append(export_weights(model, part, work))
                else:
                    files.append(compared(part, form, work, precision, comparison))
            except Unsupported as error:
                if precision == "float32":
                    raise RunError(
                        f"{form} cannot hold the {part.name}: {error}. Nothing was written"
                    ) from None
                notes.append(f"no {precision} for the {part.name}: {error}")
    return {
        "run": str(run.path),
        "folder": str(folder),
        "images": {"name": comparison.name, "count": len(comparison.inputs)},
        "limit": LIMIT,
        "batch": BATCH,
        "files": files,
        "notes": notes,
    }


def check(formats: Sequence[str]) -> list[str]:
    """`formats` without repetitions, "all" spelled out. Raises RunError if one cannot be had."""
    chosen = list(dict.fromkeys(FORMATS if "all" in formats else formats))
    if wrong := [name for name in chosen if name not in FORMATS]:
        raise RunError(f"--format must be {', '.join(FORMATS)} or all. Received: {wrong[0]}")
    if not chosen:
        raise RunError(f"which format? --format {', '.join(FORMATS)} or all")
    for name in chosen:
        if missing := [p for p in PACKAGES.get(name, ()) if find_spec(p) is None]:
            packages = ", ".join(p.replace("_", "-") for p in missing)
            raise RunError(f"{name} needs {packages}: pip install 'convae[export]'")
    return chosen


@contextmanager
def built_aside(folder: Path) -> Iterator[Path]:
    """A folder inside `folder` whose content moves there at the end; after an error it is gone."""
    there = folder.exists()
    work = atomic.aside(folder / "export")
    try:
        work.mkdir(parents=True)
        yield work
        for new in sorted(work.iterdir()):
            place = folder / new.name
            if place.is_dir():  # a folder cannot be replaced by another in one step
                shutil.rmtree(place)
            if new.is_dir():
                new.replace(place)
            else:
                atomic.replace(new, place)
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be written: {error}. --output-dir names another folder"
        ) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if not there:
            with suppress(OSError):  # it holds an export
                folder.rmdir()


@dataclass(frozen=True)
class Comparison:
    """What an export is compared on."""

    name: str  # of the data
    inputs: NDArray[np.uint8]
    calibration: NDArray[np.uint8]  # inputs of other images
    judge: Callable[[Floats], float]  # outputs to the metric `headline`
    headline: str


def comparison_of(config: Config) -> Comparison:
    """Up to IMAGES test examples of the run, and some validation ones to calibrate.

    If its data are not to be had any more, digits of the bundled sample stand in.
    """
    task = build_task(config)
    try:
        found = load_test(config.data, task.image_shape)
        name, test = found.name, found.test
        validation = load_training(config.data, task.image_shape).validation
    except ConvaeError:
        name = "MNIST sample"
        test, validation = (_sample("test", task.image_shape), _sample("train", task.image_shape))
    examples = task.evaluation_examples(test)[slice(IMAGES)]
    labels = None if test.labels is None else test.labels[:IMAGES]

    def judge(outputs: Floats) -> float:
        return task.summarize(task.scores(examples.targets, outputs), labels)[task.headline]

    few = task.evaluation_examples(validation)[slice(CALIBRATION)].inputs
    return Comparison(name, examples.inputs, few, judge, task.headline)


def _sample(side: SplitName, shape: tuple[int, int, int]) -> Split:
    from convae.data.image_folder import resized

    arrays = read_npz(SAMPLE_PATH, side)
    images = np.repeat(resized(arrays.images[:IMAGES], shape[:2]), shape[2], axis=-1)
    return Split(images, arrays.labels if arrays.labels is None else arrays.labels[:IMAGES])


def parts_of(model: Any, comparison: Comparison) -> list[Part]:
    """Model, encoder and decoder, each with its inputs and what Keras makes of them."""

    def part(name: str, layers: Any, first: str, x: list[Floats], few: list[Floats]) -> Part:
        named = _named(layers, name, first)
        run = keras_runner(named)
        return Part(name, named, x, in_batches(run, x), latency(run, x), few)

    images = (comparison.inputs, comparison.calibration)
    scaled, few = ([np.asarray(a / np.float32(255), np.float32)] for a in images)
    encoder = part("encoder", model.get_layer("encoder"), "image", scaled, few)
    codes = in_batches(keras_runner(encoder.model), few)
    decoder = part("decoder", model.get_layer("decoder"), "code", encoder.outputs, codes)
    return [part("model", model, "image", scaled, few), encoder, decoder]


def _named(part: Any, name: str, first: str) -> Any:
    """A model of the same layers, with `first` and skip_1, skip_2 ... as names of its inputs."""
    from convae.runtime.backend import keras

    names = [first, *(f"skip_{i}" for i in range(1, len(part.inputs)))]
    inputs: Any = [
        keras.Input(i.shape[1:], name=n) for i, n in zip(part.inputs, names, strict=True)
    ]
    if len(inputs) == 1:  # who calls the exported model should not need a list of one
        (inputs,) = inputs
    return keras.Model(inputs, part(inputs), name=name)


def compared(
    part: Part, form: str, work: Path, precision: str, comparison: Comparison
) -> dict[str, Any]:
    """Write `part`, load it again, and measure it against Keras.

    Raises Unsupported if the format cannot hold it, RunError if, in float32, it differs by more
    than LIMIT.
    """
    ending = "" if precision == "float32" else f".{precision}"
    path = work / f"{part.name}{ending}{ENDINGS[form]}"
    try:
        with explained():
            write(part.model, form, path, precision, part.calibration)
            run = READERS[form](path)
            made = in_batches(run, part.inputs)
    except Unsupported:
        path.unlink(missing_ok=True)  # written, but it cannot run
        raise
    differences = [
        np.abs(a - b).max() / max(1.0, np.abs(b).max())
        for a, b in zip(made, part.outputs, strict=True)
    ]
    difference = float(max(differences))
    if precision == "float32" and not difference <= LIMIT:  # nor may it be NaN
        raise RunError(
            f"{form}: the {part.name} differs from Keras by {difference:.2g}, and at most "
            f"{LIMIT:g} is allowed. Nothing was written"
        )
    file: dict[str, Any] = {
        "format": form,
        "part": part.name,
        "precision": precision,
        "path": path.name,
        "bytes": size_of(path),
        "difference": difference,
        "latency_ms": latency(run, part.inputs),
        "keras_latency_ms": part.latency,
    }
    if precision != "float32" and part.name == "model":
        file["quality"] = {
            "metric": comparison.headline,
            "value": comparison.judge(made[0]),
            "keras": comparison.judge(part.outputs[0]),
        }
    return file


def export_weights(model: Any, part: Part, work: Path) -> dict[str, Any]:
    """weights.npz and architecture.json, for NumPy alone, and read back to check them."""
    from convae.runtime.backend import keras

    np.savez(work / "weights.npz", **{n: v.numpy() for n, v in _variables(model)})
    text = json.dumps(json.loads(model.to_json()), indent=2)
    (work / "architecture.json").write_text(text + "\n", encoding="utf-8")

    again = keras.models.model_from_json((work / "architecture.json").read_text(encoding="utf-8"))
    with np.load(work / "weights.npz", allow_pickle=False) as arrays:
        for name, variable in _variables(again):
            variable.assign(arrays[name])
    (made,) = in_batches(keras_runner(again), part.inputs)
    return {
        "format": "weights",
        "part": "model",
        "precision": "float32",
        "path": "weights.npz",
        "bytes": sum(size_of(work / name) for name in ("weights.npz", "architecture.json")),
        "difference": float(np.abs(made - part.outputs[0]).max()),
    }


def _variables(model: Any) -> Iterator[tuple[str, Any]]:
    """The weights by the name of their part, layer and role: encoder/conv2d_1/kernel."""
    for name in ("encoder", "decoder"):
        for layer in model.get_layer(name).layers:
            for variable in layer.weights:
                yield f"{name}/{layer.name}/{variable.name}", variable


def in_batches(run: Runner, inputs: Sequence[Floats]) -> list[Floats]:
    """What `run` makes of all inputs, BATCH images at a time."""
    starts = range(0, len(inputs[0]), BATCH)
    made = [run([array[start : start + BATCH] for array in inputs]) for start in starts]
    return [np.concatenate(parts) for parts in zip(*made, strict=True)]


def latency(run: Runner, inputs: Sequence[Floats]) -> dict[str, float]:
    """The median time in milliseconds for one image and for a batch of up to BATCH."""
    times = {}
    for name, count in (("one", 1), ("batch", BATCH)):
        few = [array[:count] for array in inputs]
        run(few)  # the first call may still compile
        passed: list[float] = []
        while not passed or sum(passed) < SECONDS:
            began = time.perf_counter()
            run(few)
            passed.append(time.perf_counter() - began)
        times[name] = round(1000 * statistics.median(passed), 3)
    return times


def size_of(path: Path) -> int:
    """The bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def summary(result: dict[str, Any]) -> str:
    """The files as a table: size, difference from Keras, and latencies beside those of Keras."""
    images, batch = result["images"], f"of {result['batch']}"
    lines = [
        f"compared with Keras on {images['count']:,} images of {images['name']}; milliseconds for "
        "one image and for a batch, Keras' in brackets",
        f"{'':30}{'KiB':>8}{'difference':>12}{'one image':>18}{batch:>18}",
    ]
    for file in result["files"]:
        cells = ""
        if "latency_ms" in file:
            pairs = ((file["latency_ms"][k], file["keras_latency_ms"][k]) for k in ("one", "batch"))
            cells = "".join(f"{f'{ours:.2f} ({theirs:.2f})':>18}" for ours, theirs in pairs)
        lines.append(
            f"{file['path']:30}{file['bytes'] / 1024:8.1f}{file['difference']:12.1e}{cells}"
        )
        if quality := file.get("quality"):
            lines.append(
                f"    {file['precision']} costs quality: {quality['metric']} "
                f"{quality['value']:.6g}, Keras {quality['keras']:.6g}"
            )
    return "\n".join([*lines, *result["notes"], f"wrote {result['folder']}"])
