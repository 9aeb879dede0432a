"""One worked example: an input and a kernel, parsed from text, computed, and formatted as text."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np

from convae.arrays import Array
from convae.console import format_shape
from convae.errors import ConfigError
from convae.explain import operation
from convae.explain.operation import DEFAULT_OPTIONS, ConvOptions, Method, Pair, Pairs
from convae.layers import arithmetic

MAX_SIDE = 64  # rows or columns of a matrix that is typed in
MAX_COPIES = 16  # that are printed one by one


@dataclass(frozen=True)
class Case:
    """A matrix x (h, w), a kernel (kh, kw) and the operation on them.

    Raises:
        ConfigError: Keras refuses these options.
    """

    x: Array
    kernel: Array
    options: ConvOptions = DEFAULT_OPTIONS
    operation: Literal["conv", "conv_transpose"] = "conv_transpose"

    def __post_init__(self) -> None:
        check = self.options.check_conv if self.is_conv else self.options.check_transpose
        check(self.size, self.kernel_size)

    @property
    def is_conv(self) -> bool:
        """Whether this is a convolution rather than a transposed one."""
        return self.operation == "conv"

    @property
    def size(self) -> Pair:
        """Rows and columns of the input."""
        return self.x.shape[0], self.x.shape[1]

    @property
    def kernel_size(self) -> Pair:
        """Rows and columns of the kernel."""
        return self.kernel.shape[0], self.kernel.shape[1]

    @property
    def crops(self) -> Pairs:
        """What a transposed convolution crops off its canvas: ((top, bottom), (left, right))."""
        return self.options.crops(self.size, self.kernel_size)

    @property
    def added_zeros(self) -> Pairs:
        """The zeros that a transposed convolution adds to its canvas: its negative crops."""
        (top, bottom), (left, right) = self.crops
        return (max(-top, 0), max(-bottom, 0)), (max(-left, 0), max(-right, 0))

    def result(self) -> Array:
        """Return the output, a matrix."""
        run = operation.conv if self.is_conv else operation.conv_transpose
        return run(self.x, self.kernel, self.options)

    def canvas(self) -> Array:
        """Return the sum of all scaled copies before the crop."""
        return self._uncropped(operation.transpose_by_copies)

    def zero_grid(self) -> Array:
        """Return the input with zeros between its elements and k' - 1 rings around, uncropped."""
        return self._uncropped(operation.zero_grid)

    def padded(self) -> Array:
        """Return a convolution's input with its zeros around it."""
        return np.pad(self.x, self.options.conv_pads(self.size, self.kernel_size))

    def copies(self) -> list[tuple[Pair, dict[Pair, Any]]]:
        """Return each element's place in x and its scaled copy, as numbers by canvas cell."""
        down, right = self.options.dilation_rate
        taps = list(np.ndindex(self.kernel_size))
        return [
            (place, {(top + i * down, left + j * right): copy[0, i, j, 0] for i, j in taps})
            for place, (top, left), copy in operation.scaled_copies(*self._batch(), self.options)
        ]

    def _uncropped(self, run: Method) -> Array:
        uncropped = replace(self.options, padding=0, output_padding=None)
        result: Array = run(*self._batch(), uncropped)[0, :, :, 0]
        return result

    def _batch(self) -> tuple[Array, Array]:
        return self.x[None, :, :, None], self.kernel[:, :, None, None]

    def format_title(self) -> str:
        """Return the options in one line."""
        words = [f"{format_shape(self.size)} input", f"{format_shape(self.kernel_size)} kernel"]
        words += [f"strides {_format_pair(self.options.strides)}"]
        words += [f"padding {self.options.padding}"]
        if self.options.output_padding is not None:
            words.append(f"output_padding {_format_pair(self.options.output_padding)}")
        if self.options.dilation_rate != (1, 1):
            words.append(f"dilation_rate {_format_pair(self.options.dilation_rate)}")
        return f"{'Conv2D' if self.is_conv else 'Conv2DTranspose'}: {', '.join(words)}"

    def format_formula(self, axis: int) -> str:
        """Return the rule for the output's size along one axis, also with its numbers."""
        i, s = self.size[axis], self.options.strides[axis]
        k = self.options.extents(self.kernel_size)[axis]
        padding = self.options.padding
        p = 0 if isinstance(padding, str) else padding
        if self.is_conv:
            size = self.options.conv_size(self.size, self.kernel_size)[axis]
            if padding == "same":
                return f"ceil(i / s) = ceil({i} / {s}) = {size}"
            return f"floor((i + 2p − k) / s) + 1 = floor(({i} + {2 * p} − {k}) / {s}) + 1 = {size}"
        size = self.options.transpose_size(self.size, self.kernel_size)[axis]
        extra = self.options.output_padding and self.options.output_padding[axis]
        if padding == "same" and extra is None:
            return f"i·s = {i}·{s} = {size}"
        if padding == "same":
            terms = [("+ k mod 2", f"+ {k % 2}")]
        elif padding == "valid":
            terms = [("+ max(k, s)", f"+ {max(k, s)}") if extra is None else ("+ k", f"+ {k}")]
        else:
            terms = [("− 2p + k", f"− {2 * p} + {k}")]
        if extra or (extra == 0 and isinstance(padding, str)):
            terms.append(("+ op", f"+ {extra}"))
        rule, numbers = (" ".join(side) for side in zip(*terms, strict=True))
        return f"(i−1)·s {rule} = {i - 1}·{s} {numbers} = {size}"

    def format_sizes(self) -> str:
        """Return the formula for both axes, once if they are equal."""
        rows, columns = self.format_formula(0), self.format_formula(1)
        equal = rows == columns
        text = f"rows and columns: {rows}" if equal else f"rows: {rows}; columns: {columns}"
        if self.options.dilation_rate != (1, 1):
            extents = _format_pair(self.options.extents(self.kernel_size))
            text += f"; at this dilation the kernel covers k = {extents}"
        return text

    def format_crop(self) -> str:
        """Return the crop and the added zeros as text; "" if there are none."""
        sides = [n for pair in self.crops for n in pair]
        if sides[0] > 0 and len(set(sides)) == 1:
            return f"{sides[0]} cropped on each side"
        names = ("the top", "the bottom", "the left", "the right")
        texts = []
        for verb, sign in (("cropped", 1), ("zeros added", -1)):
            counts = zip(sides, names, strict=True)
            if words := [f"{n * sign} at {name}" for n, name in counts if n * sign > 0]:
                texts.append(f"{verb}: {', '.join(words)}")
        return "; ".join(texts)


def _examples() -> dict[str, tuple[str, Case]]:
    small, square = np.arange(4).reshape(2, 2), np.arange(9).reshape(3, 3) + 1
    kernel = np.array([[1, 2], [3, 4]])
    six, five = np.arange(36).reshape(6, 6) % 9 + 1, np.arange(25).reshape(5, 5) % 9 + 1
    one, two, padded = (ConvOptions((s, s), p) for s, p in ((1, 0), (2, 0), (2, 1)))
    article = {
        "a convolution with stride 2 and padding 1": Case(six, kernel, padded, "conv"),
        "a transposed convolution with stride 2, without padding": Case(square, kernel, two),
        "a transposed convolution with stride 1, without padding": Case(five, kernel, one),
        "a transposed convolution with stride 2 and padding 1": Case(square, kernel, padded),
    }
    examples = {"basic": ("The basic operation", Case(small, small))}
    for number, (title, case) in enumerate(article.items(), 1):
        examples[str(number)] = (f"Example {number}: {title}", case)
    return examples


EXAMPLES = _examples()  # of the article, by its numbers


# ---- parse text ----------------------------------------------------------------------------------


def parse_matrix(text: str, name: str) -> Array:
    """Return a matrix written as "1 2; 3 4", commas allowed; int64 if all numbers are integers.

    Raises:
        ConfigError: Rows of different lengths, text that is no number, or more than 64x64.
    """
    rows = [re.split(r"[\s,]+", row.strip()) for row in re.split(r"[;\n]", text.strip().strip(";"))]
    values = [
        [_parse_number(word, name, r, c) for c, word in enumerate(row)]
        for r, row in enumerate(rows)
    ]
    lengths = [len(row) for row in values]
    if len(set(lengths)) > 1:
        wrong = next(i for i, n in enumerate(lengths) if n != lengths[0])
        raise ConfigError(
            f"{name}: every row needs as many numbers as the first. Row 1 has {lengths[0]}, "
            f'row {wrong + 1} has {lengths[wrong]}. Received: "{text}"'
        )
    if max(len(values), lengths[0]) > MAX_SIDE:
        raise ConfigError(
            f"{name}: at most {MAX_SIDE}x{MAX_SIDE}. "
            f"Received: {format_shape((len(values), lengths[0]))}"
        )
    integers = all(isinstance(v, int) for row in values for v in row)
    return np.array(values, np.int64 if integers else np.float64)


def _parse_number(word: str, name: str, row: int, column: int) -> int | float:
    try:
        value: int | float = int(word) if re.fullmatch(r"[-+]?\d+", word) else float(word)
        if not math.isfinite(value) or abs(value) > 1e6:
            raise ValueError
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{name}: row {row + 1}, column {column + 1} must be a number up to a million, as in "
            f'"1 2; 3 4". Received: {word!r}'
        ) from None
    return value


def parse_pair(text: str, name: str, least: int = 0) -> Pair:
    """Return one integer for both axes, or two: "2" or "2,3"; ConfigError below `least`."""
    words = re.split(r"[\s,x]+", text.strip())
    if len(words) > 2 or not all(re.fullmatch(r"-?\d{1,4}", w) for w in words):
        raise ConfigError(f"{name} must be an integer, or two as in 2,3. Received: {text!r}")
    values = int(words[0]), int(words[-1])
    if min(values) < least:
        raise ConfigError(f"{name} must be {least} or more. Received: {text!r}")
    return values


def parse_padding(text: str) -> arithmetic.Padding | int:
    """Return "valid", "same" or a number; ConfigError for anything else."""
    if text in ("valid", "same"):
        return cast(arithmetic.Padding, text)
    if re.fullmatch(r"\d{1,4}", text):
        return int(text)
    raise ConfigError(f"padding must be valid, same, or a number from 0 up. Received: {text!r}")


# ---- format text ---------------------------------------------------------------------------------


def _format_pair(values: Pair) -> str:
    return str(values[0]) if values[0] == values[1] else format_shape(values)


def format_cell(value: Any) -> str:
    """Return a number for one cell: integers as such, others in three digits."""
    return f"{int(value)}" if float(value).is_integer() and abs(value) < 1e7 else f"{value:.3g}"


def format_grid(values: Array, crops: Pairs | None = None) -> list[str]:
    """Return a matrix as right-aligned lines; what `crops` removes stands outside a frame."""
    words = [[format_cell(v) for v in row] for row in values]
    width = max(len(w) for row in words for w in row)
    if crops is None:
        return [" ".join(f"{w:>{width}}" for w in row) for row in words]
    (top, bottom), (left, right) = (tuple(max(n, 0) for n in side) for side in crops)
    rows, columns = len(words), len(words[0])
    lines = []
    for r, row in enumerate(words):
        inside = top <= r < rows - bottom
        edges = ["|" if inside and c in (left, columns - right) else " " for c in range(columns)]
        line = "".join(f"{edge}{w:>{width}}" for edge, w in zip(edges, row, strict=True))
        lines.append(line + ("|" if inside and right == 0 else " "))
    frame = "+" + "-" * ((columns - left - right) * (width + 1) - 1) + "+"
    rule = " " * (left * (width + 1)) + frame
    lines.insert(top, rule)
    lines.insert(rows - bottom + 1, rule)
    return lines


def join_blocks(blocks: Sequence[tuple[str, list[str]]], gap: int = 4, width: int = 96) -> str:
    """Return titled blocks of lines side by side, in rows of at most `width` characters."""
    rows: list[list[list[str]]] = []
    used = width + 1
    for block in ([title, *lines] for title, lines in blocks):
        size = max(map(len, block))
        if used + size + gap > width:
            rows.append([])
            used = 0
        rows[-1].append([f"{line:<{size}}" for line in block])
        used += size + gap
    texts = []
    for row in rows:
        height = max(len(block) for block in row)
        filled = [block + [" " * len(block[0])] * (height - len(block)) for block in row]
        texts.append(
            "\n".join((" " * gap).join(line).rstrip() for line in zip(*filled, strict=True))
        )
    return "\n\n".join(texts)


def format_case(case: Case) -> str:
    """Return the example as text: sizes, each step, the crop, the result."""
    lines = [case.format_title(), case.format_sizes(), ""]
    blocks = [("input", format_grid(case.x)), ("kernel", format_grid(case.kernel))]
    result = ("result", format_grid(case.result()))
    if case.is_conv:
        blocks += [("padded input", format_grid(case.padded())), result]
        return "\n".join([*lines, join_blocks(blocks)])
    lines += [join_blocks(blocks), ""]
    if case.x.size <= MAX_COPIES:
        lines += [join_blocks(_format_copies(case)), ""]
    crop = case.format_crop()
    title = f"sum, {crop}" if crop else "sum of the copies"
    canvas = format_grid(case.canvas(), case.crops if crop else None)
    return "\n".join([*lines, join_blocks([(title, canvas), result])])


def _format_copies(case: Case) -> list[tuple[str, list[str]]]:
    rows, columns = case.canvas().shape
    width = max(len(format_cell(v)) for v in np.outer(case.x, case.kernel).ravel())
    blocks = []
    for number, (place, cells) in enumerate(case.copies(), 1):
        words = {cell: format_cell(value) for cell, value in cells.items()}
        lines = [
            " ".join(f"{words.get((r, c), '.'):>{width}}" for c in range(columns))
            for r in range(rows)
        ]
        blocks.append((f"{number}: {format_cell(case.x[place])} × kernel", lines))
    return blocks
