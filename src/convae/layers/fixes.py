"""Input sizes that a decoder does not restore, and the smallest change that fixes them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, islice, product
from math import comb, prod
from typing import Any

from convae.layers.spec import Convolution, Layer, Model, Shape

MOST = 100_000  # layers looked at, and combinations put in order: a few seconds

Fix = Sequence[tuple[int, dict[str, Any]]]  # (index of a layer, its new setting)


def sizes_through(size: int, layers: Sequence[Layer], axis: int = 0) -> list[int]:
    """Return the sizes along an axis from the input through every layer that can run."""
    sizes = [size]
    for layer in layers:
        if layer.problem(sizes[-1], axis):
            break
        sizes.append(layer.output_size(sizes[-1], axis))
    return sizes


def restores(size: int, layers: Sequence[Layer], axis: int = 0, factor: int = 1) -> bool:
    """Return whether the output is `factor` times as large as an input of this size."""
    return _output_size(size, layers, axis) == factor * size


def nearest_restored_sizes(size: int, layers: Sequence[Layer], factor: int = 1) -> list[int]:
    """Return the nearest smaller and the nearest larger input size that the decoder restores."""
    nearest = (
        next((s for s in sizes if restores(s, layers, factor=factor)), None)
        for sizes in (range(size - 1, 0, -1), range(size + 1, 2 * size + 65))
    )
    return [s for s in nearest if s is not None]


def smallest_fix(model: Model, names: Sequence[str], output_shape: Shape) -> str | None:
    """Return the fewest and simplest settings of the decoder that give `output_shape`.

    Args:
        model: a model whose layers run, but give another shape.
        names: the names of its layers.
        output_shape: height, width and channels that it should give.

    Returns:
        The settings as text, or None if there is no small change.
    """
    layers: list[Layer] = list(model.layers)
    text = []
    last = layers[-1]
    if isinstance(last, Convolution) and last.filters != output_shape[2]:
        layers[-1] = last.model_copy(update={"filters": output_shape[2]})
        text = [f"{names[-1]}: filters: {output_shape[2]}"]
    shapes, first = (model.input_shape, output_shape), len(model.encoder)
    if not _fits(*shapes, layers):
        fix = _one_or_two_settings(shapes, layers, first) or _paddings(shapes, layers, first)
        if not fix:
            return None
        text += [
            f"{names[index]}: {key}: {_format_value(value)}"
            for index, setting in fix
            for key, value in setting.items()
        ]
    return " and ".join(text)


def _output_size(size: int, layers: Sequence[Layer], axis: int) -> int | None:
    sizes = sizes_through(size, layers, axis)
    return sizes[-1] if len(sizes) == len(layers) + 1 else None


def _fits(input_shape: Shape, output_shape: Shape, layers: Sequence[Layer]) -> bool:
    return all(
        _output_size(input_shape[axis], layers, axis) == output_shape[axis] for axis in (0, 1)
    )


def _one_or_two_settings(
    shapes: tuple[Shape, Shape], layers: Sequence[Layer], first: int
) -> Fix | None:
    """Return one changed setting, or two in different layers from `first` on."""
    every = ((i, c) for i in range(first, len(layers)) for c in layers[i].changes())
    changes = list(islice(every, MOST))
    for count in (1, 2):
        if comb(len(changes), count) > MOST:
            break
        groups = sorted(combinations(changes, count), key=lambda g: sum(c[0] for _, c in g))
        for group in groups[: MOST // len(layers)]:
            if len({i for i, _ in group}) == count:
                fix = [(i, setting) for i, (_, setting) in group]
                if _fits(*shapes, _changed(layers, fix)):
                    return fix
    return None


def _paddings(shapes: tuple[Shape, Shape], layers: Sequence[Layer], first: int) -> Fix | None:
    """Return an output_padding in as few layers as possible: odd sizes with strides need it."""
    choices: list[list[tuple[int, dict[str, Any]] | None]] = []
    for i in range(first, len(layers)):
        every = (setting for _, setting in layers[i].changes() if "output_padding" in setting)
        settings = list(islice(every, MOST))
        if len(settings) * prod(len(c) for c in choices) > MOST // len(layers):
            return None
        choices.append([None, *((i, setting) for setting in settings)])
    groups = ([c for c in group if c] for group in product(*choices))
    return next((g for g in sorted(groups, key=len) if _fits(*shapes, _changed(layers, g))), None)


def _changed(layers: Sequence[Layer], fix: Fix) -> list[Layer]:
    changed = list(layers)
    for i, setting in fix:
        changed[i] = changed[i].model_copy(update=setting)
    return changed


def _format_value(value: Any) -> Any:
    if isinstance(value, tuple):
        return value[0] if value[0] == value[1] else list(value)
    return "null" if value is None else value
