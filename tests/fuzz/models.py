"""`.keras` files and run folders for the fuzz suite, made without TensorFlow, then damaged."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

from convae.runs import pretrained
from tests.fuzz.inputs import CONFIG_FILES, Rng, changed, damaged, npy, odd_value, pick, zipped

_FILE = (pretrained.FOLDER / "mnist.keras").read_bytes()  # three and four plain layers
_OUTPUT = "conv2d_4"  # the name of its last layer


def _object(module: str, name: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"module": module, "class_name": name, "config": config, "registered_name": None}


POLICY = _object("keras", "DTypePolicy", {"name": "float32"})


def _member(name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(_FILE)) as archive:
        return archive.read(name)


def architecture() -> dict[str, Any]:
    """Return the config.json of an autoencoder."""
    return dict(json.loads(_member("config.json")))


def weights(trap: str = "") -> bytes:
    """Return the model.weights.h5 of that autoencoder, or one with a trap in place of a bias."""
    data = io.BytesIO(_member("model.weights.h5"))
    with h5py.File(data, "r+") as file:
        if trap:
            group = file["layers/functional_1/layers/conv2d_transpose/vars"]
            del group["1"]
            TRAPS[trap](group)
    return data.getvalue()


def _virtual(group: Any) -> None:
    layout = h5py.VirtualLayout((1,), "f4")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "x", (1,))
    group.create_virtual_dataset("1", layout)


TRAPS: dict[str, Callable[[Any], object]] = {
    "external": lambda g: g.create_dataset("1", (1,), "f4", external=[("/etc/passwd", 0, 4)]),
    "virtual": _virtual,
    "bomb": lambda g: g.create_dataset("1", (2**33,), "f4", chunks=(2**20,), compression="gzip"),
    "soft": lambda group: group.update({"1": h5py.SoftLink("/layers")}),
    "outside": lambda group: group.update({"1": h5py.ExternalLink("/tmp/other.h5", "/x")}),
    "circle": lambda group: group.update({"1": group.file["layers"]}),
    "text": lambda group: group.update({"1": "text"}),
}

# Objects that Keras would build or call, some of which have run code in spite of safe_mode.
_TOUCH = {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"}
EVIL: tuple[dict[str, Any], ...] = (
    _object("keras.layers", "Lambda", {"name": "encoder", "function": _TOUCH}),
    _object("keras.layers", "Lambda", {"function": {"class_name": "__lambda__", "config": {}}}),
    _object("keras.layers", "TFSMLayer", {"filepath": "/tmp/evil", "name": "encoder"}),
    _object("keras.layers", "StringLookup", {"vocabulary": "/etc/passwd"}),
    _object("keras.layers", "Dense", {"units": 10**9, "name": "encoder"}),
    _object("keras.config", "function", {"name": "enable_unsafe_deserialization"}),
    _object("keras.utils", "get_file", {"origin": "http://127.0.0.1/evil"}),
    _object("subprocess", "Popen", {"args": "id"}),
    _object("keras.layers", "Conv2D", {"filters": 10**9, "kernel_size": [999, 999]}),
    _object("keras.layers", "UpSampling2D", {"size": [10**9, 10**9], "name": _OUTPUT}),
    _object("keras.layers", "Reshape", {"target_shape": [-1, 10**18], "name": _OUTPUT}),
    _object("keras.layers", "InputLayer", {"batch_shape": [1, 10**9, 10**9, 1], "name": "x"}),
    {"class_name": "__numpy__", "config": {"value": [1] * 9, "dtype": "float64"}},
    {"class_name": "__typespec__", "spec_name": "x", "module": "os", "config": []},
    _TOUCH,
)


def keras_file(tree: Any = None, h5: bytes | None = None) -> bytes:
    """Return a `.keras` file, complete and plain if nothing is given."""
    config = _member("config.json") if tree is None else json.dumps(tree).encode()
    held = _member("model.weights.h5") if h5 is None else h5
    parts = {"metadata.json": _member("metadata.json"), "config.json": config}
    return zipped(parts | {"model.weights.h5": held})


def keras_files(rng: Rng) -> bytes:
    """A `.keras` with a damaged archive, config or weights, or with something evil in it."""
    way = rng.random()
    if way < 0.25:
        return damaged(rng, keras_file())
    if way < 0.55:
        tree = architecture()
        for _ in range(int(rng.integers(1, 4))):
            tree = changed(rng, tree, odd_value)
        return keras_file(tree)
    if way < 0.7:
        return keras_file(changed(rng, architecture(), lambda r: pick(r, EVIL)))
    if way < 0.9:
        return keras_file(h5=damaged(rng, weights()))
    if way < 0.95:
        return keras_file(h5=weights(pick(rng, list(TRAPS))))
    parts = {"config.json": b"[" * 100_000, "model.weights.h5": bytes(10**7)}
    parts[pick(rng, ("config.json", "assets/../../x", "/etc/x", "metadata.json"))] = b"{}"
    return zipped(parts, pick(rng, (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED)))


def with_hash(data: bytes) -> bytes:
    """A zip file as a checkpoint, with its hash as its comment."""
    body = data[:-2] + (64).to_bytes(2, "little")
    return body + hashlib.sha256(body).hexdigest().encode()


RUN_FILES = ("config.yaml", "manifest.json", "history.csv", "checkpoint/latest.npz")
_HISTORY = (
    b"epoch,loss,val_loss,val_excess,learning_rate,seconds,images_per_second\n"
    b"1,0.1,0.2,0.3,0.001,2.5,10000.0\n2,0.1,0.2,0.3,0.001,2.5,10000.0\n"
)
_MANIFEST = {"data": {"name": "MNIST", "sample": False}, "data_sha256": "0" * 64, "seed": 0}


def run_files(rng: Rng) -> bytes:
    """The number of a run folder's file, and that file, damaged."""
    which = int(rng.integers(4))
    if which == 0:
        data = damaged(rng, pick(rng, CONFIG_FILES))
    elif which == 1:
        tree = changed(rng, _MANIFEST, odd_value)
        data = json.dumps(tree).encode() if rng.random() < 0.9 else b"[" * 100_000
        data = damaged(rng, data) if rng.random() < 0.5 else data
    elif which == 2:
        wide = b'1,"' + bytes([120]) * 200_000 + b'",1,1,1,1,1\n'
        data = damaged(rng, _HISTORY + pick(rng, (b"", b"inf,1,1,1,1,1,1\n", wide)))
    else:
        state = np.frombuffer(json.dumps({"epoch": 1}).encode(), np.uint8)
        arrays: list[Any] = [state, np.ones((3, 3, 1, 4), np.float32), np.zeros(4, np.int64)]
        parts = {f"arr_{i}.npy": npy(rng, array, 0.7) for i, array in enumerate(arrays)}
        data = zipped(parts, pick(rng, (zipfile.ZIP_STORED,) * 4 + (zipfile.ZIP_DEFLATED,)))
        data = with_hash(damaged(rng, data) if rng.random() < 0.5 else data)
        data = damaged(rng, data) if rng.random() < 0.1 else data
    return bytes([which]) + data
