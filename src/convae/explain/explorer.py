"""The page with sliders: one HTML file, no server, no downloads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from convae.evaluation.html import render
from convae.explain.operation import ConvOptions
from convae.explain.worked_example import EXAMPLES, Case
from convae.files import write_output


def build_page() -> str:
    """Return the HTML of the page, with the article's examples as presets."""
    kernel = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]])
    start = Case(np.arange(1, 10).reshape(3, 3), kernel, ConvOptions((2, 2), "same"))
    presets = [
        {
            "title": title,
            "input": case.x.tolist(),
            "kernel": case.kernel.tolist(),
            "strides": case.options.strides[0],
            "padding": case.options.padding,
            "output_padding": case.options.output_padding and case.options.output_padding[0],
            "dilation_rate": case.options.dilation_rate[0],
        }
        for title, case in [("Stride 2, kernel 3, padding same", start), *EXAMPLES.values()]
        if not case.is_conv
    ]
    return render("explorer.html", presets=presets)


def write_page(path: str | Path) -> Path:
    """Write the page and return its path; FileError if it cannot be written."""
    return write_output(path, build_page().encode())
