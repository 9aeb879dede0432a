"""Named data sets: the table, where they are found, and that nothing incomplete is used."""

import gzip
import hashlib
import shutil
import struct
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any, get_args

import pytest

from convae.config import schema
from convae.data import datasets
from convae.data import loading as data
from convae.errors import ConvaeError
from tests.conftest import served
from tests.data.conftest import SHAPE, assert_has, make_images, make_labels

SETTINGS = schema.Data(name="fashion_mnist")
NAMES: dict[str, Any] = {"name": "no_such_set"}  # a name that the schema does not have
NEW_SET = schema.Data.model_construct(**NAMES)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of four files that are Fashion-MNIST during a test."""
    folder = tmp_path / "published"
    folder.mkdir()
    archives: dict[str, str] = {}
    hashes: dict[Any, str] = {}
    for split, prefix, count in (("train", "train", 20), ("test", "t10k", 10)):
        x = make_images(count, seed=count)
        hashes[split] = hashlib.sha256(x.data).hexdigest()
        for name, magic, content in (
            ("images-idx3", struct.pack(">4I", 0x803, count, 6, 5), x.tobytes()),
            ("labels-idx1", struct.pack(">2I", 0x801, count), make_labels(count, 10).tobytes()),
        ):
            path = folder / f"{prefix}-{name}-ubyte.gz"
            path.write_bytes(gzip.compress(magic + content, mtime=0))
            archives[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    row = replace(
        datasets.DATASETS["fashion_mnist"], files=archives, images_sha256=hashes, url="http://127.0.0.1:9",
        packages={"Debian's dataset-fashion-mnist": tmp_path / "debian"},
    )  # fmt: skip
    monkeypatch.setitem(datasets.DATASETS, "fashion_mnist", row)
    return folder


@pytest.fixture
def server(files: Path) -> Iterator[str]:
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    with served(partial(Handler, directory=str(files))) as url:
        yield url


def test_schema_and_table_have_the_same_names() -> None:
    field = schema.Data.model_fields["name"]
    assert get_args(field.annotation) == tuple(datasets.DATASETS)
    with pytest.raises(ConvaeError, match=r"^data\.name: must be one of mnist, .*no_such_set"):
        data.load_training(NEW_SET, SHAPE)


def test_a_further_data_set_is_one_row(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(
        datasets.DATASETS["fashion_mnist"], display_name="New Set", cache="no-such-set",
        classes=tuple("おきすつなはまやれを"),
    )  # fmt: skip
    monkeypatch.setattr(datasets, "DATASETS", {"no_such_set": row})
    with pytest.raises(ConvaeError, match="New Set was not found"):
        data.load_training(NEW_SET, SHAPE)
    shutil.copytree(files, row.cache_folder, dirs_exist_ok=True)
    loaded = data.load_training(NEW_SET, SHAPE)
    assert (loaded.name, loaded.is_sample, loaded.classes) == ("New Set", False, row.classes)


@pytest.mark.parametrize(
    "missing",
    [{"files": {}}, {"files": {"a": ""}}, {"images_sha256": {}}, {"sizes": {}}, {"classes": ()}],
)
def test_an_incomplete_row_is_refused(missing: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="MNIST: a data set needs"):
        replace(datasets.DATASETS["mnist"], **missing)  # type: ignore[arg-type]


def test_it_is_downloaded_to_keras_cache(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(datasets.DATASETS["fashion_mnist"], url=server)
    monkeypatch.setitem(datasets.DATASETS, "fashion_mnist", row)
    loaded = data.load_training(SETTINGS, SHAPE)
    assert (loaded.name, loaded.is_sample, loaded.notice) == ("Fashion-MNIST", False, None)
    assert (len(loaded.train), len(loaded.validation)) == (16, 4)
    assert loaded.classes == datasets.DATASETS["fashion_mnist"].classes
    assert row.cache_folder.name == "fashion-mnist"  # where Keras' own loader looks
    assert sorted(path.name for path in row.cache_folder.iterdir()) == sorted(row.files)
    assert len(data.load_test(schema.Data(name="fashion_mnist", download=False), SHAPE).test) == 10


def test_debians_package_is_found(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(files, tmp_path / "debian")
    monkeypatch.setenv("CONVAE_DATA", "mnist.npz")  # for MNIST only
    assert data.load_training(SETTINGS, SHAPE).name == "Fashion-MNIST"
    by_path = data.load_training(schema.Data(path=str(files)), SHAPE)
    assert by_path.name == "Fashion-MNIST"
    assert by_path.classes == datasets.DATASETS["fashion_mnist"].classes


def test_no_sample_replaces_it(files: Path) -> None:
    cache = datasets.DATASETS["fashion_mnist"].cache_folder
    shutil.copytree(files, cache)
    path = cache / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1] + b"x"))
    with pytest.raises(ConvaeError) as error:
        data.load_training(SETTINGS, SHAPE)
    assert_has(
        str(error.value),
        f"Keras' cache: {cache}: damaged or incomplete",
        "Debian's dataset-fashion-mnist: ",
        "download: http://127.0.0.1:9/train-images-idx3-ubyte.gz: ",
        "install Debian's dataset-fashion-mnist",
    )
    with pytest.raises(ConvaeError, match=r"data\.download is false"):
        data.load_training(schema.Data(name="fashion_mnist", download=False), SHAPE)


def test_without_its_test_split_it_is_not_used(files: Path, tmp_path: Path) -> None:
    shutil.copytree(files, tmp_path / "debian")
    (tmp_path / "debian" / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(ConvaeError, match=r"t10k-images-idx3-ubyte .* is missing"):
        data.load_training(SETTINGS, SHAPE)
    (tmp_path / "debian" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ConvaeError, match="images and labels of both splits"):
        data.load_training(SETTINGS, SHAPE)
