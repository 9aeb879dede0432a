"""Sizes, crops, overlap and receptive fields, against their definitions by brute force."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from convae.explain.operation import ConvOptions, conv_by_taps, conv_transpose, transpose_by_copies
from convae.layers import arithmetic, search
from convae.layers.arithmetic import ConvAxis, ConvTransposeAxis

PADDINGS: tuple[arithmetic.Padding | int, ...] = ("valid", "same", 0, 1)
LEGAL: list[Any] = [
    (i, k, s, p, op, d)
    for i, k, s, d in product((1, 2, 3, 5), range(1, 6), range(1, 5), (1, 2, 3))
    for p in PADDINGS
    for op in (None, *range(s))
    if not arithmetic.problem(i, k, s, p, op, d)
]


@pytest.mark.parametrize(
    ("options", "size", "crop"),
    [
        ((3, 2, "same", None), 14, (0, 1)),  # the odd pixel goes off the end
        ((3, 2, "same", 0), 13, (1, 1)),
        ((3, 2, "same", 1), 14, (0, 1)),
        ((4, 2, "same", None), 14, (1, 1)),
        ((3, 2, "valid", None), 15, (0, 0)),
        ((3, 2, "valid", 1), 16, (0, -1)),  # a row of zeros put on
        ((2, 3, "valid", None), 21, (0, -1)),
        ((3, 1, "same", None), 7, (1, 1)),
        ((3, 2, 1, 0), 13, (1, 1)),  # PyTorch
        ((3, 2, 1, 1), 14, (1, 0)),  # the same size as Keras' same, another left edge
    ],
)
def test_sizes_and_crops_from_seven(
    options: tuple[int, int, arithmetic.Padding | int, int | None], size: int, crop: tuple[int, int]
) -> None:
    assert arithmetic.conv_transpose_size(7, *options) == size
    assert arithmetic.crop(7, *options) == crop


def test_the_article_s_examples() -> None:
    assert arithmetic.conv_size(6, 2, 2, 1) == 4
    assert arithmetic.conv_transpose_size(3, 2, 2, 0) == 6
    assert arithmetic.conv_transpose_size(5, 2, 1, 0) == 6
    assert arithmetic.conv_transpose_size(3, 2, 2, 1) == 4


def test_crops_add_up_for_every_legal_setting() -> None:
    assert len(LEGAL) > 1000
    for i, k, s, p, op, d in LEGAL:
        canvas = (i - 1) * s + arithmetic.extent(k, d)
        size = arithmetic.conv_transpose_size(i, k, s, p, op, d)
        assert sum(arithmetic.crop(i, k, s, p, op, d)) == canvas - size


def test_a_same_convolution_is_undone_in_size() -> None:
    for size, k, s in product(range(1, 12), range(1, 6), range(1, 5)):
        shrunk = arithmetic.conv_size(size, k, s, "same")
        assert arithmetic.conv_transpose_size(shrunk, k, s, "same") >= size


@pytest.mark.parametrize(
    ("k", "s", "copies"),
    [
        (3, 1, (9, 9)), (3, 2, (1, 4)), (4, 2, (4, 4)), (2, 2, (1, 1)),
        (5, 2, (4, 9)), (5, 3, (1, 4)), (6, 3, (4, 4)), (2, 3, (0, 1)),
    ],
)  # fmt: skip
def test_overlap_inside(k: int, s: int, copies: tuple[int, int]) -> None:
    low, high = arithmetic.overlap(k, s)
    assert (low**2, high**2) == copies


def test_overlap_is_even_exactly_when_the_stride_divides_the_kernel() -> None:
    for k, s in product(range(1, 20), range(1, 9)):
        low, high = arithmetic.overlap(k, s)
        assert (low == high) == (k % s == 0)


def test_overlap_counts_are_a_transposed_convolution_of_ones() -> None:
    for i, k, s, p, op, d in LEGAL:
        both = None if op is None else (op, 0)
        setting = ConvOptions((s, 1), p, both, (d, 1))
        counts = conv_transpose(np.ones((i, 3), int), np.ones((k, 1), int), setting)
        assert counts[:, 0].tolist() == arithmetic.overlap_counts(i, k, s, p, op, d)


@pytest.mark.parametrize(
    "stack",
    [
        [ConvAxis(3), ConvAxis(3)],
        [ConvAxis(3, 2, "same"), ConvAxis(3, 2, "same"), ConvTransposeAxis(3, 2, "same")],
        [ConvAxis(4, 2, "same"), ConvTransposeAxis(5, 3, "same"), ConvAxis(3, 1, "same")],
        [ConvAxis(3, 1, "same", 3), ConvTransposeAxis(2, 2)],
    ],
)
def test_receptive_field_is_what_a_change_reaches(stack: list[arithmetic.Operation]) -> None:
    size, steps, matrix = 48, [], np.eye(48)
    for operation in stack:
        steps.append((size, operation))
        kernel = np.ones((operation.kernel_size, 1, 1, 1))
        strides, dilation = (operation.strides, 1), (operation.dilation_rate, 1)
        columns = matrix.T[:, :, None, None]  # one image for each input pixel
        if isinstance(operation, ConvAxis):
            pad = arithmetic.conv_padding(size, *operation)
            padded = np.pad(columns, [(0, 0), pad, (0, 0), (0, 0)])
            options = ConvOptions(strides, "valid", None, dilation)
            out = conv_by_taps(padded, kernel, options)
        else:
            options = ConvOptions(strides, operation.padding, None, dilation)
            out = transpose_by_copies(columns, kernel, options)
        size = operation.output_size(size)
        matrix = out[:, :, 0, 0].T
    spans = [np.ptp(np.flatnonzero(row)) + 1 for row in matrix if row.any()]
    assert arithmetic.receptive_field(steps) == max(spans)


def test_settings_are_all_and_only_those_that_lead_there() -> None:
    for start, end in ((13, 25), (7, 28), (1, 4), (5, 5), (4, 13)):
        found = search.find_settings(start, end, 6, 4, 2)
        asked = {
            (w.kernel_size, w.strides, w.padding, w.output_padding, w.dilation_rate) for w in found
        }
        expected = {
            (k, s, p, op, d)
            for k, s, d in product(range(1, 7), range(1, 5), (1, 2))
            for p in PADDINGS[:2]
            for op in (None, *range(s))
            if not (d > 1 and k == 1)  # one tap has no dilation
            and not arithmetic.problem(start, k, s, p, op, d)
            and arithmetic.conv_transpose_size(start, k, s, p, op, d) == end
        }
        assert asked == expected
        assert [w.cost for w in found] == sorted(w.cost for w in found)


def test_settings_begin_with_the_simplest() -> None:
    first = search.find_settings(14, 28)[0]
    assert (first.kernel_size, first.strides) == (2, 2)
    assert (first.padding, first.output_padding, first.even) == ("same", None, True)
    down = search.find_settings(28, 14)
    assert {w.type for w in down} == {"conv"}
    assert search.find_settings(3, 1000) == []


def test_pytorch_has_no_crop_that_takes_more_off_the_end() -> None:
    assert arithmetic.pytorch((1, 1), 2) == (1, 0)
    assert arithmetic.pytorch((1, 0), 2) == (1, 1)
    assert arithmetic.pytorch((0, 1), 2) is None
    assert arithmetic.pytorch((0, -1), 2) == (0, 1)
