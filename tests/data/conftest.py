"""Arrays, files, refusals and the missing network that the tests of data share."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from convae.config import schema
from convae.data import datasets
from convae.data.loading import load_training
from convae.errors import ConvaeError

SHAPE = (6, 5, 1)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(datasets.DATASETS["mnist"], url="http://127.0.0.1:9")
    monkeypatch.setitem(datasets.DATASETS, "mnist", row)
    monkeypatch.setattr(datasets, "_failed_downloads", {})
    monkeypatch.setenv("no_proxy", "*")


def make_images(count: int, shape: tuple[int, ...] = (6, 5), seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def make_labels(count: int, classes: int = 3) -> NDArray[np.uint8]:
    return (np.arange(count) % classes).astype(np.uint8)


def npy_header(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def assert_has(text: str | None, *parts: str) -> None:
    assert text
    for part in parts:
        assert part in text


def refusal(path: str | Path, shape: tuple[int, int, int] = SHAPE, **settings: Any) -> str:
    with pytest.raises(ConvaeError) as error:
        load_training(schema.Data(path=str(path), **settings), shape)
    assert str(error.value).startswith("data.path: ")
    return str(error.value)


@pytest.fixture
def npz(tmp_path: Path) -> Callable[..., str]:
    def save(**arrays: Any) -> str:
        path = tmp_path / "own.npz"
        np.savez_compressed(path, **arrays)
        return str(path)

    return save
