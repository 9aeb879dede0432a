"""npz and IDX: what is read comes back exactly, what is damaged or of another kind is refused."""

import contextlib
import gzip
import io
import os
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from convae.config import schema as config
from convae.data import loading as data
from convae.data.readers import read
from convae.errors import ConvaeError
from tests.data.conftest import SHAPE, assert_has, make_images, make_labels, npy_header, refusal


def test_labels_are_optional_and_may_be_a_column(npz: Callable[..., str]) -> None:
    loaded = data.load_training(config.Data(path=npz(x_train=make_images(10))), SHAPE)
    assert loaded.train.labels is None
    assert loaded.classes is None
    path = npz(x_train=make_images(10), y_train=make_labels(10)[:, None])
    assert data.load_training(config.Data(path=path), SHAPE).classes == ("0", "1", "2")


def test_rgb_and_fortran_order(npz: Callable[..., str]) -> None:
    x = np.asfortranarray(make_images(10, (6, 5, 3)))
    loaded = data.load_training(config.Data(path=npz(x_train=x, x_test=x)), (6, 5, 3))
    np.testing.assert_array_equal(loaded.train.images, x[:8])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x_train": np.zeros((5, 6, 5))}, ["x_train", "float64", "(x * 255).round()"]),
        ({"x_train": np.zeros((5, 6, 5), np.int32)}, ["x_train", "uint8", "int32"]),
        ({"x_train": np.zeros((5, 30), np.uint8)}, ["x_train", "(5, 30)", "(images, height"]),
        ({"x_train": np.zeros((0, 6, 5), np.uint8)}, ["x_train", "no images", "(0, 6, 5)"]),
        ({"x_train": np.zeros((5, 3, 6, 5), np.uint8)}, ["x_train", "channels", "moveaxis"]),
        ({"images": make_images(5)}, ["x_train", "Received: images"]),
        ({"x_train": np.array([{}], dtype=object)}, ["x_train", "pickled"]),
        ({"x_train": make_images(5), "y_train": make_labels(4)}, ["y_train", "5", "(4,)"]),
        ({"x_train": make_images(5), "y_train": np.zeros(5)}, ["y_train", "float64"]),
        ({"x_train": make_images(5), "y_train": np.array([0, 1, 2, 3, -1])}, ["y_train", "-1"]),
        ({"x_train": make_images(5), "y_train": np.array([{}] * 5)}, ["y_train", "pickled"]),
        ({"x_train": make_images(5, (8, 8))}, ["[8, 8, 1]", "[6, 5, 1]", "data.resize"]),
        ({"x_train": make_images(5, (6, 5, 3))}, ["[6, 5, 3]", "model.input_shape to [6,5,3]"]),
    ],
)
def test_npz_refusals(npz: Callable[..., str], arrays: dict[str, Any], words: list[str]) -> None:
    assert_has(refusal(npz(**arrays)), "own.npz", *words)


def test_a_header_that_lies_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "lying.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x_train.npy", npy_header((10**6, 10**4, 10**4)) + bytes(100))
    assert "promises 100,000,000,000,000 bytes" in refusal(path)


def test_npz_that_is_cut_off_corrupt_or_none(npz: Callable[..., str], tmp_path: Path) -> None:
    path = Path(npz(x_train=make_images(50)))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "cut off" in refusal(path)
    np.savez(path, x_train=make_images(50))  # stored, so that only the CRC sees the change
    whole = path.read_bytes()
    path.write_bytes(whole[:800] + bytes([whole[800] ^ 1]) + whole[801:])
    assert "CRC" in refusal(path)
    path.write_text("no archive")
    assert "not a complete .npz file" in refusal(path)
    assert "no such file or folder" in refusal(tmp_path / "nothing.npz")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
        assert "no such file or folder" in refusal(tmp_path / "pipe")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damage_to_an_npz_is_an_answer_in_words(draws: st.DataObject) -> None:
    stream = io.BytesIO()
    np.savez(stream, x_train=make_images(3), y_train=make_labels(3))
    damaged = bytearray(stream.getvalue())
    for _ in range(draws.draw(st.integers(1, 4))):
        damaged[draws.draw(st.integers(0, len(damaged) - 1))] = draws.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "x.npz"
        path.write_bytes(damaged[: draws.draw(st.integers(1, len(damaged)))])
        with contextlib.suppress(ConvaeError):
            assert read(path, "train").images.dtype == np.uint8


def idx(array: NDArray[np.uint8]) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@settings(max_examples=30, deadline=None)
@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6)),
    st.booleans(),
    st.sampled_from("-."),
)
def test_idx_round_trip(x: NDArray[np.uint8], zipped: bool, mark: str) -> None:
    labels = make_labels(len(x))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for stem, array in (("train-images", x), ("t10k-images", x), ("train-labels", labels)):
            kind = f"{mark}idx{array.ndim}-ubyte"
            content = gzip.compress(idx(array)) if zipped else idx(array)
            (folder / f"{stem}{kind}{'.gz' if zipped else ''}").write_bytes(content)
        training, test = read(folder, "train"), read(folder, "test")
    np.testing.assert_array_equal(training.images[..., 0], x)
    np.testing.assert_array_equal(training.labels, labels)
    np.testing.assert_array_equal(test.images[..., 0], x)
    assert test.labels is None
    assert training.has_test


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: b"\0\0\x0d\3" + b[4:], ["magic number 0x00000803", "0x00000d03"]),
        (lambda b: b[:-7], ["cut off"]),
        (lambda b: b[:9], ["cut off in its header"]),
        (lambda b: b + b"\0", ["longer than the 300 bytes"]),
        (lambda b: b[:4] + struct.pack(">III", 0, 6, 5), ["is empty"]),
        (lambda b: b[:4] + b"\xff" * 12 + b[16:], ["cut off", "promises"]),
        (lambda _: b"", ["magic number"]),
    ],
)
def test_idx_refusals(
    tmp_path: Path, zipped: bool, change: Callable[[bytes], bytes], words: list[str]
) -> None:
    content = change(idx(make_images(10)))
    name = "train-images-idx3-ubyte" + (".gz" if zipped else "")
    (tmp_path / name).write_bytes(gzip.compress(content) if zipped else content)
    assert_has(refusal(tmp_path), name, *words)


def test_idx_folder_refusals(tmp_path: Path) -> None:
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(make_labels(9)))
    assert "train-images-idx3-ubyte" in refusal(tmp_path)
    images_path = tmp_path / "train-images-idx3-ubyte.gz"
    images_path.write_bytes(gzip.compress(idx(make_images(10)))[:-3])
    assert "not a complete IDX file" in refusal(tmp_path)
    images_path.write_bytes(idx(make_images(10)))  # unpacked by a browser that kept the name
    assert "one label for each of the 10 images" in refusal(tmp_path)
