"""One worked case, an input and a kernel of numbers: read from words, computed, told as text."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from convae.console import format_shape
from convae.errors import ConfigError
from convae.explain import operation as transpose
from convae.explain.operation import DEFAULT_OPTIONS, Array, ConvOptions, Pair
from convae.layers import arithmetic as sizes

LARGEST = 64  # rows or columns of a matrix that is typed in
Operation = Literal["conv", "conv_transpose"]


@dataclass(frozen=True)
class Case:
    """A matrix x (h, w), a kernel (kh, kw) and what is done with them."""

    x: Array
    kernel: Array
    setting: ConvOptions = DEFAULT_OPTIONS
    operation: Operation = "conv_transpose"

    def __post_init__(self) -> None:
        """Refuse what Keras refuses, as ConfigError, before anything is drawn."""
        if self.operation == "conv":
            self.setting.check_conv(self.size, self.kernel_size)
        else:
            self.setting.check(self.size, self.kernel_size)

    @property
    def size(self) -> Pair:
        """Rows and columns of the input."""
        return self.x.shape[0], self.x.shape[1]

    @property
    def kernel_size(self) -> Pair:
        """Rows and columns of the kernel."""
        return self.kernel.shape[0], self.kernel.shape[1]

    @property
    def crops(self) -> tuple[Pair, Pair]:
        """What a transposed convolution takes off its canvas: ((top, bottom), (left, right))."""
        return self.setting.crops(self.size, self.kernel_size)

    def result(self) -> Array:
        """The output, a matrix."""
        run = transpose.conv if self.operation == "conv" else transpose.conv_transpose
        return run(self.x, self.kernel, self.setting)

    def canvas(self) -> Array:
        """The sum of all scaled copies before anything is cut off."""
        return self._without_crops(transpose.transpose_by_copies)

    def zero_grid(self) -> Array:
        """The input with zeros between its elements and k' - 1 rings around, nothing cut off."""
        return self._without_crops(transpose.zero_grid)

    def padded(self) -> Array:
        """A convolution's input with its zeros around it."""
        return np.pad(self.x, self.setting.conv_pads(self.size, self.kernel_size))

    def _without_crops(self, run: transpose.Operation) -> Array:
        whole = replace(self.setting, padding=0, output_padding=None)
        result: Array = run(self.x[None, :, :, None], self.kernel[:, :, None, None], whole)[
            0, :, :, 0
        ]
        return result

    def title(self) -> str:
        """The setting in a line."""
        name = "Conv2D" if self.operation == "conv" else "Conv2DTranspose"
        words = [f"{format_shape(self.size)} input", f"{format_shape(self.kernel_size)} kernel"]
        words += [f"strides {plain(self.setting.strides)}", f"padding {self.setting.padding}"]
        if self.setting.output_padding is not None:
            words.append(f"output_padding {plain(self.setting.output_padding)}")
        if self.setting.dilation_rate != (1, 1):
            words.append(f"dilation_rate {plain(self.setting.dilation_rate)}")
        return f"{name}: {', '.join(words)}"

    def formula(self, axis: int = 0) -> str:
        """The output's size along one axis: the rule, and the rule with its numbers."""
        i, s = self.size[axis], self.setting.strides[axis]
        k = sizes.extent(self.kernel_size[axis], self.setting.dilation_rate[axis])
        padding = self.setting.padding
        if self.operation == "conv":
            if padding == "same":
                return f"ceil(i / s) = ceil({i} / {s}) = {-(-i // s)}"
            p = 0 if padding == "valid" else padding
            size = (i + 2 * p - k) // s + 1
            return f"floor((i + 2p − k) / s) + 1 = floor(({i} + {2 * p} − {k}) / {s}) + 1 = {size}"
        extra = self.setting.output_padding and self.setting.output_padding[axis]
        size = sizes.conv_transpose_size(i, **self.setting.axis(axis, self.kernel_size[axis]))
        if padding == "same" and extra is None:
            return f"i·s = {i}·{s} = {size}"
        if padding == "same":
            return f"(i−1)·s + k mod 2 + op = {i - 1}·{s} + {k % 2} + {extra} = {size}"
        if padding == "valid" and extra is None:
            return f"(i−1)·s + max(k, s) = {i - 1}·{s} + {max(k, s)} = {size}"
        if padding == "valid":
            return f"(i−1)·s + k + op = {i - 1}·{s} + {k} + {extra} = {size}"
        rule, numbers = "(i−1)·s − 2p + k", f"{i - 1}·{s} − {2 * padding} + {k}"
        if extra:
            rule, numbers = f"{rule} + op", f"{numbers} + {extra}"
        return f"{rule} = {numbers} = {size}"

    def sizes_line(self) -> str:
        """The formula for both axes, once if they are alike."""
        rows, columns = self.formula(0), self.formula(1)
        same = rows == columns
        text = f"rows and columns: {rows}" if same else f"rows: {rows}; columns: {columns}"
        if self.setting.dilation_rate != (1, 1):
            reach = [
                sizes.extent(self.kernel_size[a], self.setting.dilation_rate[a]) for a in (0, 1)
            ]
            text += f"; at this dilation the kernel covers k = {plain((reach[0], reach[1]))}"
        return text

    def crop_line(self) -> str:
        """What the cut does, in words; empty if nothing is cut and nothing put on."""
        counts = [n for pair in self.crops for n in pair]
        if counts[0] and len(set(counts)) == 1:
            return f"{counts[0]} taken off each side"
        names = ("the top", "the bottom", "the left", "the right")
        words = []
        for verb, sign in (("taken off", 1), ("zeros put on", -1)):
            sides = [
                f"{n * sign} at {name}"
                for n, name in zip(counts, names, strict=True)
                if n * sign > 0
            ]
            if sides:
                words.append(f"{verb}: {', '.join(sides)}")
        return "; ".join(words)


def _examples() -> dict[str, tuple[str, Case]]:
    small, square = np.arange(4).reshape(2, 2), np.arange(9).reshape(3, 3) + 1
    kernel = np.array([[1, 2], [3, 4]])
    six, five = np.arange(36).reshape(6, 6) % 9 + 1, np.arange(25).reshape(5, 5) % 9 + 1
    return {
        "basic": ("The basic operation", Case(small, np.arange(4).reshape(2, 2))),
        "1": (
            "Example 1: a convolution with stride 2 and padding 1",
            Case(six, kernel, ConvOptions((2, 2), 1), "conv"),
        ),
        "2": (
            "Example 2: a transposed convolution with stride 2, without padding",
            Case(square, kernel, ConvOptions((2, 2), 0)),
        ),
        "3": (
            "Example 3: a transposed convolution with stride 1, without padding",
            Case(five, kernel, ConvOptions((1, 1), 0)),
        ),
        "4": (
            "Example 4: a transposed convolution with stride 2 and padding 1",
            Case(square, kernel, ConvOptions((2, 2), 1)),
        ),
    }


EXAMPLES = _examples()  # of the reading, by its numbers


# ---- from words ---------------------------------------------------------------------------------


def matrix(text: str, name: str) -> Array:
    """A matrix written as "1 2; 3 4" (commas do as well), of whole numbers where all are.

    Raises ConfigError for ragged rows, text for a number, nothing at all, or more than 64x64.
    """
    rows = [re.split(r"[\s,]+", row.strip()) for row in re.split(r"[;\n]", text.strip().strip(";"))]
    values = [
        [_number(word, name, r, c) for c, word in enumerate(row)] for r, row in enumerate(rows)
    ]
    lengths = [len(row) for row in values]
    if len(set(lengths)) > 1:
        wrong = next(i for i, n in enumerate(lengths) if n != lengths[0])
        raise ConfigError(
            f"{name}: every row needs as many numbers as the first. Row 1 has {lengths[0]}, "
            f'row {wrong + 1} has {lengths[wrong]}. Received: "{text}"'
        )
    if max(len(values), lengths[0]) > LARGEST:
        raise ConfigError(
            f"{name}: at most {LARGEST}x{LARGEST}. "
            f"Received: {format_shape((len(values), lengths[0]))}"
        )
    whole = all(isinstance(v, int) for row in values for v in row)
    return np.array(values, np.int64 if whole else np.float64)


def _number(word: str, name: str, row: int, column: int) -> int | float:
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


def pair(text: str, name: str, least: int = 0) -> Pair:
    """One whole number for both axes, or two: "2" or "2,3"."""
    words = re.split(r"[\s,x]+", text.strip())
    if len(words) > 2 or not all(re.fullmatch(r"-?\d{1,4}", w) for w in words):
        raise ConfigError(f"{name} must be a whole number, or two as in 2,3. Received: {text!r}")
    values = int(words[0]), int(words[-1])
    if min(values) < least:
        raise ConfigError(f"{name} must be {least} or more. Received: {text!r}")
    return values


def padding(text: str) -> sizes.Padding | int:
    """valid, same, or a number."""
    words: dict[str, sizes.Padding] = {"valid": "valid", "same": "same"}
    if text in words:
        return words[text]
    if re.fullmatch(r"\d{1,4}", text):
        return int(text)
    raise ConfigError(f"padding must be valid, same, or a number from 0 up. Received: {text!r}")


# ---- to words -----------------------------------------------------------------------------------


def plain(values: Pair) -> str:
    """(2, 2) as 2, (2, 3) as 2x3."""
    return str(values[0]) if values[0] == values[1] else format_shape(values)


def cell(value: Any) -> str:
    """A number as it stands in a grid: whole ones whole, others with three digits."""
    return f"{int(value)}" if float(value).is_integer() and abs(value) < 1e7 else f"{value:.3g}"


def grid_lines(values: Array, crops: tuple[Pair, Pair] | None = None) -> list[str]:
    """A matrix as right-aligned lines; what `crops` takes away stands outside a frame."""
    words = [[cell(v) for v in row] for row in values]
    width = max(len(w) for row in words for w in row)
    if crops is None:
        return [" ".join(f"{w:>{width}}" for w in row) for row in words]
    (top, bottom), (left, right) = (tuple(max(n, 0) for n in side) for side in crops)
    rows, columns = len(words), len(words[0])
    lines = []
    for r, row in enumerate(words):
        inside = top <= r < rows - bottom
        line = ""
        for c, word in enumerate(row):
            edge = inside and c in (left, columns - right)
            line += ("|" if edge else " ") + f"{word:>{width}}"
        lines.append(line + ("|" if inside and right == 0 else " "))
    rule = (
        " " * (left * (width + 1)) + "+" + "-" * ((columns - left - right) * (width + 1) - 1) + "+"
    )
    lines.insert(top, rule)
    lines.insert(rows - bottom + 1, rule)
    return lines


def beside(blocks: list[tuple[str, list[str]]], gap: int = 4, width: int = 96) -> str:
    """Titled blocks of lines side by side, in as many bands as the width asks for."""
    bands: list[list[list[str]]] = []
    used = width + 1
    for head, lines in blocks:
        block = [head, *lines]
        size = max(len(line) for line in block)
        if used + size + gap > width:
            bands.append([])
            used = 0
        bands[-1].append([f"{line:<{size}}" for line in block])
        used += size + gap
    texts = []
    for band in bands:
        height = max(len(block) for block in band)
        filled = [block + [" " * len(block[0])] * (height - len(block)) for block in band]
        texts.append("\n".join((" " * gap).join(row).rstrip() for row in zip(*filled, strict=True)))
    return "\n\n".join(texts)


def told(case: Case) -> str:
    """The whole case for a terminal: sizes, each step, the cut, the result."""
    lines = [case.title(), case.sizes_line(), ""]
    blocks = [("input", grid_lines(case.x)), ("kernel", grid_lines(case.kernel))]
    result = ("result", grid_lines(case.result()))
    if case.operation == "conv":
        blocks += [("padded input", grid_lines(case.padded())), result]
        return "\n".join([*lines, beside(blocks)])
    lines += [beside(blocks), ""]
    if case.x.size <= 16:
        lines += [beside(_copies(case)), ""]
    cut = case.crop_line()
    head = f"sum, {cut}" if cut else "sum of the copies"
    lines.append(beside([(head, grid_lines(case.canvas(), case.crops if cut else None)), result]))
    return "\n".join(lines)


def _copies(case: Case) -> list[tuple[str, list[str]]]:
    """Every scaled copy on its canvas, points where nothing lies."""
    shape = case.canvas().shape
    x, kernel = case.x[None, :, :, None], case.kernel[:, :, None, None]
    down, right = case.setting.dilation_rate
    width = max(len(cell(v)) for v in np.outer(case.x, case.kernel).ravel())
    blocks = []
    for number, (at, (top, left), copy) in enumerate(transpose.copies(x, kernel, case.setting), 1):
        words = [["." for _ in range(shape[1])] for _ in range(shape[0])]
        for i, j in np.ndindex(case.kernel_size):
            words[top + i * down][left + j * right] = cell(copy[0, i, j, 0])
        lines = [" ".join(f"{w:>{width}}" for w in row) for row in words]
        blocks.append((f"{number}: {cell(case.x[at])} × kernel", lines))
    return blocks
