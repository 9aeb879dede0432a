"""The reverse question, asked and told: which settings lead from A to B, and which sizes return?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from convae.config import load_config
from convae.errors import UserError
from convae.lab import mends, sizes
from convae.lab.ledger import columns, layer_names

LARGEST = 65_536


def ways(
    start: int, end: int, max_kernel: int, max_strides: int, max_dilation: int
) -> list[sizes.Way]:
    """`sizes.ways` for sizes that somebody typed; raises UserError for sizes that are none."""
    for name, value in (("--from", start), ("--to", end)):
        if not 1 <= value <= LARGEST:
            raise UserError(f"{name} must be from 1 to {LARGEST:,}. Received: {value}")
    return sizes.ways(start, end, max_kernel, max_strides, max_dilation)


def way_facts(way: sizes.Way) -> dict[str, Any]:
    """A setting for JSON, with PyTorch's (padding, output_padding) or null beside it."""
    facts = asdict(way)
    facts["pytorch"] = None
    if way.type == "conv_transpose":
        facts["pytorch"] = sizes.pytorch(way.crop, way.strides, way.dilation_rate)
    return facts


def ways_told(
    start: int, end: int, found: Sequence[sizes.Way], limits: str, most: int | None
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
    lines.append(columns(cells))
    if most is not None and len(found) > most:
        lines.append(f"... and {len(found) - most} more: --all")
    return "\n".join(lines)


def through(config: str, overrides: Sequence[str], wanted: str) -> list[dict[str, Any]]:
    """For each size: its way through a config's layers, whether it comes back, and how it would."""
    match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", wanted.strip())
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= low <= high or high - low > 200:
        raise UserError(f"--sizes must be A-B with A up to B, at most 200. Received: {wanted!r}")
    loaded = load_config(config, overrides)
    model, channels = loaded.model, loaded.output_shape[2]
    factor = loaded.output_shape[0] // model.input_shape[0]
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
