"""Which settings lead from one size to another, and which input sizes does a decoder restore?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from convae.console import format_table
from convae.errors import ConfigError
from convae.layers import arithmetic as sizes
from convae.layers import fixes as mends
from convae.layers.arithmetic import (
    Padding,
    conv_padding,
    conv_size,
    conv_transpose_size,
    crop,
    extent,
    overlap,
    problem,
)
from convae.layers.spec import Model
from convae.layers.summary import layer_names

LARGEST = 65_536


@dataclass(frozen=True)
class AxisSetting:
    """One setting that leads from one size to another, along one axis."""

    type: Literal["conv", "conv_transpose"]
    kernel_size: int
    strides: int
    padding: Padding
    output_padding: int | None
    dilation_rate: int
    crop: tuple[int, int]  # of a conv: input pixels at the start and the end that no kernel sees
    even: bool

    @property
    def cost(self) -> float:
        """How far from the simplest: small kernels, no holes, even overlap, few options set."""
        holes = self.kernel_size < self.strides
        taps = 6 if self.kernel_size == 1 else self.kernel_size
        cost = 50 * holes + 6 * (self.dilation_rate - 1) + 4 * (not self.even) + taps
        return cost + 2 * (self.output_padding is not None) + 0.5 * (self.padding == "valid")


def find_settings(
    start: int, end: int, max_kernel: int = 15, max_strides: int = 8, max_dilation: int = 4
) -> list[AxisSetting]:
    """Every legal setting from `start` to `end` pixels, the simplest first.

    Conv2DTranspose where the size grows or stays, Conv2D where it shrinks.
    """
    for name, value in (("--from", start), ("--to", end)):
        if not 1 <= value <= LARGEST:
            raise ConfigError(f"{name} must be from 1 to {LARGEST:,}. Received: {value}")
    found = _conv_settings if end < start else _conv_transpose_settings
    limits = (max_kernel, max_strides, max_dilation)
    return sorted(found(start, end, *limits), key=lambda one: (one.cost, one.kernel_size))


def _grid(max_kernel: int, max_strides: int, max_dilation: int) -> Iterator[tuple[int, int, int]]:
    for kernel in range(1, max_kernel + 1):
        for step in range(1, max_strides + 1):
            # a single tap has no dilation, and Keras refuses strides and dilation together
            for dilation in range(1, 1 + (max_dilation if step == 1 < kernel else 1)):
                yield kernel, step, dilation


def _conv_transpose_settings(start: int, end: int, *limits: int) -> Iterator[AxisSetting]:
    paddings: tuple[Padding, ...] = ("same", "valid")
    for kernel, step, dilation in _grid(*limits):
        for padding in paddings:
            for extra in (None, *range(step)):
                setting = (kernel, step, padding, extra, dilation)
                if conv_transpose_size(start, *setting) == end and not problem(start, *setting):
                    low, high = overlap(kernel, step, dilation)
                    off = crop(start, *setting)
                    yield AxisSetting(
                        "conv_transpose", kernel, step, padding, extra, dilation, off, low == high
                    )


def _conv_settings(start: int, end: int, *limits: int) -> Iterator[AxisSetting]:
    paddings: tuple[Padding, ...] = ("same", "valid")
    for kernel, step, dilation in _grid(*limits):
        for padding in paddings:
            if conv_size(start, kernel, step, padding, dilation) == end:
                low, high = overlap(kernel, step, dilation)
                before, _ = conv_padding(start, kernel, step, padding, dilation)
                seen = (end - 1) * step + extent(kernel, dilation) - before
                unseen = (0, max(start - seen, 0))
                yield AxisSetting(
                    "conv", kernel, step, padding, None, dilation, unseen, low == high
                )


def setting_facts(way: AxisSetting) -> dict[str, Any]:
    """A setting for JSON, with PyTorch's (padding, output_padding) or null beside it."""
    facts = asdict(way)
    facts["pytorch"] = None
    if way.type == "conv_transpose":
        facts["pytorch"] = sizes.pytorch(way.crop, way.strides, way.dilation_rate)
    return facts


def settings_table(
    start: int, end: int, found: Sequence[AxisSetting], limits: str, most: int | None
) -> str:
    """The settings as a table, the simplest first."""
    if not found:
        return f"{start} -> {end}: no single layer does it ({limits}); two layers may"
    layer = "Conv2D" if found[0].type == "conv" else "Conv2DTranspose"
    count = "1 setting" if len(found) == 1 else f"{len(found)} settings"
    note = " (a transposed convolution never shrinks)" if layer == "Conv2D" else ""
    head = ("kernel_size", "strides", "padding", "output_padding", "dilation_rate")
    crop = "unseen" if layer == "Conv2D" else "crop"
    cells = [(*head, crop, "overlap", "PyTorch's")]
    for way in found[:most]:
        pytorch = sizes.pytorch(way.crop, way.strides, way.dilation_rate)
        beside = "none" if pytorch is None else f"p={pytorch[0]} op={pytorch[1]}"
        cells.append(
            (
                str(way.kernel_size),
                str(way.strides),
                way.padding,
                str(way.output_padding),
                str(way.dilation_rate),
                f"{way.crop[0]},{way.crop[1]}",
                "even" if way.even else "UNEVEN",
                "" if layer == "Conv2D" else beside,
            )
        )
    lines = [f"{start} -> {end}: {count} of {layer}{note}, the simplest first ({limits})", ""]
    lines.append(format_table(cells))
    if most is not None and len(found) > most:
        lines.append(f"... and {len(found) - most} more: --all")
    return "\n".join(lines)


def through(model: Model, output_shape: tuple[int, int, int], wanted: str) -> list[dict[str, Any]]:
    """For each size: its way through a config's layers, whether it comes back, and how it would."""
    match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", wanted.strip())
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= low <= high or high - low > 200:
        raise ConfigError(f"--sizes must be A-B with A up to B, at most 200. Received: {wanted!r}")
    factor, channels = output_shape[0] // model.input_shape[0], output_shape[2]
    names = layer_names(model.layers)
    found = []
    for size in range(low, high + 1):
        chain = mends.chain(size, model.layers)
        back = mends.comes_back(size, model.layers, factor=factor)
        facts: dict[str, Any] = {"size": size, "sizes": chain, "comes_back": back}
        if not back:
            shape = (size, size, model.input_shape[2])
            target = (factor * size, factor * size, channels)
            facts["mend"] = mends.smallest_mend(
                shape, model.layers, len(model.encoder), names, target
            )
            facts["resize_to"] = mends.nearest_sizes(size, model.layers, factor=factor)
        found.append(facts)
    return found


def through_told(config: str, found: Sequence[dict[str, Any]]) -> str:
    """What `through` found, a line a size."""
    back = sum(facts["comes_back"] for facts in found)
    lines = [f"{config}: {back} of {len(found)} sizes come back", ""]
    for facts in found:
        way = " -> ".join(map(str, facts["sizes"]))
        if facts["comes_back"]:
            lines.append(f"{facts['size']:>4}  comes back  {way}")
            continue
        resize = " or ".join(map(str, facts["resize_to"]))
        mend = facts["mend"] or "no small change mends it"
        lines.append(f"{facts['size']:>4}  DOES NOT    {way}")
        lines.append(f"      {mend}{f'; or resize to {resize}' if resize else ''}")
    return "\n".join(lines)
