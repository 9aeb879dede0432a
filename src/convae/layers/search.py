"""Settings that lead from one size to another, and input sizes that a decoder restores."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from convae.console import format_table
from convae.errors import ConfigError
from convae.layers import arithmetic
from convae.layers.arithmetic import ConvAxis, ConvTransposeAxis, Operation, Padding
from convae.layers.fixes import nearest_restored_sizes, restores, sizes_through, smallest_fix
from convae.layers.spec import Conv, ConvTranspose, Model, Shape
from convae.layers.summary import NEEDS_ONEDNN, layer_names

LARGEST = 65_536
PADDINGS: tuple[Padding, ...] = ("same", "valid")


@dataclass(frozen=True)
class AxisSetting:
    """One setting that leads from one size to another, along one axis."""

    type: str  # of the layer
    kernel_size: int
    strides: int
    padding: Padding
    output_padding: int | None
    dilation_rate: int
    crop: tuple[int, int]  # of a convolution: unused input pixels at the start and the end
    even: bool
    pytorch: tuple[int, int] | None = None  # its (padding, output_padding)

    @property
    def cost(self) -> float:
        """Distance from the simplest setting: small kernel, no holes, even overlap, few options."""
        holes = self.kernel_size < self.strides
        taps = 6 if self.kernel_size == 1 else self.kernel_size
        cost = 50 * holes + 6 * (self.dilation_rate - 1) + 4 * (not self.even) + taps
        return cost + 2 * (self.output_padding is not None) + 0.5 * (self.padding == "valid")


def find_settings(
    start: int, end: int, max_kernel: int = 15, max_strides: int = 8, max_dilation: int = 4
) -> list[AxisSetting]:
    """Return every legal setting from `start` to `end` pixels, the simplest first.

    They are settings of Conv2DTranspose if the size grows or stays, of Conv2D if it shrinks.
    """
    for name, value in (("--from", start), ("--to", end)):
        if not 1 <= value <= LARGEST:
            raise ConfigError(f"{name} must be from 1 to {LARGEST:,}. Received: {value}")
    shrinks = end < start
    found = []
    for kernel, step in product(range(1, max_kernel + 1), range(1, max_strides + 1)):
        # A single tap has no dilation, and Keras refuses strides and dilation together.
        for dilation in range(1, 1 + (max_dilation if step == 1 < kernel else 1)):
            low, high = arithmetic.overlap(kernel, step, dilation)
            for padding, extra in product(PADDINGS, (None,) if shrinks else (None, *range(step))):
                setting = (kernel, step, padding, extra, dilation)
                axis: Operation = ConvTransposeAxis(*setting)
                if shrinks:
                    axis = ConvAxis(kernel, step, padding, dilation)
                if axis.output_size(start) != end or axis.problem(start):
                    continue
                cropped = (0, axis.unused(start)) if shrinks else arithmetic.crop(start, *setting)
                same = None if shrinks else arithmetic.pytorch(cropped, step, dilation)
                name = "conv" if shrinks else "conv_transpose"
                found.append(AxisSetting(name, *setting, cropped, low == high, same))
    return sorted(found, key=lambda s: (s.cost, s.kernel_size))


def settings_table(
    start: int, end: int, found: Sequence[AxisSetting], limits: str, most: int | None
) -> str:
    """Return the first `most` settings as a table."""
    if not found:
        return f"{start} -> {end}: no single layer does it ({limits}); two layers may"
    shrinks = end < start
    layer = (Conv if shrinks else ConvTranspose).label
    count = "1 setting" if len(found) == 1 else f"{len(found)} settings"
    note = " (a transposed convolution never shrinks)" if shrinks else ""
    head = ("kernel_size", "strides", "padding", "output_padding", "dilation_rate")
    cells: list[tuple[str, ...]] = [(*head, "unused" if shrinks else "crop", "overlap", "PyTorch")]
    for setting in found[:most]:
        pair = setting.pytorch
        options = [str(getattr(setting, name)) for name in head]
        cropped = f"{setting.crop[0]},{setting.crop[1]}"
        padding = f"p={pair[0]} op={pair[1]}" if pair else "" if shrinks else "none"
        cells.append((*options, cropped, "even" if setting.even else "UNEVEN", padding))
    lines = [f"{start} -> {end}: {count} of {layer}{note}, the simplest first ({limits})", ""]
    lines.append(format_table(cells))
    if most is not None and len(found) > most:
        lines.append(f"... and {len(found) - most} more: --all")
    if not shrinks and any(setting.dilation_rate > 1 for setting in found[:most]):
        lines.append(NEEDS_ONEDNN)
    return "\n".join(lines)


def restored_sizes(model: Model, output_shape: Shape, sizes: str) -> list[dict[str, Any]]:
    """Return for each input size whether the decoder restores it, and the fix if it does not.

    Args:
        model: a config's model.
        output_shape: the output's shape that the task requires for `model.input_shape`.
        sizes: "A-B" or "A", at most 200 sizes.
    """
    match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", sizes.strip())
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= low <= high or high - low > 200:
        raise ConfigError(f"--sizes must be A-B with A up to B, at most 200. Received: {sizes!r}")
    factor, channels = output_shape[0] // model.input_shape[0], output_shape[2]
    layers, names = model.layers, layer_names(model.layers)
    found = []
    for size in range(low, high + 1):
        facts: dict[str, Any] = {"size": size, "sizes": sizes_through(size, layers)}
        facts["restored"] = restores(size, layers, factor)
        if not facts["restored"]:
            square = model.model_copy(update={"input_shape": (size, size, model.input_shape[2])})
            target = (factor * size, factor * size, channels)
            facts["fix"] = smallest_fix(square, names, target)
            facts["resize_to"] = nearest_restored_sizes(size, layers, factor)
        found.append(facts)
    return found


def format_restored_sizes(config: str, found: Sequence[dict[str, Any]]) -> str:
    """Return what `restored_sizes` found as text."""
    count = sum(facts["restored"] for facts in found)
    lines = [f"{config}: the decoder restores {count} of {len(found)} sizes", ""]
    for facts in found:
        sizes = " -> ".join(map(str, facts["sizes"]))
        if facts["restored"]:
            lines.append(f"{facts['size']:>4}  restored      {sizes}")
            continue
        resize = " or ".join(map(str, facts["resize_to"]))
        fix = facts["fix"] or "no small change fixes it"
        lines.append(f"{facts['size']:>4}  NOT RESTORED  {sizes}")
        lines.append(f"      {fix}{f'; or resize to {resize}' if resize else ''}")
    return "\n".join(lines)
