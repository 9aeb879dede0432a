"""Check a `.keras` file before Keras loads it: only plain layers and their weights are allowed.

Keras' safe_mode refuses Python code in a Lambda layer. It limits neither the classes that a file
may build, nor their memory, nor the files that HDF5 may read, and was bypassed more than once
(CVE-2025-1550, CVE-2025-8747, CVE-2025-9906, CVE-2026-1462). Hence a list of what is allowed.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from convae import archive
from convae.errors import RunError
from convae.layers.spec import Layer

MAX_DEPTH = 40
CONFIG, WEIGHTS = "config.json", "model.weights.h5"
LAYER_TYPES = get_args(get_args(Layer)[0])
KERNELS = {spec.keras_layer for spec in LAYER_TYPES}  # with weights, which _count_weights counts
# The classes of the layer types, and others without weights and without code.
LAYERS = KERNELS.union(*(spec.weightless_layers for spec in LAYER_TYPES)) | {
    "Activation", "Add", "Concatenate", "Cropping2D", "InputLayer", "LeakyReLU", "ReLU",
    "Rescaling", "Softmax", "ZeroPadding2D",
}  # fmt: skip
INITIALIZERS = {
    "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "LecunNormal", "LecunUniform", "Ones",
    "RandomNormal", "RandomUniform", "TruncatedNormal", "VarianceScaling", "Zeros",
}  # fmt: skip
ALLOWED = {  # (module, class) of each object in a file
    *(("keras.layers", name) for name in LAYERS),
    *(("keras.initializers", name) for name in INITIALIZERS),
    ("keras", "DTypePolicy"),
    ("keras", "Functional"),
    ("keras.models", "Functional"),
    ("keras.src.models.functional", "Functional"),
    (None, "__keras_tensor__"),
}
NEWER_KEYS = {"input_axes", "output_axes"}  # of initializers, since Keras 3.15
# Options of a layer with weights; any other, such as a regularizer, must be null.
KERNEL_KEYS = {
    "name", "trainable", "dtype", "filters", "kernel_size", "strides", "padding", "output_padding",
    "data_format", "dilation_rate", "groups", "activation", "use_bias", "kernel_initializer",
    "bias_initializer",
}  # fmt: skip


def check(path: Path) -> None:
    """Check that `path` holds a complete autoencoder of plain layers, and little besides.

    The model has the sub-models `encoder` and `decoder`. The file has bytes for every weight that
    Keras would create, so a small file cannot take much memory.

    Raises:
        RunError: The file is missing or is not such a model.
    """
    try:
        held = archive.members(path.read_bytes())
        if extra := set(held) - {CONFIG, WEIGHTS, "metadata.json"}:
            raise ValueError(f"holds more than layers and weights: {min(extra)!r:.80}")
        if missing := {CONFIG, WEIGHTS} - set(held):
            raise ValueError(f"lacks {min(missing)}")
        tree = archive.mapping(held[CONFIG])
        tree.pop("compile_config", None)  # only the layers are built
        _check_submodels(tree)
        needed = sum(_check_object(node) for node in _objects(tree))
        if needed * 4 > len(held[WEIGHTS]):
            raise ValueError(
                f"its layers need {needed:,} weights, more than {WEIGHTS} has bytes for"
            )
        _check_weights(held[WEIGHTS])
    except FileNotFoundError:
        raise RunError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be loaded as a model of plain layers: {error}") from None


def write_for_older_keras(path: Path) -> None:
    """Write a `.keras` file again without the options that Keras 3.5 to 3.14 do not know.

    Plain layers leave them at their defaults, and the weights stay as they are.
    """
    held = archive.members(path.read_bytes())
    held[CONFIG] = json.dumps(for_older_keras(json.loads(held[CONFIG]))).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, content in held.items():
            file.writestr(name, content)


def for_older_keras(tree: Any) -> Any:
    """Return Keras' description of a model without options that older versions do not know."""
    if isinstance(tree, dict):
        return {k: for_older_keras(v) for k, v in tree.items() if k not in NEWER_KEYS}
    return [for_older_keras(item) for item in tree] if isinstance(tree, list) else tree


def _check_submodels(tree: dict[str, Any]) -> None:
    try:
        layers = tree["config"]["layers"]
        classes = {str(layer["config"]["name"]): layer["class_name"] for layer in layers}
    except (LookupError, TypeError):
        classes = {}
    if missing := [part for part in ("encoder", "decoder") if classes.get(part) != "Functional"]:
        raise ValueError(
            f"lacks the sub-model {' and the sub-model '.join(missing)} that every model of "
            f"convae train has. Its layers: {', '.join(classes) or 'none':.200}"
        )


def _objects(value: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """Yield each mapping below `value` from which Keras may build an object."""
    if depth > MAX_DEPTH:
        raise ValueError(f"{CONFIG} is nested more than {MAX_DEPTH} deep")
    if isinstance(value, dict):
        if value.keys() & {"class_name", "registered_name", "module"}:
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _objects(item, depth + 1)


def _check_object(node: dict[str, Any]) -> int:
    """Return the number of weights of an allowed object, and raise ValueError for any other."""
    module, name, config = (node.get(key) for key in ("module", "class_name", "config"))
    if not (isinstance(name, str) and (module is None or isinstance(module, str))):
        raise ValueError(f"an object without a class. Received: {name!r:.80}")
    if (module, name) not in ALLOWED or node.get("registered_name") not in (None, name):
        where = f"{module}." if module else ""
        raise ValueError(f"holds {where}{name:.80}, which is none of the plain layers allowed here")
    if not isinstance(config, dict) or node.get("compile_config"):
        raise ValueError(f"{name} is not described as Keras describes it")
    dtype = config.get("name" if name == "DTypePolicy" else "dtype", "float32")
    policy = isinstance(dtype, dict) and name != "DTypePolicy"  # checked as an object of its own
    if dtype != "float32" and not policy:
        raise ValueError(f"{name} is of {dtype!r:.80}; plain layers are float32")
    return _count_weights(name, config, node.get("build_config")) if name in KERNELS else 0


def _count_weights(name: str, config: dict[str, Any], built: Any) -> int:
    """Return the number of values in kernel and bias of a convolution."""
    odd = [key for key, value in config.items() if value is not None and key not in KERNEL_KEYS]
    if odd:
        raise ValueError(f"{name} has {odd[0]!r:.80}, which no plain layer has")
    shape = built.get("input_shape") if isinstance(built, dict) else None
    kernel = config.get("kernel_size")
    sizes: list[Any] = [config.get("filters"), *(kernel if isinstance(kernel, list) else [None])]
    sizes.append(shape[-1] if isinstance(shape, list) and shape else None)
    positive = all(type(size) is int and size > 0 for size in sizes)
    if not positive or len(sizes) != 4 or config.get("data_format") != "channels_last":
        raise ValueError(f"{name} lacks its sizes. Received: {sizes!r:.80}")
    return int(math.prod(sizes) + sizes[0])


def _check_weights(data: bytes) -> None:
    """Allow only uncompressed arrays of numbers within the file: no links, no external data."""
    import h5py

    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            if sum(_array_sizes(file, set())) > len(data):
                raise ValueError("its arrays are larger than the file")
    except Exception as error:  # h5py raises nearly anything at damaged bytes
        raise ValueError(f"{WEIGHTS}: {error or type(error).__name__}") from None


def _array_sizes(group: Any, seen: set[int]) -> Iterator[int]:
    """Yield the bytes of each array below `group`; add to `seen` where its groups begin."""
    import h5py

    address = h5py.h5o.get_info(group.id).addr
    if address in seen:
        raise ValueError(f"two links lead to {group.name:.80}")
    seen.add(address)
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name:.80} is a link to another place")
        item = group[name]
        if isinstance(item, h5py.Group):
            yield from _array_sizes(item, seen)
        elif _is_plain(item):
            yield item.size * item.dtype.itemsize
        else:
            raise ValueError(f"{name:.80} is not a plain array of numbers")


def _is_plain(item: Any) -> bool:
    if not hasattr(item, "dtype") or item.dtype.kind not in "fiu":
        return False
    compressed = item.chunks is not None or item.id.get_create_plist().get_nfilters()
    return not (item.external or item.is_virtual or compressed)
