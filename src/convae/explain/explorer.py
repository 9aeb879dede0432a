"""The page with sliders: one HTML file, no server, nothing loaded from anywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from convae.errors import ConfigError
from convae.evaluation.html import render
from convae.explain.operation import ConvOptions
from convae.explain.worked_example import EXAMPLES, Case
from convae.files import write_atomic


def build_page() -> str:
    """The HTML of the page, the reading's examples as presets in it."""
    start = Case(
        np.arange(1, 10).reshape(3, 3),
        np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]),
        ConvOptions((2, 2), "same"),
    )
    presets = [
        {
            "title": title,
            "input": case.x.tolist(),
            "kernel": case.kernel.tolist(),
            "strides": case.setting.strides[0],
            "padding": case.setting.padding,
            "output_padding": case.setting.output_padding and case.setting.output_padding[0],
            "dilation_rate": case.setting.dilation_rate[0],
        }
        for title, case in [("Stride 2, kernel 3, padding same", start), *EXAMPLES.values()]
        if case.operation == "conv_transpose"
    ]
    return render("explorer.html", presets=presets)


def write_page(path: str | Path) -> Path:
    """Write the page, whole or not at all. Raises ConfigError if it cannot be written there."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, build_page().encode())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from None
    return path
