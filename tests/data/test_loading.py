"""Finding, verifying and splitting data; every file here is made by the test itself."""

import hashlib
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from convae.config import schema as config
from convae.data import datasets
from convae.data import loading as data
from convae.errors import ConvaeError
from tests.data.conftest import SHAPE, assert_has, make_images, make_labels

FULL = os.environ.get("CONVAE_DATA", "")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_npz_is_split_by_position_and_stays_uint8(npz: Callable[..., str]) -> None:
    x, y, x_test = make_images(20), make_labels(20), make_images(4, seed=1)
    settings = config.Data(path=npz(x_train=x, y_train=y, x_test=x_test, y_test=make_labels(4)))
    loaded = data.load_training(settings, SHAPE)
    assert loaded.train.images.dtype == np.uint8
    assert np.asarray(loaded.train.labels).dtype == np.int64
    np.testing.assert_array_equal(loaded.train.images[..., 0], x[:16])
    np.testing.assert_array_equal(loaded.validation.images[..., 0], x[16:])
    np.testing.assert_array_equal(loaded.train.labels, y[:16])
    assert loaded.train.images.base is loaded.validation.images.base  # views of one array
    assert (loaded.name, loaded.is_sample, loaded.notice) == ("own.npz", False, None)
    assert (loaded.samples_per_epoch, loaded.classes) == (16, ("0", "1", "2"))
    assert loaded.sha256 == sha256(x.tobytes() + y.astype(np.int64).tobytes())
    np.testing.assert_array_equal(data.load_test(settings, SHAPE).test.images[..., 0], x_test)


def test_without_a_test_split_the_last_images_are_kept(npz: Callable[..., str]) -> None:
    x = make_images(20)
    settings = config.Data(path=npz(x_train=x), test_split=0.25)
    training, test = data.load_training(settings, SHAPE), data.load_test(settings, SHAPE)
    used = np.concatenate([training.train.images, training.validation.images])
    np.testing.assert_array_equal(used[..., 0], x[:15])
    np.testing.assert_array_equal(test.test.images[..., 0], x[15:])
    with pytest.raises(ConvaeError, match=r"data\.test_split.* 1 images"):
        data.load_training(config.Data(path=npz(x_train=make_images(1))), SHAPE)


def test_training_opens_no_test_image_and_evaluation_no_training_image(tmp_path: Path) -> None:
    for broken, load in (("x_test", data.load_training), ("x_train", data.load_test)):
        path = tmp_path / f"{broken}.npz"
        with zipfile.ZipFile(path, "w") as archive:
            for key in ("x_train", "x_test"):
                stream = io.BytesIO()
                np.save(stream, make_images(10))
                archive.writestr(f"{key}.npy", b"broken" if key == broken else stream.getvalue())
        load(config.Data(path=str(path)), SHAPE)


def test_arrays_are_resized_too(npz: Callable[..., str]) -> None:
    x = np.full((10, 12, 10), 77, np.uint8)
    settings = config.Data(path=npz(x_train=x, x_test=x), resize=(6, 5))
    loaded = data.load_training(settings, SHAPE)
    np.testing.assert_array_equal(loaded.train.images, np.full((8, 6, 5, 1), 77))
    assert loaded.sha256 == sha256(x.tobytes())


def test_subset_is_taken_before_the_split(npz: Callable[..., str]) -> None:
    x = make_images(30)
    path = npz(x_train=x, x_test=x)
    loaded = data.load_training(config.Data(path=path, subset=10), SHAPE)
    np.testing.assert_array_equal(loaded.validation.images[..., 0], x[8:10])
    with pytest.raises(ConvaeError, match=r"data.subset: 31 is more than the 30 training images"):
        data.load_training(config.Data(path=path, subset=31), SHAPE)
    with pytest.raises(ConvaeError, match=r"data.validation_split: 0.2 of 1 images"):
        data.load_training(config.Data(path=path, subset=1), SHAPE)


@example(60_000, 0.2)
@given(st.integers(1, 10**6), st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_split_sizes_are_those_of_keras(count: int, fraction: float) -> None:
    keras = int(count * (1.0 - fraction))
    if 0 < keras < count:
        assert data._split_point(count, fraction, "data.validation_split") == keras
    else:
        with pytest.raises(ConvaeError, match=r"data\.validation_split"):
            data._split_point(count, fraction, "data.validation_split")


def test_fallback_says_what_it_is_and_why() -> None:
    loaded = data.load_training(config.Data(), (28, 28, 1))
    assert loaded.is_sample
    assert (loaded.name, loaded.samples_per_epoch) == ("MNIST sample", 48_000)
    assert (len(loaded.train), len(loaded.validation)) == (3200, 800)
    parts = ("sample of 5,000", "no such file", "download: http", "15 times", "CONVAE_DATA")
    assert_has(loaded.notice, *parts)
    train, validation = (np.asarray(s.labels) for s in (loaded.train, loaded.validation))
    np.testing.assert_array_equal(np.bincount(train) + np.bincount(validation), [400] * 10)
    test = data.load_test(config.Data(), (28, 28, 1))
    np.testing.assert_array_equal(np.bincount(np.asarray(test.test.labels)), [100] * 10)
    assert test.is_sample
    assert test.notice
    assert "15 times" not in test.notice


def test_fallback_with_subset_or_asked_for() -> None:
    loaded = data.load_training(config.Data(subset=100), (28, 28, 1))
    assert (loaded.samples_per_epoch, loaded.classes) == (80, tuple("0123456789"))
    with pytest.raises(ConvaeError, match="sample of 5,000"):
        data.load_training(config.Data(subset=5000), (28, 28, 1))
    asked = data.load_training(config.Data(path=str(datasets.SAMPLE_PATH)), (28, 28, 1))
    assert (asked.is_sample, asked.notice, asked.samples_per_epoch) == (True, None, 3200)


def test_no_sample_where_it_is_not_allowed() -> None:
    settings = config.Data(download=False, allow_sample=False)
    with pytest.raises(ConvaeError) as error:
        data.load_training(settings, (28, 28, 1))
    parts = ("Keras' cache: ", "data.download is false", "data.allow_sample is false")
    assert_has(str(error.value), *parts)


def test_a_damaged_sample_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    mnist = datasets.DATASETS["mnist"]
    sample = replace(datasets.SAMPLE, images_sha256=mnist.images_sha256)
    monkeypatch.setitem(datasets.DATASETS, "mnist", replace(mnist, sample=sample))
    with pytest.raises(ConvaeError, match=r"mnist_sample\.npz: damaged or incomplete"):
        data.load_training(config.Data(), SHAPE)


@pytest.fixture
def mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is MNIST during a test."""
    x, x_test = make_images(20), make_images(5, seed=1)
    path = tmp_path / "source.npz"
    np.savez(path, x_train=x, y_train=make_labels(20), x_test=x_test, y_test=make_labels(5))
    row = replace(
        datasets.DATASETS["mnist"],
        images_sha256={"train": sha256(x.tobytes()), "test": sha256(x_test.tobytes())},
        files={"mnist.npz": sha256(path.read_bytes())},
    )
    monkeypatch.setitem(datasets.DATASETS, "mnist", row)
    return path


def test_cache_is_used_and_a_damaged_one_named(mnist: Path, tmp_path: Path) -> None:
    cache = datasets.DATASETS["mnist"].cache_folder / "mnist.npz"
    assert cache == tmp_path / "keras-home" / "datasets" / "mnist.npz"
    cache.parent.mkdir(parents=True)
    cache.write_bytes(mnist.read_bytes())
    loaded = data.load_training(config.Data(download=False), SHAPE)
    assert (loaded.name, loaded.is_sample, loaded.notice) == ("MNIST", False, None)
    cache.write_bytes(mnist.read_bytes()[:-100])
    notice = data.load_training(config.Data(download=False), (28, 28, 1)).notice
    assert_has(notice, f"Keras' cache: {cache}: not a complete .npz file")
    with np.load(mnist) as arrays:
        np.savez(cache, x_train=arrays["x_train"])  # it has no test split to keep from training
    assert data.load_training(config.Data(download=False), (28, 28, 1)).is_sample


def test_mnist_is_known_by_its_images_and_found_by_the_environment(
    mnist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVAE_DATA", str(mnist))
    assert data.load_training(config.Data(), SHAPE).name == "MNIST"
    assert data.load_test(config.Data(), SHAPE).name == "MNIST"
    monkeypatch.setenv("CONVAE_DATA", str(mnist / "nowhere"))
    with pytest.raises(ConvaeError, match=r"^CONVAE_DATA: .*nowhere: no such file"):
        data.load_training(config.Data(), SHAPE)
    assert data.load_training(config.Data(path=str(mnist)), SHAPE).name == "MNIST"


def test_a_download_lands_in_keras_cache(mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = datasets.DATASETS["mnist"]

    def fetch(url: str, target: Path, digest: str) -> None:
        assert (url, digest) == (f"{row.url}/mnist.npz", row.files["mnist.npz"])
        target.parent.mkdir(parents=True)
        target.write_bytes(mnist.read_bytes())

    monkeypatch.setattr(datasets, "download", fetch)
    assert data.load_training(config.Data(), SHAPE).name == "MNIST"
    assert data.load_test(config.Data(download=False), SHAPE).notice is None


def test_a_failed_download_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def fail(url: str, *_: object) -> None:
        tries.append(url)
        raise ConvaeError("no network")

    monkeypatch.setattr(datasets, "download", fail)
    data.load_training(config.Data(), (28, 28, 1))
    notice = data.load_test(config.Data(), (28, 28, 1)).notice
    assert len(tries) == 1
    assert_has(notice, "download: no network")


def test_no_tensorflow() -> None:
    code = "import sys, convae.data.loading; print({'tensorflow', 'requests'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


@pytest.mark.skipif(not FULL, reason="CONVAE_DATA names no file of the full MNIST")
def test_the_full_mnist() -> None:
    loaded = data.load_training(config.Data(path=FULL), (28, 28, 1))
    test = data.load_test(config.Data(path=FULL), (28, 28, 1))
    assert (loaded.name, test.name) == ("MNIST", "MNIST")
    sizes = (len(loaded.train), len(loaded.validation), len(test.test), loaded.samples_per_epoch)
    assert sizes == (48_000, 12_000, 10_000, 48_000)
    assert loaded.classes == tuple("0123456789")
