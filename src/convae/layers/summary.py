"""A config's layers before anything runs: one row each, with shape, cost and verdict.

The arithmetic needs no TensorFlow, so sizes that do not fit are told before it is imported.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from convae.console import format_table
from convae.layers import arithmetic as sizes
from convae.layers.fixes import smallest_mend

if TYPE_CHECKING:
    from convae.layers.spec import Layer, Model

KERAS_NAMES = {
    "conv": ("conv2d", "Conv2D"),
    "conv_transpose": ("conv2d_transpose", "Conv2DTranspose"),
    "resize_conv": ("resize_conv2d", "UpSampling2D, Conv2D"),
    "depth_to_space": ("depth_to_space", "Conv2D, depth to space"),
}
FLOAT = 4  # bytes
MOST_PIXELS = 65_536  # along one axis of a layer's output
LEGEND = """Sees: pixels of the image that one output may hang on. Crop: pixels taken off start,end.
Overlap: kernel copies that meet in one pixel; uneven ones draw checkerboards."""

Shape = tuple[int, int, int]  # height, width, channels
Pair = tuple[int, int]


@dataclass(frozen=True)
class Row:
    """One layer and what it costs for one image."""

    name: str  # Keras'
    type: str
    input_shape: Shape  # with the channels of a skip
    output_shape: Shape
    parameters: int
    macs: int = 0  # multiplications with an addition each, for one image, borders included
    activation_bytes: int = 0  # of the output in float32
    receptive_field: Pair = (1, 1)  # pixels of the image that one output may hang on
    crop: tuple[Pair, Pair] | None = None  # ((top, bottom), (left, right)) of a transposed layer
    overlap: Pair | None = None  # fewest and most kernel copies in a pixel of a transposed layer

    @property
    def even(self) -> bool:
        """Whether every pixel away from the border gets equally many kernel copies."""
        return self.overlap is None or self.overlap[0] == self.overlap[1]


def layer_names(layers: Sequence[Layer]) -> list[str]:
    """A name for each layer: its own, or its type with a number, as in the reading's table."""
    names, counts = [], dict.fromkeys(KERAS_NAMES, 0)
    for layer in layers:
        counts[layer.type] += 1
        names.append(layer.name or f"{KERAS_NAMES[layer.type][0]}_{counts[layer.type]}")
    return names


def layer_rows(input_shape: Shape, layers: Sequence[Layer]) -> list[Row]:
    """The rows of `layers`; sizes of zero or less mean that a kernel does not fit its input."""
    rows: list[Row] = []
    shape = input_shape
    before: tuple[list[Any], list[Any]] = ([], [])  # for each axis, the operations so far
    for name, layer in zip(layer_names(layers), layers, strict=True):
        if layer.skip is not None:
            joined = next((row.output_shape[2] for row in rows if row.name == layer.skip), 0)
            shape = (*shape[:2], shape[2] + joined)
        ends = []
        for axis in (0, 1):
            size = shape[axis]
            for kind, options in sizes.operations(layer, axis):
                before[axis].append((kind, size, options))
                size = (sizes.conv_size if kind == "conv" else sizes.conv_transpose_size)(
                    size, **options
                )
            ends.append(size)
        height, width = ends
        dealt = prod(layer.strides) if layer.type == "depth_to_space" else 1
        weights = prod(layer.kernel_size) * shape[2] * layer.filters * dealt
        transposed = layer.type == "conv_transpose"
        # each element of a transposed layer's input, each of a convolution's output, meets a kernel
        small = transposed or layer.type == "depth_to_space"
        places = shape[0] * shape[1] if small else height * width
        seen = [sizes.receptive_field(operations) for operations in before]
        along = [sizes.layer_options(layer, axis) for axis in (0, 1)]
        rows.append(
            Row(
                name,
                KERAS_NAMES[layer.type][1],
                shape,
                (height, width, layer.filters),
                weights + layer.use_bias * layer.filters * dealt,
                macs=max(places, 0) * weights,
                activation_bytes=FLOAT * max(height, 0) * max(width, 0) * layer.filters,
                receptive_field=(seen[0], seen[1]),
                crop=_crop(shape, along) if transposed else None,
                overlap=_overlap(along) if transposed else None,
            )
        )
        shape = rows[-1].output_shape
    return rows


def _crop(shape: Shape, options: Sequence[dict[str, Any]]) -> tuple[Pair, Pair]:
    return sizes.crop(shape[0], **options[0]), sizes.crop(shape[1], **options[1])


def _overlap(options: Sequence[dict[str, Any]]) -> Pair:
    names = ("kernel_size", "strides", "dilation_rate")
    low, high = zip(*(sizes.overlap(*(o[name] for name in names)) for o in options), strict=True)
    return prod(low), prod(high)


def table(input_shape: Shape, rows: Sequence[Row], mark: int | None = None) -> str:
    """The layer table of the reading as text; row `mark` carries an arrow."""
    head = ("Layer (type)", "Output Shape", "Param #")
    cells = [("input", f"(None, {', '.join(map(str, input_shape))})", "")]
    cells += [
        (
            f"{r.name} ({r.type})",
            f"(None, {', '.join(map(str, r.output_shape))})",
            f"{r.parameters:,}",
        )
        for r in rows
    ]
    return (
        f"{format_table([head, *cells], mark)}\nTotal params: {sum(r.parameters for r in rows):,}"
    )


def check(
    input_shape: Shape,
    encoder: Sequence[Layer],
    decoder: Sequence[Layer],
    output_shape: Shape | None = None,
) -> tuple[int, str] | None:
    """None if the decoder gives `output_shape` (or the input's), else the layer and what is wrong.

    The layer is its place in encoder + decoder.
    """
    layers = [*encoder, *decoder]
    names = layer_names(layers)
    for name in names:
        if names.count(name) > 1:
            return names.index(name), f"two layers are called {name}"
    rows = layer_rows(input_shape, layers)
    for i, (row, layer) in enumerate(zip(rows, layers, strict=True)):
        text = _skip_problem(layer, row, rows[: len(encoder)], i) or _problem(layer, row)
        if text:
            return i, f"{row.name}: {text}\n\n{table(input_shape, rows[: i + 1], i)}"
    if found := too_large(input_shape, rows):
        return found
    wanted, shape = output_shape or input_shape, rows[-1].output_shape
    if shape == wanted:
        return None
    mend = smallest_mend(input_shape, layers, len(encoder), names, wanted)
    asked = "its input is" if wanted == input_shape else "the task asks for"
    text = f"{rows[-1].name}: the decoder gives {_by(shape)}, but {asked} {_by(wanted)}"
    text += f"; smallest mend: {mend}" if mend else "; no small change mends it"
    return len(rows) - 1, f"{text}\n\n{table(input_shape, rows, len(rows) - 1)}"


def _skip_problem(layer: Layer, row: Row, encoder: Sequence[Row], place: int) -> str | None:
    """Why a layer's skip cannot be joined to its input."""
    if layer.skip is None:
        return None
    if place < len(encoder):
        return "skip: only a layer of the decoder can take one"
    taken = next((r for r in encoder if r.name == layer.skip), None)
    fitting = [r.name for r in encoder if r.output_shape[:2] == row.input_shape[:2]]
    could = f"layers of that size: {', '.join(fitting) or 'none'}"
    if taken is None:
        return f"skip: the encoder has no layer called {layer.skip}; {could}"
    if taken.name not in fitting:
        return (
            f"skip: {layer.skip} gives {_by(taken.output_shape[:2])}, but is to be joined to "
            f"{_by(row.input_shape[:2])}; {could}"
        )
    return None


def too_large(input_shape: Shape, rows: Sequence[Row]) -> tuple[int, str] | None:
    """The layer at fault and why, if this machine cannot train the model even on single images.

    Counts in float32 the parameters, their gradient and Adam's two moments, and each layer's output
    and its gradient for one image.
    """
    for i, row in enumerate(rows):
        if max(row.output_shape[:2]) > MOST_PIXELS:
            return i, f"{row.name}: gives {_by(row.output_shape)}; {MOST_PIXELS:,} pixels are most"
    costs = [4 * FLOAT * row.parameters + 2 * row.activation_bytes for row in rows]
    need, there = sum(costs) + FLOAT * prod(input_shape), memory()
    if need <= there:
        return None
    i = costs.index(max(costs))
    return i, (
        f"{rows[i].name}: too large for this machine: training needs at least "
        f"{need / 2**30:,.1f} GiB, {costs[i] / 2**30:,.1f} GiB of it for this layer; there are "
        f"{there / 2**30:,.1f} GiB. Fewer filters, a smaller kernel or earlier strides need less"
    )


def memory() -> int:
    """Bytes of memory that this machine has; 16 GiB where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 16 * 2**30


def _problem(layer: Layer, row: Row) -> str | None:
    """Why Keras cannot run this layer on its input."""
    shape = row.input_shape
    for axis in (0, 1):
        options = sizes.layer_options(layer, axis)
        if layer.type == "conv_transpose":
            if text := sizes.problem(shape[axis], **options):
                return text
        elif layer.type == "conv" and sizes.conv_size(shape[axis], **options) < 1:
            return (
                f"the kernel {layer.kernel_size} at dilation {layer.dilation_rate} is larger than "
                f"its input of {shape[0]}x{shape[1]}; padding: same, a smaller kernel or an "
                "earlier stride of 1 would fit"
            )
    return None


def warnings(
    input_shape: Shape,
    encoder: Sequence[Layer],
    decoder: Sequence[Layer],
    *,
    compresses: bool = True,
) -> list[str]:
    """What will run and may still disappoint, each with its mend; for layers that pass `check`.

    `compresses` tells whether the code is meant to be smaller than the image.
    """
    layers = [*encoder, *decoder]
    rows = layer_rows(input_shape, layers)
    found = []
    code, image = prod(rows[len(encoder) - 1].output_shape), prod(input_shape)
    if compresses and code > image:
        found.append(
            f"the code {_by(rows[len(encoder) - 1].output_shape)} = {code:,} numbers is "
            f"{code / image:.2f} times as large as the image ({image:,}): nothing is "
            "compressed; strides: 2 or fewer filters in "
            f"{rows[len(encoder) - 1].name} would make it smaller"
        )
    for row, layer in zip(rows, layers, strict=True):
        found += [f"{row.name}: {text}" for text in _layer_warnings(row, layer)]
    return found


def _layer_warnings(row: Row, layer: Layer) -> list[str]:
    shape = row.input_shape
    options = [sizes.layer_options(layer, axis) for axis in (0, 1)]
    if layer.type == "conv":
        unseen = [_unseen(shape[axis], options[axis]) for axis in (0, 1)]
        if max(unseen) > 0:
            return [
                f"its last {unseen[0]} rows and {unseen[1]} columns of input are never seen; "
                "padding: same, or an input size for which they are 0"
            ]
        return []
    if layer.type != "conv_transpose":
        return []
    found = []
    holes = row.overlap is not None and row.overlap[0] == 0
    if holes:
        found.append(
            f"dead pixels: kernel {layer.kernel_size} is smaller than strides {layer.strides}, so "
            f"there are pixels that hold the bias alone; kernel_size: {_multiples(layer)[0]}"
        )
    elif not row.even:
        smaller, larger = _multiples(layer)
        low, high = row.overlap or (1, 1)
        found.append(
            f"checkerboard risk: {low} to {high} kernel copies meet in a pixel, because strides "
            f"{layer.strides} do not divide kernel {layer.kernel_size}; kernel_size: {larger}"
            + (f" or {smaller}" if smaller != larger else "")
        )
    counts = [sizes.overlap_counts(shape[axis], **options[axis]) for axis in (0, 1)]
    dead = [next((i for i, c in enumerate(reversed(count)) if c), 0) for count in counts]
    if max(dead) > 0 and not holes:
        found.append(
            f"dead border: the last {dead[0]} rows and {dead[1]} columns hold the bias alone; "
            "padding: same, or a smaller output_padding"
        )
    if max(layer.dilation_rate) > 1:
        found.append(
            "dilation in a transposed layer needs a GPU, or oneDNN on the CPU "
            "(TF_ENABLE_ONEDNN_OPTS=1); a larger kernel needs neither"
        )
    return found


def _unseen(size: int, options: dict[str, Any]) -> int:
    first, _ = sizes.conv_padding(size, **options)
    last = (sizes.conv_size(size, **options) - 1) * options["strides"] - first
    unseen: int = size - last - sizes.extent(options["kernel_size"], options["dilation_rate"])
    return max(unseen, 0)


def _multiples(layer: Layer) -> tuple[Any, Any]:
    """The next smaller and larger kernel that the strides divide."""
    pairs = list(zip(layer.kernel_size, layer.strides, strict=True))
    smaller = [max(k // s, 1) * s for k, s in pairs]
    larger = [-(-k // s) * s for k, s in pairs]
    return (
        smaller[0] if smaller[0] == smaller[1] else smaller,
        larger[0] if larger[0] == larger[1] else larger,
    )


def summary(model: Model, *, compresses: bool = True) -> dict[str, Any]:
    """The whole ledger of a config's model, ready for JSON."""
    rows = layer_rows(model.input_shape, model.layers)
    code = prod(rows[len(model.encoder) - 1].output_shape)
    return {
        "input_shape": model.input_shape,
        "layers": [asdict(row) | {"even": row.even} for row in rows],
        "parameters": sum(row.parameters for row in rows),
        "macs": sum(row.macs for row in rows),
        "activation_bytes": sum(row.activation_bytes for row in rows),
        "code_size": code,
        "code_ratio": round(code / prod(model.input_shape), 4),
        "warnings": warnings(
            model.input_shape, model.encoder, model.decoder, compresses=compresses
        ),
    }


def describe(model: Model, *, compresses: bool = True) -> str:
    """The whole ledger of a config's model as text: table, sums, code, warnings with mends."""
    rows = layer_rows(model.input_shape, model.layers)
    head = ("Layer", "Output shape", "Param #", "MACs", "Memory", "Sees", "Crop", "Overlap")
    cells: list[tuple[str, ...]] = [("input", _by(model.input_shape), *[""] * 6)]
    cells += [_cells(row) for row in rows]
    whole = summary(model, compresses=compresses)
    lines = [format_table([head, *cells]), "", LEGEND, ""]
    lines.append(
        f"Total: {whole['parameters']:,} parameters, {whole['macs']:,} MACs and "
        f"{_memory(whole['activation_bytes'])} of activations for one image (float32)"
    )
    ratio = whole["code_ratio"]
    said = f"{ratio:.2f} times as many" if ratio > 1 else f"{1 / ratio:.2f} times fewer"
    lines.append(
        f"Code: {_by(rows[len(model.encoder) - 1].output_shape)} = {whole['code_size']:,} numbers "
        f"for the {prod(model.input_shape):,} of an image: {said}"
    )
    lines += ["", *(f"Warning: {text}" for text in whole["warnings"])] if whole["warnings"] else []
    return "\n".join(lines)


def _cells(row: Row) -> tuple[str, ...]:
    named = row.name.startswith(row.type.lower()[:6])
    crop = " ".join(",".join(map(str, pair)) for pair in dict.fromkeys(row.crop or ()))
    overlap = "" if row.overlap is None else "-".join(map(str, dict.fromkeys(row.overlap)))
    return (
        row.name if named else f"{row.name} ({row.type})",
        _by(row.output_shape),
        f"{row.parameters:,}",
        f"{row.macs:,}",
        _memory(row.activation_bytes),
        _by(row.receptive_field),
        crop,
        overlap and f"{overlap} {'even' if row.even else 'UNEVEN'}",
    )


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _memory(count: int) -> str:
    return f"{count / 1024:,.1f} KiB" if count < 1024**2 else f"{count / 1024**2:,.1f} MiB"
