"""Export a trained model for other runtimes: ONNX, LiteRT, SavedModel, or plain arrays.

Every file is read back in its runtime and compared with Keras before it gets its name. Most formats
hold the whole model, its encoder and its decoder; the decoder of a model with skip connections
takes the code and then the encoder's other outputs.
"""

from __future__ import annotations

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

from convae import archive, files
from convae.arrays import Floats, Images
from convae.config.schema import Config
from convae.console import progress_bar
from convae.data.datasets import SAMPLE_PATH
from convae.data.loading import Split, load_test, load_training
from convae.data.readers import read
from convae.data.split_names import SplitName
from convae.errors import ConvaeError, FileError, RunError, UnsupportedError
from convae.inference import export_formats
from convae.inference.export_formats import FORMATS, NotConvertibleError, Part, Runner
from convae.layers.summary import NEEDS_ONEDNN
from convae.runs.run import Run
from convae.tasks import build_task

LIMIT = 1e-4  # the largest difference from Keras that an export in float32 may have
IMAGES, BATCH, CALIBRATION = 1000, 100, 100
SECONDS = 0.2  # that each latency is measured for


def export(run: Run, formats: Sequence[str], output: str | None = None) -> dict[str, Any]:
    """Write the best weights of a run in other formats: all of them, or none.

    Args:
        run: The run.
        formats: Keys of FORMATS, or "all".
        output: The folder to write to; by default `export` in the run's folder.

    Returns:
        The files, and how they compare with Keras, as `format_export` takes it.

    Raises:
        UnsupportedError: A format is unknown, lacks its packages, or cannot represent the model.
        RunError: The run has no weights, or an output differs from Keras by more than LIMIT.
        FileError: The folder cannot be written.
    """
    names = check_formats(formats)
    archive.check_clock()
    folder = Path(output) if output else run.path / "export"
    best = run.best  # raises before TensorFlow's seconds of import
    with _staged(folder) as work:
        from convae.models.builder import read_model

        model = read_model(best)
        comparison = comparison_data(run.config)
        parts = {part.name: part for part in _parts(model, comparison)}
        written: list[dict[str, Any]] = []
        notes: list[str] = []
        todo = [
            (name, parts[part], precision)
            for name in names
            for part in FORMATS[name].parts
            for precision in FORMATS[name].precisions
        ]
        bar = progress_bar(todo, desc="exporting", unit=" files")
        for name, part, precision in bar:
            try:
                written.append(_write_and_compare(part, name, work, precision, comparison))
            except NotConvertibleError as error:
                if precision == "float32":
                    raise UnsupportedError(
                        f"{name} cannot represent the {part.name}: {error}. Nothing was written"
                    ) from None
                notes.append(f"no {precision} for the {part.name}: {error}")
    if run.config.model.has_dilated_transpose and {"saved_model", "weights"} & set(names):
        notes.append(f"in TensorFlow, the {NEEDS_ONEDNN}")
    return {
        "run": str(run.path),
        "folder": str(folder),
        "images": {"name": comparison.name, "count": len(comparison.inputs)},
        "limit": LIMIT,
        "batch": BATCH,
        "files": written,
        "notes": notes,
    }


def check_formats(formats: Sequence[str]) -> list[str]:
    """Return `formats` without duplicates, "all" expanded.

    Raises:
        UnsupportedError: There is none, one is unknown, or its packages are not installed.
    """
    known = ", ".join(FORMATS)
    chosen = list(dict.fromkeys(FORMATS if "all" in formats else formats))
    if wrong := [name for name in chosen if name not in FORMATS]:
        raise UnsupportedError(f"--format must be {known} or all. Received: {wrong[0]}")
    if not chosen:
        raise UnsupportedError(f"which format? --format {known} or all")
    for name in chosen:
        if missing := [p for p in FORMATS[name].packages if find_spec(p) is None]:
            packages = ", ".join(p.replace("_", "-") for p in missing)
            raise UnsupportedError(f"{name} needs {packages}: pip install 'convae[export]'")
    return chosen


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """Yield a folder whose content moves to `folder` at the end, and is removed after an error."""
    existed = folder.exists()
    work = files.aside(folder / "export")
    try:
        work.mkdir(parents=True)
        yield work
        for new in sorted(work.iterdir()):
            place = folder / new.name
            if place.is_dir():  # a folder cannot be replaced by another in one step
                shutil.rmtree(place)
            files.replace(new, place)
    except OSError as error:
        raise FileError(
            f"{folder}: cannot be written: {error}. --output-dir names another folder"
        ) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if not existed:
            with suppress(OSError):  # it holds an export
                folder.rmdir()


@dataclass(frozen=True)
class Comparison:
    """The images that an export is compared on."""

    name: str  # of the data
    inputs: Images
    calibration: Images  # inputs from other images
    headline: str  # the task's main metric
    metric: Callable[[Floats], float]  # its value for the outputs


def comparison_data(config: Config) -> Comparison:
    """Return up to IMAGES test examples of the run, and CALIBRATION validation examples.

    If its data can no longer be loaded, they are digits of the bundled sample.
    """
    task = build_task(config)
    try:
        found = load_test(config.data, task.image_shape)
        name, test = found.name, found.test
        validation = load_training(config.data, task.image_shape).validation
    except ConvaeError:
        name = "MNIST sample"
        test, validation = _sample("test", task.image_shape), _sample("train", task.image_shape)
    examples = task.evaluation_examples(test)[slice(IMAGES)]
    labels = None if test.labels is None else test.labels[:IMAGES]

    headline = task.output_metric or task.headline

    def metric(outputs: Floats) -> float:
        scores = task.scores(examples.targets, outputs)
        return task.summarize(scores, labels)[headline]

    calibration = task.evaluation_examples(validation)[slice(CALIBRATION)].inputs
    return Comparison(name, examples.inputs, calibration, headline, metric)


def _sample(name: SplitName, shape: tuple[int, int, int]) -> Split:
    from convae.data.transforms import resize_images

    arrays = read(SAMPLE_PATH, name)
    images = np.repeat(resize_images(arrays.images[:IMAGES], shape[:2]), shape[2], axis=-1)
    return Split(images, arrays.labels if arrays.labels is None else arrays.labels[:IMAGES])


def _parts(model: Any, comparison: Comparison) -> list[Part]:
    """Return model, encoder and decoder, each with its inputs and Keras' outputs."""

    def part(name: str, source: Any, first: str, x: list[Floats], few: list[Floats]) -> Part:
        named = _name_inputs(source, name, first)
        run = export_formats.keras_runner(named)
        return Part(name, source, named, x, _run_batches(run, x), _latency(run, x), few)

    images = (comparison.inputs, comparison.calibration)
    scaled, few = ([np.asarray(a / np.float32(255), np.float32)] for a in images)
    encoder = part("encoder", model.get_layer("encoder"), "image", scaled, few)
    codes = _run_batches(export_formats.keras_runner(encoder.model), few)
    source = model.get_layer("decoder")
    taken = slice(len(source.inputs))  # of what the encoder gives: no log-variance
    decoder = part("decoder", source, "code", encoder.outputs[taken], codes[taken])
    return [part("model", model, "image", scaled, few), encoder, decoder]


def _name_inputs(source: Any, name: str, first: str) -> Any:
    """Return a model of the same layers whose inputs are called `first`, skip_1, skip_2 ..."""
    from convae.runtime.backend import keras

    names = [first, *(f"skip_{i}" for i in range(1, len(source.inputs)))]
    pairs = zip(source.inputs, names, strict=True)
    inputs: Any = [keras.Input(i.shape[1:], name=n, dtype="float32") for i, n in pairs]
    if len(inputs) == 1:  # callers of the exported model should not need a list of one
        (inputs,) = inputs
    return keras.Model(inputs, source(inputs), name=name)


def _write_and_compare(
    part: Part, name: str, work: Path, precision: str, comparison: Comparison
) -> dict[str, Any]:
    """Write a part in a format, read it back, and compare its outputs with Keras'."""
    form = FORMATS[name]
    suffix = "" if precision == "float32" else f".{precision}"
    path = work / form.file.format(part=part.name, precision=suffix)
    try:
        with export_formats.conversion_errors():
            form.write(part, path, precision)
            run = form.read(path)
            outputs = _run_batches(run, part.inputs)
    except NotConvertibleError:
        path.unlink(missing_ok=True)  # it was written, but does not run
        raise
    difference = max(
        float(np.abs(a - b).max() / max(1.0, np.abs(b).max()))
        for a, b in zip(outputs, part.outputs, strict=True)
    )
    if precision == "float32" and not difference <= LIMIT:  # NaN fails, too
        raise RunError(
            f"{name}: the {part.name} differs from Keras by {difference:.2g}, and at most "
            f"{LIMIT:g} is allowed. Nothing was written"
        )
    made = [work / other for other in (path.name, *form.other_files)]
    made += path.rglob("*")  # of a folder
    file: dict[str, Any] = {
        "format": name,
        "part": part.name,
        "precision": precision,
        "path": path.name,
        "bytes": sum(p.stat().st_size for p in made if p.is_file()),
        "difference": difference,
    }
    if form.measures_latency:
        file |= {"latency_ms": _latency(run, part.inputs), "keras_latency_ms": part.latency}
    if precision != "float32" and part.name == "model":
        file["quality"] = {
            "metric": comparison.headline,
            "value": comparison.metric(outputs[0]),
            "keras": comparison.metric(part.outputs[0]),
        }
    return file


def _run_batches(run: Runner, inputs: Sequence[Floats]) -> list[Floats]:
    """Return the outputs for all inputs, BATCH images at a time."""
    starts = range(0, len(inputs[0]), BATCH)
    batches = [run([array[start : start + BATCH] for array in inputs]) for start in starts]
    return [np.concatenate(outputs) for outputs in zip(*batches, strict=True)]


def _latency(run: Runner, inputs: Sequence[Floats]) -> dict[str, float]:
    """Return the median milliseconds for one image and for a batch of up to BATCH."""
    medians = {}
    for name, count in (("one", 1), ("batch", BATCH)):
        few = [array[:count] for array in inputs]
        run(few)  # the first call may compile
        times: list[float] = []
        while not times or sum(times) < SECONDS:
            start = time.perf_counter()
            run(few)
            times.append(time.perf_counter() - start)
        medians[name] = round(1000 * statistics.median(times), 3)
    return medians


def format_export(result: dict[str, Any]) -> str:
    """Return a table of the files that `export` wrote: size, difference and latency."""
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
                f"    quality in {file['precision']}: {quality['metric']} "
                f"{quality['value']:.6g}, Keras {quality['keras']:.6g}"
            )
    return "\n".join([*lines, *result["notes"], f"wrote {result['folder']}"])
