"""Make new images with a model whose decoder takes random codes, and write them as pictures."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from convae.console import progress_bar
from convae.files import check_folder, write_atomic
from convae.inference.predict import write_picture
from convae.plots import style
from convae.plots.image_grids import grid_of_images
from convae.tasks.task import to_bytes

if TYPE_CHECKING:
    from convae.runs.run import Run

SHOWN = 400  # images in the grid, at most


@dataclass(frozen=True)
class Samples:
    """The files that `sample` wrote."""

    folder: str
    count: int
    seed: int
    images: list[str]
    array: str
    grid: str


def sample(run: Run, count: int, seed: int = 0, output: Path | None = None) -> Samples:
    """Write images of random codes.

    Args:
        run: A run whose decoder generates images.
        count: The number of images.
        seed: The same seed gives the same images; a smaller count gives the first of them.
        output: The folder to write to, by default `samples` in the run's folder: a PNG for each
            image, `samples.npy` (count, H, W, C) as floats in [0, 1], and `samples.png`, a grid.

    Raises:
        RunError: The run has no weights.
        UnsupportedError: The run does not generate images.
        ConfigError: The count or the seed is not possible.
        FileError: The folder cannot be written.
    """
    folder = output or run.path / "samples"
    check_folder(folder)
    _ = run.best  # raises before TensorFlow's seconds of import
    from convae.inference.autoencoder import load

    images = load(run.path).sample(count, seed)
    pictures = to_bytes(images)
    digits = max(len(str(count - 1)), 3)
    paths = [folder / f"{index:0{digits}}.png" for index in range(count)]
    pairs = zip(paths, pictures, strict=True)
    for path, picture in progress_bar(pairs, total=count, desc="writing", unit=" images"):
        write_picture(path, picture)
    array = io.BytesIO()
    np.save(array, images)
    write_atomic(folder / "samples.npy", array.getvalue())
    subtitle = f"{run.config.name}, seed {seed}; the first {min(count, SHOWN):,} of {count:,}"
    grid = grid_of_images(pictures[:SHOWN], "Images of random codes", subtitle)
    style.save(grid, folder / "samples.png")
    return Samples(
        str(folder), count, seed, [str(path) for path in paths],
        str(folder / "samples.npy"), str(folder / "samples.png"),
    )  # fmt: skip


def format_samples(made: Samples) -> str:
    """Return the number of images and where they are."""
    return f"{made.count:,} images of seed {made.seed}, written to {made.folder}"
