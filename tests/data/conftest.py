"""Arrays, files and refusals that the tests of data share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from convae.config import schema
from convae.data.loading import load_training
from convae.errors import ConvaeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

SHAPE = (6, 5, 1)


def make_images(count: int, shape: tuple[int, ...] = (6, 5), seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def make_labels(count: int, classes: int = 3) -> NDArray[np.uint8]:
    return (np.arange(count) % classes).astype(np.uint8)


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
