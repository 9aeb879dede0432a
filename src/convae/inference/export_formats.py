"""The export formats: what each is called, needs, and writes, and how it is read back to be tested.

A model that was read is a function from a list of arrays to a list of arrays, whatever its format.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convae.arrays import Floats
from convae.models import keras_file

Runner = Callable[[Sequence[Floats]], list[Floats]]


@dataclass(frozen=True)
class Part:
    """The model, its encoder or its decoder, with example inputs and Keras' outputs for them."""

    name: str
    source: Any  # as the run has it
    model: Any  # the same layers, with named inputs
    inputs: list[Floats]
    outputs: list[Floats]
    latency: dict[str, float]  # of Keras, by `one` and `batch`, in milliseconds
    calibration: list[Floats]  # inputs from other images


class NotConvertibleError(Exception):
    """The format cannot represent a part of the model; becomes a message or a note."""


def _export_onnx(part: Part, path: Path, precision: str) -> None:
    from convae.models.builder import all_layers
    from convae.runtime.backend import keras, tf

    # tf2onnx does not know TensorFlow's Erfc, in which Keras computes gelu.
    gelu = [
        layer
        for layer in all_layers(part.model)
        if getattr(layer, "activation", None) is keras.activations.gelu
    ]
    try:
        for layer in gelu:
            layer.activation = lambda x: 0.5 * x * (1.0 + tf.math.erf(x * math.sqrt(0.5)))
        part.model.export(str(path), format="onnx", verbose=False)
    finally:
        for layer in gelu:
            layer.activation = keras.activations.gelu


def _export_saved_model(part: Part, path: Path, precision: str) -> None:
    part.model.export(str(path), format="tf_saved_model", verbose=False)


def _export_litert(part: Part, path: Path, precision: str) -> None:
    from convae.runtime.backend import tf

    options: dict[str, Any] = {}
    # Without TensorFlow's own operations: better no file than one that plain LiteRT cannot run.
    operations = tf.lite.OpsSet.TFLITE_BUILTINS
    if precision != "float32":
        options["optimizations"] = [tf.lite.Optimize.DEFAULT]
    if precision == "int8":
        operations = tf.lite.OpsSet.TFLITE_BUILTINS_INT8
        names = [i.name for i in part.model.inputs]
        options["representative_dataset"] = lambda: (
            {name: array[None] for name, array in zip(names, row, strict=True)}
            for row in zip(*part.calibration, strict=True)
        )
    options["target_spec"] = {"supported_ops": [operations]}
    part.model.export(str(path), format="litert", verbose=False, **options)


def _export_weights(part: Part, path: Path, precision: str) -> None:
    np.savez(path, **{name: v.numpy() for name, v in _variables(part.source)})
    tree = keras_file.for_older_keras(json.loads(part.source.to_json()))
    text = json.dumps(tree, indent=2)
    path.with_name("architecture.json").write_text(text + "\n", encoding="utf-8")


def _variables(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the weights by part, layer and role: encoder/conv2d_1/kernel."""
    for name in ("encoder", "decoder"):
        for layer in model.get_layer(name).layers:
            for variable in layer.weights:
                yield f"{name}/{layer.name}/{variable.name}", variable


def _read_onnx(path: Path) -> Runner:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    return lambda inputs: list(session.run(None, dict(zip(names, inputs, strict=True))))


def _read_litert(path: Path) -> Runner:
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(str(path)).get_signature_runner()
    return _by_name(run, list(run.get_input_details()))


def _read_saved_model(path: Path) -> Runner:
    from convae.runtime.backend import tf

    loaded = tf.saved_model.load(str(path))
    run = loaded.signatures["serving_default"]
    names = list(run.structured_input_signature[1])

    def call(*, _loaded: Any = loaded, **inputs: Floats) -> Any:  # it must outlive its function
        outputs = run(**{name: tf.constant(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in outputs.items()}

    return _by_name(call, names)


def _read_weights(path: Path) -> Runner:
    from convae.runtime.backend import keras

    text = path.with_name("architecture.json").read_text(encoding="utf-8")
    model = keras.models.model_from_json(text)
    with np.load(path, allow_pickle=False) as arrays:
        for name, variable in _variables(model):
            variable.assign(arrays[name])
    return keras_runner(model)


def _by_name(run: Callable[..., Any], names: Sequence[str]) -> Runner:
    """Return a signature with inputs by name and outputs output_0, output_1 ... as a Runner."""
    ordered = sorted(names, key=lambda name: (name.startswith("skip_"), len(name), name))

    def call(inputs: Sequence[Floats]) -> list[Floats]:
        outputs = run(**dict(zip(ordered, inputs, strict=True)))
        return [outputs[f"output_{i}"] for i in range(len(outputs))]

    return call


def keras_runner(model: Any) -> Runner:
    """Return a Keras model as a Runner, by its fastest method."""

    def run(inputs: Sequence[Floats]) -> list[Floats]:
        outputs = model.predict_on_batch(list(inputs) if len(inputs) > 1 else inputs[0])
        return list(outputs) if isinstance(outputs, list | tuple) else [outputs]

    return run


@dataclass(frozen=True)
class Format:
    """One export format."""

    file: str  # the name of what it writes, with {part} and {precision}
    write: Callable[[Part, Path, str], None]  # part, path, precision; raises what converters raise
    read: Callable[[Path], Runner]
    packages: tuple[str, ...] = ()  # as they are imported
    precisions: tuple[str, ...] = ("float32",)
    parts: tuple[str, ...] = ("model", "encoder", "decoder")
    other_files: tuple[str, ...] = ()
    measures_latency: bool = True


FORMATS = {
    "onnx": Format(
        "{part}.onnx", _export_onnx, _read_onnx, packages=("onnx", "tf2onnx", "onnxruntime")
    ),
    "litert": Format(
        "{part}{precision}.tflite",
        _export_litert,
        _read_litert,
        packages=("ai_edge_litert",),
        # int8-weights: weights of 8 bits, activations in float32. int8: everything in 8 bits, in
        # the ranges of the calibration images. Both take and give float32.
        precisions=("float32", "int8-weights", "int8"),
    ),
    "saved_model": Format("{part}.saved_model", _export_saved_model, _read_saved_model),
    "weights": Format(
        "weights.npz",
        _export_weights,
        _read_weights,
        parts=("model",),
        other_files=("architecture.json",),
        measures_latency=False,  # it is read into Keras
    ),
}


@contextmanager
def conversion_errors() -> Iterator[None]:
    """Turn the errors of converters and runtimes into NotConvertibleError, without their logs.

    An OSError, such as a full disk, stays one.
    """
    from convae.runtime.backend import quiet

    reason = None
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except OSError:
            raise
        except Exception as error:
            operations = re.search(
                r"(?:TF Select ops:|No Op registered for) (\w+(?:, \w+)*)", str(error)
            )
            first = str(error).strip().partition("\n")[0]
            if len(first) > 300:  # the cause is mostly at the end
                first = f"{first[:100]} ... {first[-190:]}"
            reason = f"it has no {operations[1]}" if operations else first
    if reason:
        raise NotConvertibleError(reason)
