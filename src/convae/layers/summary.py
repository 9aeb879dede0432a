"""The model summary of a config: shapes, parameters, costs and warnings, before anything runs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from html import escape
from math import prod
from typing import Any

from convae.console import format_html_table, format_shape, format_table
from convae.layers import arithmetic
from convae.layers.arithmetic import Operation
from convae.layers.fixes import format_setting, smallest_fix
from convae.layers.spec import Layer, Model, Shape

FLOAT = 4  # bytes
MOST_PIXELS = 65_536  # along one axis of a layer's output
LEGEND = """\
Receptive field: input pixels on which one output depends. Crop: pixels removed at start, end.
Overlap: kernel copies that meet in one pixel; an uneven overlap causes checkerboard artifacts."""
NEEDS_ONEDNN = (
    "dilation in a transposed layer needs a GPU, or oneDNN on the CPU. TensorFlow turns oneDNN off "
    "on processors without AVX-512: convae turns it on, other programs need "
    "TF_ENABLE_ONEDNN_OPTS=1 before they import TensorFlow"
)

Pair = tuple[int, int]


@dataclass(frozen=True)
class LayerSummary:
    """One layer and its costs for one image."""

    name: str
    type: str  # its Keras layers
    input_shape: Shape  # with the channels of a skip
    output_shape: Shape  # zero or less where a kernel is larger than its input
    parameters: int
    macs: int = 0  # multiplications with an addition each, borders included
    activation_bytes: int = 0  # of the output in float32
    receptive_field: Pair = (1, 1)  # input pixels on which one output depends
    crop: tuple[Pair, Pair] | None = None  # ((top, bottom), (left, right)) of a transposed layer
    overlap: Pair | None = None  # fewest and most kernel copies in a pixel of a transposed layer

    @property
    def even(self) -> bool:
        """Whether every pixel away from the border gets equally many kernel copies."""
        return self.overlap is None or self.overlap[0] == self.overlap[1]


class ModelSummary:
    """The layers of a model, row by row, and their sums.

    Args:
        model: the section `model` of a config.
        output_shape: height, width and channels that the task requires; None: the input's.
        compresses: whether the code should be smaller than the image.
    """

    def __init__(
        self, model: Model, output_shape: Shape | None = None, *, compresses: bool = True
    ) -> None:
        self.model = model
        self.rows = _rows(model)
        self._target = output_shape or model.input_shape
        self._compresses = compresses

    @property
    def names(self) -> list[str]:
        """The name of each layer."""
        return [row.name for row in self.rows]

    @property
    def encoder(self) -> list[LayerSummary]:
        """The rows of the encoder."""
        return self.rows[: len(self.model.encoder)]

    @property
    def decoder(self) -> list[LayerSummary]:
        """The rows of the decoder."""
        return self.rows[len(self.model.encoder) :]

    @property
    def code_shape(self) -> Shape:
        """Height, width and channels of the code."""
        return self.encoder[-1].output_shape

    @property
    def code_size(self) -> int:
        """Numbers in the code of one image."""
        return prod(self.code_shape)

    @property
    def parameters(self) -> int:
        """Weights and biases of all layers."""
        return sum(row.parameters for row in self.rows)

    def find_problem(self) -> tuple[int, str] | None:
        """Return the index of the first layer that cannot run, and why; None if the model runs.

        The text ends with the table up to that layer.
        """
        rows, names = self.rows, self.names
        for name in names:
            if names.count(name) > 1:
                return names.index(name), f"two layers are called {name}"
        for i, (row, layer) in enumerate(zip(rows, self.model.layers, strict=True)):
            text = self._skip_problem(i) or next(
                (t for axis in (0, 1) if (t := layer.problem(row.input_shape[axis], axis))), None
            )
            text = text or _onednn_problem(row, layer)
            if text:
                return i, f"{row.name}: {text}\n\n{self.table(i)}"
        return _too_large(self.model.input_shape, rows) or self._wrong_output()

    def _skip_problem(self, index: int) -> str | None:
        """Return why the skip of a layer cannot join its input, None if it can."""
        skip, row = self.model.layers[index].skip, self.rows[index]
        if skip is None:
            return None
        if index < len(self.encoder):
            return "skip: only a layer of the decoder can have one"
        shapes = {r.name: r.output_shape for r in self.encoder}
        fitting = [name for name, shape in shapes.items() if shape[:2] == row.input_shape[:2]]
        hint = f"layers of that size: {', '.join(fitting) or 'none'}"
        if skip not in shapes:
            return f"skip: the encoder has no layer called {skip}; {hint}"
        if skip not in fitting:
            size, needed = format_shape(shapes[skip][:2]), format_shape(row.input_shape[:2])
            return f"skip: {skip} gives {size}, but the input is {needed}; {hint}"
        return None

    def _wrong_output(self) -> tuple[int, str] | None:
        shape, target, last = self.rows[-1].output_shape, self._target, len(self.rows) - 1
        if shape == target:
            return None
        fix = smallest_fix(self.model, self.names, target)
        required = "its input is" if target == self.model.input_shape else "the task requires"
        return last, (
            f"{self.names[-1]}: the decoder gives {format_shape(shape)}, but {required} "
            f"{format_shape(target)}; "
            + (f"suggested fix: {fix}" if fix else "no small change fixes it")
            + f"\n\n{self.table(last)}"
        )

    @cached_property
    def warnings(self) -> list[str]:
        """What runs but may disappoint, each with a suggested fix."""
        found = []
        code, image = self.code_size, prod(self.model.input_shape)
        if self._compresses and code > image:
            found.append(
                f"the code {format_shape(self.code_shape)} = {code:,} numbers is "
                f"{code / image:.2f} times as large as the image ({image:,}): nothing is "
                f"compressed; strides: 2 or fewer filters in {self.encoder[-1].name} would make "
                "it smaller"
            )
        for row, layer in zip(self.rows, self.model.layers, strict=True):
            found += [f"{row.name}: {text}" for text in _layer_warnings(row, layer)]
        return found

    def table(self, last: int | None = None) -> str:
        """Return the layers as Keras' summary shows them; `last` ends the table with an arrow."""
        rows = self.rows if last is None else self.rows[: last + 1]
        cells = [("Layer (type)", "Output Shape", "Param #")]
        cells.append(("input", str((None, *self.model.input_shape)), ""))
        for row in rows:
            shape = str((None, *row.output_shape))
            cells.append((f"{row.name} ({row.type})", shape, f"{row.parameters:,}"))
        total = sum(row.parameters for row in rows)
        return f"{format_table(cells, last, plain=True)}\nTotal params: {total:,}"

    def to_dict(self) -> dict[str, Any]:
        """Return the model summary for JSON."""
        return {
            "input_shape": self.model.input_shape,
            "layers": [asdict(row) | {"even": row.even} for row in self.rows],
            "parameters": self.parameters,
            "macs": sum(row.macs for row in self.rows),
            "activation_bytes": sum(row.activation_bytes for row in self.rows),
            "code_size": self.code_size,
            "code_ratio": round(self.code_size / prod(self.model.input_shape), 4),
            "warnings": self.warnings,
        }

    def __str__(self) -> str:
        """Return the model summary as text: table, sums, code and warnings."""
        return "\n\n".join([format_table(self._table_cells()), *self._notes()])

    def _repr_html_(self) -> str:
        """Return the model summary for a notebook."""
        notes = "".join(f"<p>{escape(note)}</p>" for note in self._notes())
        return format_html_table(self._table_cells()) + notes.replace("\n", "<br>")

    def _table_cells(self) -> list[tuple[str, ...]]:
        head = ("Layer", "Output shape", "Param #", "MACs", "Memory", "Receptive field", "Crop")
        cells = [(*head, "Overlap"), ("input", format_shape(self.model.input_shape), *[""] * 6)]
        return [*cells, *map(_cells, self.rows)]

    def _notes(self) -> list[str]:
        """Return the paragraphs below the table."""
        facts = self.to_dict()
        code, image = self.code_size, prod(self.model.input_shape)
        more = f"{code / image:.2f} times as many"
        compared = more if code > image else f"{image / code:.2f} times fewer"
        sums = (
            f"Total: {facts['parameters']:,} parameters, {facts['macs']:,} MACs and "
            f"{_memory(facts['activation_bytes'])} of activations for one image (float32)\n"
            f"Code: {format_shape(self.code_shape)} = {code:,} numbers for the "
            f"{image:,} of an image: {compared}"
        )
        warnings = "\n".join(f"Warning: {warning}" for warning in self.warnings)
        return [LEGEND, sums, *([warnings] if warnings else [])]


def layer_names(layers: Sequence[Layer]) -> list[str]:
    """Return the name of each layer: its own, or that of its type with a number."""
    names, counts = [], Counter[str]()
    for layer in layers:
        counts[layer.keras_name] += 1
        names.append(layer.name or f"{layer.keras_name}_{counts[layer.keras_name]}")
    return names


def _rows(model: Model) -> list[LayerSummary]:
    rows: list[LayerSummary] = []
    shape: Shape = model.input_shape
    before: tuple[list[tuple[int, Operation]], list[tuple[int, Operation]]] = ([], [])  # by axis
    for name, layer in zip(layer_names(model.layers), model.layers, strict=True):
        if layer.skip is not None:
            channels = next((r.output_shape[2] for r in rows if r.name == layer.skip), 0)
            shape = (*shape[:2], shape[2] + channels)
        for axis in (0, 1):
            before[axis].extend(layer.steps(shape[axis], axis))
        height, width = (layer.output_size(shape[axis], axis) for axis in (0, 1))
        output = (height, width, layer.output_channels(shape[2]))
        crops = overlap = None
        if layer.transposed:
            (down,), (across,) = layer.operations(0), layer.operations(1)
            crops = (arithmetic.crop(shape[0], *down), arithmetic.crop(shape[1], *across))
            a, b = (
                arithmetic.overlap(o.kernel_size, o.strides, o.dilation_rate)
                for o in (down, across)
            )
            overlap = (a[0] * b[0], a[1] * b[1])
        rows.append(
            LayerSummary(
                name,
                layer.label,
                input_shape=shape,
                output_shape=output,
                parameters=layer.parameters(shape[2]),
                macs=layer.macs(shape, output),
                activation_bytes=FLOAT * max(height, 0) * max(width, 0) * output[2],
                receptive_field=(
                    arithmetic.receptive_field(before[0]),
                    arithmetic.receptive_field(before[1]),
                ),
                crop=crops,
                overlap=overlap,
            )
        )
        shape = output
    return rows


def _too_large(input_shape: Shape, rows: Sequence[LayerSummary]) -> tuple[int, str] | None:
    """Return the largest layer and why, if this machine cannot train the model on single images.

    Training holds in float32 the parameters, their gradients, Adam's two moments, and for one image
    each layer's output and its gradient.
    """
    for i, row in enumerate(rows):
        if max(row.output_shape[:2]) > MOST_PIXELS:
            shape = format_shape(row.output_shape)
            return i, f"{row.name}: gives {shape}; {MOST_PIXELS:,} pixels are most"
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
    """Return the bytes of memory of this machine; 16 GiB if the system does not report it."""
    try:
        if hasattr(os, "sysconf"):  # not on Windows
            return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (OSError, ValueError):
        pass
    return 16 * 2**30


def _layer_warnings(row: LayerSummary, layer: Layer) -> Iterator[str]:
    steps = [list(layer.steps(row.input_shape[axis], axis)) for axis in (0, 1)]
    unused = [max(operation.unused(size) for size, operation in along) for along in steps]
    if max(unused) > 0:
        yield (
            f"the last {unused[0]} rows and {unused[1]} columns of its input are never used; "
            "padding: same, or an input size for which they are 0"
        )
    if row.overlap and not row.even:
        yield _overlap_warning(row.overlap, [along[0][1] for along in steps])
    empty = [max(operation.empty(size) for size, operation in along) for along in steps]
    if max(empty) > 0 and row.overlap and row.overlap[0] > 0:
        yield (
            f"dead border: the last {empty[0]} rows and {empty[1]} columns hold the bias alone; "
            "padding: same, or a smaller output_padding"
        )
    if layer.transposed and any(o.dilation_rate > 1 for along in steps for _, o in along):
        yield f"{NEEDS_ONEDNN}; a larger kernel needs neither"


def _onednn_problem(row: LayerSummary, layer: Layer) -> str | None:
    """Return why oneDNN computes wrong numbers, None if it does not.

    Its convolution of one channel to one column is wrong with these strides on processors with
    AVX-512 (TensorFlow 2.21); a transposed layer has it as gradient.
    """
    small, large = row.output_shape, row.input_shape
    if layer.transposed:
        small, large = large, small
    rows, columns = layer.kernel_strides
    if not (small[0] > 1 == small[1] == large[2] == rows < min(columns, layer.kernel_size[1])):
        return None
    kernel = [layer.kernel_size[0], large[1]]
    return (
        f"strides {(rows, columns)} between one channel and one column: TensorFlow's oneDNN "
        "computes it wrong on processors with AVX-512. Right are kernel_size: "
        f"{format_setting(kernel)}, strides: 1 and padding: valid"
    )


def _overlap_warning(overlap: Pair, axes: Sequence[Operation]) -> str:
    """Return the warning about dead pixels or checkerboards, with kernels that have neither."""
    kernel, strides = (tuple(getattr(o, key) for o in axes) for key in ("kernel_size", "strides"))
    smaller = [max(o.kernel_size // o.strides, 1) * o.strides for o in axes]
    larger = [-(-o.kernel_size // o.strides) * o.strides for o in axes]
    if overlap[0] == 0:
        return (
            f"dead pixels: kernel {kernel} is smaller than strides {strides}, so some pixels hold "
            f"the bias alone; kernel_size: {format_setting(smaller)}"
        )
    return (
        f"checkerboard risk: {overlap[0]} to {overlap[1]} kernel copies meet in a pixel, because "
        f"strides {strides} do not divide kernel {kernel}; kernel_size: {format_setting(larger)}"
        + (f" or {format_setting(smaller)}" if smaller != larger else "")
    )


def _cells(row: LayerSummary) -> tuple[str, ...]:
    named = row.name.startswith(row.type.lower()[:6])
    crop = " ".join(",".join(map(str, pair)) for pair in dict.fromkeys(row.crop or ()))
    overlap = "" if row.overlap is None else "-".join(map(str, dict.fromkeys(row.overlap)))
    return (
        row.name if named else f"{row.name} ({row.type})",
        format_shape(row.output_shape),
        f"{row.parameters:,}",
        f"{row.macs:,}",
        _memory(row.activation_bytes),
        format_shape(row.receptive_field),
        crop,
        overlap and f"{overlap} {'even' if row.even else 'UNEVEN'}",
    )


def _memory(count: int) -> str:
    return f"{count / 1024:,.1f} KiB" if count < 1024**2 else f"{count / 1024**2:,.1f} MiB"
