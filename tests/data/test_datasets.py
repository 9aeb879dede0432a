"""Fashion-MNIST: where it is looked for, and that nothing stands in for it."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import struct
from functools import partial
from http.server import SimpleHTTPRequestHandler
from typing import TYPE_CHECKING

import numpy as np
import pytest

from convae.config import schema as config
from convae.data import datasets as fashion
from convae.data import loading as data
from convae.errors import ConvaeError
from tests.conftest import served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHAPE = (6, 5, 1)
SETTINGS = config.Data(name="fashion_mnist")


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion, "DEBIAN", tmp_path / "debian")
    monkeypatch.setattr(fashion, "URL", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of four files that count as Fashion-MNIST for the length of a test."""
    folder = tmp_path / "published"
    folder.mkdir()
    archives, hashes = {}, {}
    for side, prefix, count in (("train", "train", 20), ("test", "t10k", 5)):
        x = np.random.default_rng(count).integers(0, 256, (count, 6, 5), np.uint8)
        hashes[side] = hashlib.sha256(x.data).hexdigest()
        for name, magic, content in (
            ("images-idx3", struct.pack(">4I", 0x803, count, 6, 5), x.tobytes()),
            ("labels-idx1", struct.pack(">2I", 0x801, count), bytes(i % 3 for i in range(count))),
        ):
            path = folder / f"{prefix}-{name}-ubyte.gz"
            path.write_bytes(gzip.compress(magic + content, mtime=0))
            archives[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(fashion, "FILES", archives)
    monkeypatch.setattr(fashion, "IMAGES", hashes)
    return folder


@pytest.fixture
def server(files: Path) -> Iterator[str]:
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    with served(partial(Handler, directory=str(files))) as url:
        yield url


def test_it_is_downloaded_into_the_cache_of_keras(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fashion, "URL", server)
    loaded = data.load_training(SETTINGS, SHAPE)
    assert (loaded.name, loaded.is_sample, loaded.notice) == ("Fashion-MNIST", False, None)
    assert (len(loaded.train), len(loaded.validation)) == (16, 4)
    assert loaded.classes == fashion.CLASSES
    folder = fashion.keras_datasets() / "fashion-mnist"  # where Keras' own loader looks
    assert sorted(path.name for path in folder.iterdir()) == sorted(fashion.FILES)
    monkeypatch.setattr(fashion, "URL", "http://127.0.0.1:9")
    assert len(data.load_test(SETTINGS, SHAPE).test) == 5


def test_debians_package_is_found(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(files, fashion.DEBIAN)
    monkeypatch.setenv("CONVAE_DATA", "mnist.npz")  # names MNIST, which was not asked for
    assert data.load_training(SETTINGS, SHAPE).name == "Fashion-MNIST"
    by_path = data.load_training(config.Data(path=str(files)), SHAPE)
    assert (by_path.name, by_path.classes) == ("Fashion-MNIST", fashion.CLASSES)


def test_nothing_stands_in_for_it(files: Path) -> None:
    cache = fashion.keras_datasets() / "fashion-mnist"
    shutil.copytree(files, cache)
    path = cache / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1] + b"x"))
    with pytest.raises(ConvaeError) as error:
        data.load_training(SETTINGS, SHAPE)
    for words in (
        f"Keras' cache: {cache}: not whole, or other files",
        "Debian package: ",
        "download: http://127.0.0.1:9/train-images-idx3-ubyte.gz: ",
        "dataset-fashion-mnist",
    ):
        assert words in str(error.value)
    with pytest.raises(ConvaeError, match=r"data\.download is false"):
        data.load_training(config.Data(name="fashion_mnist", download=False), SHAPE)


def test_without_its_test_part_it_is_not_taken(files: Path) -> None:
    shutil.copytree(files, fashion.DEBIAN)
    (fashion.DEBIAN / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(ConvaeError, match="images and labels of both parts"):
        data.load_training(SETTINGS, SHAPE)
