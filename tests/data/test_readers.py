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
        ({"x_train": np.zeros((5, 6, 5), np.int32)}, ["x_train", "astype(np.uint8)", "int32"]),
        ({"x_train": np.zeros((5, 6, 5), ">u2")}, ["x_train", "astype(np.uint8)", ">u2"]),
        ({"x_train": np.zeros((5, 6, 5), bool)}, ["x_train", "astype(np.uint8) * 255", "bool"]),
        ({"x_train": np.ones((5, 6, 5), np.uint8)}, ["only 0 and 1", "multiply them by 255"]),
        ({"x_train": np.zeros((5, 30), np.uint8)}, ["(5, 30)", "(images, height", "reshape(-1"]),
        ({"x_train": np.zeros((0, 6, 5), np.uint8)}, ["x_train", "no images", "(0, 6, 5)"]),
        ({"x_train": np.zeros((5, 3, 6, 5), np.uint8)}, ["x_train", "channels", "moveaxis"]),
        ({"x_test": make_images(5)}, ["x_train", "Received: x_test"]),
        ({"a": make_images(5), "b": make_images(5)}, ["x_train", "Received: a, b"]),
        ({"x_train": make_images(5), "X_train": make_images(5)}, ["x_train and X_train are both"]),
        ({"images": make_images(5), "train": make_images(5)}, ["images and train are both"]),
        ({"x_train": np.array([{}], dtype=object)}, ["x_train", "pickled"]),
        ({"x_train": make_images(5), "y_train": make_labels(4)}, ["y_train", "5", "(4,)"]),
        ({"x_train": make_images(5), "y_train": np.zeros(5)}, ["y_train", "float64", "astype(int"]),
        ({"x_train": make_images(5), "y_train": np.array([*"abcab"])}, ["y_train", "np.unique"]),
        ({"x_train": make_images(5), "y_train": np.eye(5, dtype=int)}, ["y_train", "argmax"]),
        ({"x_train": make_images(5), "y_train": np.array([0, 1, 2, 3, -1])}, ["y_train", "-1"]),
        ({"x_train": make_images(5), "y_train": np.array([{}] * 5)}, ["y_train", "pickled"]),
        ({"x_train": make_images(5, (8, 8))}, ["[8, 8, 1]", "[6, 5, 1]", "data.resize"]),
        ({"x_train": make_images(5, (6, 5, 3))}, ["[6, 5, 3]", "model.input_shape to [6,5,3]"]),
    ],
)
def test_npz_refusals(npz: Callable[..., str], arrays: dict[str, Any], words: list[str]) -> None:
    assert_has(refusal(npz(**arrays)), "own.npz", *words)


@pytest.mark.parametrize(
    "keys",
    [
        ("x_train", "y_train", "x_val", "x_test"),
        ("X_train", "Y_train", "X_valid", "X_test"),
        ("train_images", "train_labels", "val_images", "test_images"),  # MedMNIST
        ("images", "labels", "images_val", "images_test"),
        ("data_train", "targets_train", "data_dev", "data_test"),
        ("train", "trainLabels", "validation", "test"),
    ],
)
def test_splits_are_known_by_the_names_of_the_arrays(
    npz: Callable[..., str], keys: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    train, validation, test = (make_images(count, seed=count) for count in (7, 2, 3))
    arrays = dict(zip(keys, (train, make_labels(7), validation, test), strict=True))
    settings = config.Data(path=npz(**arrays))
    loaded = data.load_training(settings, SHAPE)
    np.testing.assert_array_equal(loaded.train.images[..., 0], train)
    np.testing.assert_array_equal(loaded.train.labels, make_labels(7))
    np.testing.assert_array_equal(loaded.validation.images[..., 0], validation)
    np.testing.assert_array_equal(data.load_test(settings, SHAPE).test.images[..., 0], test)
    assert not caplog.records
    other = config.Data(path=npz(**arrays | {keys[2]: validation[::-1]}))
    assert data.load_training(other, SHAPE).sha256 != loaded.sha256


def test_an_array_that_is_not_used_is_named(
    npz: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    assert len(data.load_training(config.Data(path=npz(faces=make_images(10))), SHAPE).train) == 7
    assert not caplog.records
    path = npz(arr_0=make_images(10), arr_1=make_labels(10), holdout=make_images(3))
    assert len(data.load_training(config.Data(path=path), SHAPE).train) == 7
    assert "keys that are not used: arr_1, holdout" in caplog.text


def test_the_files_of_the_other_splits_are_beside_that_of_train(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, count in (("X_train", 9), ("X_val", 2), ("X_test", 3), ("y_test", 4)):
        np.save(tmp_path / f"{name}.npy", make_images(count))
    np.save(tmp_path / "X_test_labels.npy", make_labels(3))
    settings = config.Data(path=str(tmp_path / "X_train.npy"))
    loaded, test = data.load_training(settings, SHAPE), data.load_test(settings, SHAPE)
    assert (len(loaded.train), len(loaded.validation), len(test.test)) == (9, 2, 3)
    np.testing.assert_array_equal(test.test.labels, make_labels(3))
    line = "splits: train from X_train.npy; validation: X_val.npy; test: X_test.npy"
    assert data.describe_splits(settings, loaded) == line
    assert len(read(tmp_path / "X_test.npy", "test").images) == 3
    assert not caplog.records
    for name in ("kmnist-train-imgs", "kmnist-test-imgs"):  # each archive has one array, arr_0
        np.savez(tmp_path / f"{name}.npz", make_images(10))
    data.load_training(config.Data(path=str(tmp_path / "kmnist-train-imgs.npz")), SHAPE)
    assert_has(caplog.text, "kmnist-test-imgs.npz: is not used", "x_test")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.csv", "a table"),
        ("a.MAT", "scipy.io.loadmat"),
        ("a.h5", "h5py"),
        ("a.parquet", "pandas.read_parquet"),
        ("a.pt", "torch.load"),
        ("a.zip", "an archive; unpack it"),
        ("a.tar.gz", "unpack it"),
        ("a.xyz", "a file of another kind"),
        ("a.JPG", "one image; name its folder"),
        ("train-images-idx3-ubyte", "one IDX file; name its folder"),
    ],
)
def test_files_of_other_formats_are_named(tmp_path: Path, name: str, words: str) -> None:
    np.savez(tmp_path / "own.npz", x_train=make_images(5))
    content = (tmp_path / "own.npz").read_bytes() if name in {"a.pt", "a.zip"} else b"1,2"
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path / name)
    assert_has(message, name, "must be an .npz or .npy file, a folder", words)
    assert "damaged" not in message


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
    assert set(training.splits) == {"train", "test"}


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


def write_idx(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        array = make_labels(9) if "labels" in name else make_images(9, seed=number)
        content = idx(array)
        (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)


@pytest.mark.parametrize("mark", ["-", "."])
@pytest.mark.parametrize(
    "names",
    [
        ("train-{}", "t10k-{}", ".gz"),  # MNIST, Fashion-MNIST, KMNIST
        ("train-{}", "test-{}", ""),
        ("emnist-letters-train-{}", "emnist-letters-test-{}", ".gz"),
        ("qmnist-train-{}", "qmnist-test-{}", ".gz"),
        ("Training-{}", "Testing-{}", ""),
    ],
)
def test_idx_files_with_other_prefixes(
    tmp_path: Path, names: tuple[str, str, str], mark: str, caplog: pytest.LogCaptureFixture
) -> None:
    kinds = [f"{kind}{mark}idx{ndim}-ubyte" for kind, ndim in (("images", 3), ("labels", 1))]
    write_idx(tmp_path, *(name.format(kind) + names[2] for name in names[:2] for kind in kinds))
    write_idx(tmp_path, "._train-images-idx3-ubyte")  # of macOS
    settings = config.Data(path=str(tmp_path))
    np.testing.assert_array_equal(
        data.load_training(settings, SHAPE).train.images[..., 0], make_images(9)[:7]
    )
    test = data.load_test(settings, SHAPE).test
    np.testing.assert_array_equal(test.images[..., 0], make_images(9, seed=2))
    np.testing.assert_array_equal(test.labels, make_labels(9))
    assert ("EMNIST hold each image transposed" in caplog.text) == ("emnist" in names[0])


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("train-images-idx3-ubyte", "holdout-images-idx3-ubyte"), ["Received: holdout-images"]),
        (
            ("train-images-idx3-ubyte", "qmnist-train-labels-idx2-int"),
            ["labels-idx2-int", "rename"],
        ),
        (("t10k-images-idx3-ubyte", "test-images-idx3-ubyte"), ["Received: test-images"]),
        (("a-train-images-idx3-ubyte", "b-train-images-idx3-ubyte"), ["more than one data set"]),
        (("test-images-idx3-ubyte",), ["train-images-idx3-ubyte", "missing"]),
        (("train-images-idx3-ubyte", "test-labels-idx1-ubyte"), ["t10k-images-idx3", "missing"]),
    ],
)
def test_idx_files_that_are_unclear(
    tmp_path: Path, names: tuple[str, ...], words: list[str]
) -> None:
    write_idx(tmp_path, *names)
    assert_has(refusal(tmp_path), *words)


def test_idx_folder_refusals(tmp_path: Path) -> None:
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(make_labels(9)))
    assert "train-images-idx3-ubyte" in refusal(tmp_path)
    images_path = tmp_path / "train-images-idx3-ubyte.gz"
    images_path.write_bytes(gzip.compress(idx(make_images(10)))[:-3])
    assert "not a complete IDX file" in refusal(tmp_path)
    images_path.write_bytes(idx(make_images(10)))  # unpacked by a browser that kept the name
    assert "one label for each of the 10 images" in refusal(tmp_path)
