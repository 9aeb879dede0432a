"""Draw every picture of docs/transposed-convolution.md anew.

    python -m scripts.docs.lab_figures            into docs/images
    python -m scripts.docs.lab_figures FOLDER     elsewhere, to compare

The same versions of matplotlib and Pillow give the same bytes; a test fails when one is stale.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import PIL
from matplotlib.figure import Figure

from convae.config.loader import load_config
from convae.explain import charts, effects
from convae.explain import step_figures as figures
from convae.explain.cell_grid import write
from convae.explain.operation import ConvOptions
from convae.explain.worked_example import EXAMPLES, Case
from scripts.project import CONFIGS, IMAGES

# The article's layers with strides 2 and kernels of 3, which give checkerboards.
STRIDED = [
    *(f"model.{part}.{i}.padding=same" for part in ("encoder", "decoder") for i in range(3)),
    *(f"model.encoder.{i}.strides=2" for i in (0, 1)),
    *(f"model.decoder.{i}.strides=2" for i in (1, 2)),
]


def example(name: str) -> Figure:
    """Draw one of the article's examples on one sheet."""
    title, case = EXAMPLES[name]
    return figures.panels(case, title)


def steps(name: str, view: figures.View) -> list[Figure]:
    """Draw the steps of one of the article's examples."""
    title, case = EXAMPLES[name]
    return figures.frames(case, title, view)


def same(output_padding: tuple[int, int] | None) -> Figure:
    """Draw which cells `same` removes, with and without output_padding."""
    ones = np.ones((3, 3), int)
    return figures.panels(Case(ones, ones, ConvOptions((2, 2), "same", output_padding)))


SQUARE = np.arange(4).reshape(2, 2)
PICTURES: dict[str, Callable[[], Figure | Sequence[Figure]]] = {
    "basic.png": lambda: example("basic"),
    "basic-stride-2.png": lambda: figures.panels(
        Case(SQUARE, SQUARE, ConvOptions((2, 2))), "The basic operation with stride 2"
    ),
    "example-1.png": lambda: example("1"),
    "example-2.png": lambda: example("2"),
    "example-3.png": lambda: example("3"),
    "example-4.png": lambda: example("4"),
    "example-1.gif": lambda: steps("1", "copies"),
    "example-2.gif": lambda: steps("2", "copies"),
    "example-4.gif": lambda: steps("4", "zeros"),
    "same.png": lambda: same(None),
    "same-output-padding-0.png": lambda: same((0, 0)),
    "inverse.png": lambda: charts.adjoint(
        effects.adjoint(np.arange(9).reshape(3, 3), np.array([[1, 2], [2, 1]]))
    ),
    "overlap.png": lambda: charts.overlaps(
        effects.overlaps(load_config(CONFIGS / "mnist.yaml", STRIDED).model),
        "the article's model with strides 2",
    ),
    "checkerboard.png": lambda: charts.checkerboards(effects.checkerboards()),
    "upscale.png": lambda: charts.upscaling(effects.ring_image(9), 3),
}


def drawn_with() -> str:
    """Return the versions on which the pixels depend: others may draw letters differently."""
    return f"matplotlib {matplotlib.__version__}, Pillow {PIL.__version__}, {platform.machine()}\n"


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    for name, draw in PICTURES.items():
        print(write(draw(), folder / name))
    (folder / "drawn-with.txt").write_text(drawn_with())
