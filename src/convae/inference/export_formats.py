"""Other runtimes that a Keras model can be written for, and read back in: ONNX, LiteRT, SavedModel.

Whatever the runtime, a model that was read is a function from a list of arrays to a list of arrays.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Runner = Callable[[Sequence[Floats]], list[Floats]]

ENDINGS = {"onnx": ".onnx", "litert": ".tflite", "saved_model": ".saved_model"}
PACKAGES = {"onnx": ("onnx", "tf2onnx", "onnxruntime"), "litert": ("ai_edge_litert",)}
# int8-weights: weights of 8 bits, activations in float32. int8: everything in 8 bits, in ranges
# that validation images showed. Both take and give float32.
INT8 = ("int8-weights", "int8")


class Unsupported(Exception):  # noqa: N818 - it becomes a RunError, or a note
    """The format has no way to say what a part does."""


def write(model: Any, form: str, path: Path, precision: str, calibration: Sequence[Floats]) -> None:
    """Let Keras convert a model, whose inputs `calibration` are for int8 alone.

    Raises what Keras' converters do, a type each.
    """
    options: dict[str, Any] = {}
    if form == "litert":
        from convae.runtime.backend import tf

        # Without the operations that plain LiteRT has not: better no file than one that cannot run.
        builtin = tf.lite.OpsSet.TFLITE_BUILTINS
        if precision != "float32":
            options["optimizations"] = [tf.lite.Optimize.DEFAULT]
        if precision == "int8":
            builtin = tf.lite.OpsSet.TFLITE_BUILTINS_INT8
            options["representative_dataset"] = lambda: _rows(model, calibration)
        options["target_spec"] = {"supported_ops": [builtin]}
    kind = "tf_saved_model" if form == "saved_model" else form
    model.export(str(path), format=kind, verbose=False, **options)


@contextmanager
def explained() -> Iterator[None]:
    """Turn what converters and runtimes raise, a type each, into Unsupported, without their logs.

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
            operations = re.search(r"TF Select ops: ([\w, ]+)", str(error))
            first = str(error).strip().partition("\n")[0]
            reason = f"it has no {operations[1]}" if operations else f"{first:.200}"
    if reason:
        raise Unsupported(reason)


def _rows(model: Any, calibration: Sequence[Floats]) -> Iterator[dict[str, Floats]]:
    """The calibration inputs one by one, by name."""
    names = [i.name for i in model.inputs]
    for row in zip(*calibration, strict=True):
        yield {name: array[None] for name, array in zip(names, row, strict=True)}


def read_onnx(path: Path) -> Runner:
    """A file in onnxruntime, with its own defaults."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    return lambda inputs: list(session.run(None, dict(zip(names, inputs, strict=True))))


def read_litert(path: Path) -> Runner:
    """A file in LiteRT, with its own defaults; it orders inputs and outputs as it likes."""
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(str(path)).get_signature_runner()
    return _by_name(run, list(run.get_input_details()))


def read_saved_model(path: Path) -> Runner:
    """A folder in TensorFlow, without Keras."""
    from convae.runtime.backend import tf

    loaded = tf.saved_model.load(str(path))
    run = loaded.signatures["serving_default"]
    names = list(run.structured_input_signature[1])

    def call(*, _loaded: Any = loaded, **inputs: Floats) -> Any:  # it must outlive its function
        return {
            k: v.numpy() for k, v in run(**{k: tf.constant(v) for k, v in inputs.items()}).items()
        }

    return _by_name(call, names)


def _by_name(run: Callable[..., Any], names: Sequence[str]) -> Runner:
    """A signature that takes inputs by name and gives output_0, output_1 ..., as a Runner."""
    ordered = sorted(names, key=lambda name: (name.startswith("skip_"), len(name), name))

    def call(inputs: Sequence[Floats]) -> list[Floats]:
        made = run(**dict(zip(ordered, inputs, strict=True)))
        return [made[f"output_{i}"] for i in range(len(made))]

    return call


READERS: dict[str, Callable[[Path], Runner]] = {
    "onnx": read_onnx,
    "litert": read_litert,
    "saved_model": read_saved_model,
}


def keras_runner(model: Any) -> Runner:
    """Keras itself, in the quickest of its ways."""

    def run(inputs: Sequence[Floats]) -> list[Floats]:
        made = model.predict_on_batch(list(inputs) if len(inputs) > 1 else inputs[0])
        return list(made) if isinstance(made, list | tuple) else [made]

    return run
