"""Input sizes that a decoder does not restore, and the smallest change that fixes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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


def restores(size: int, layers: Sequence[Layer], factor: int = 1) -> bool:
    """Return whether the output is `factor` times as large as an input of this size."""
    return _gives(factor * size, size, layers, 0)


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
    for fix in _fixes(layers, len(model.encoder)):
        changed = list(layers)
        for i, setting in fix:
            changed[i] = changed[i].model_copy(update=setting)
        if all(_gives(output_shape[a], model.input_shape[a], changed, a) for a in (0, 1)):
            for i, setting in fix:
                text += [f"{names[i]}: {key}: {format_setting(setting[key])}" for key in setting]
            return " and ".join(text)
    return None


def format_setting(value: Any) -> Any:
    """Return a setting as in YAML; a pair of equal numbers is one number."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return value[0] if value[0] == value[1] else list(value)
    return "null" if value is None else value


def _gives(target: int, size: int, layers: Sequence[Layer], axis: int) -> bool:
    sizes = sizes_through(size, layers, axis)
    return len(sizes) == len(layers) + 1 and sizes[-1] == target


def _fixes(layers: Sequence[Layer], first: int) -> Iterator[Fix]:
    """Yield fixes from layer `first` on: none, one setting, two, many of output_padding."""
    every = ((i, c) for i in range(first, len(layers)) for c in layers[i].changes())
    changes = list(islice(every, MOST))
    for count in (0, 1, 2):
        if comb(len(changes), count) > MOST:
            break
        groups = sorted(combinations(changes, count), key=lambda g: sum(c[0] for _, c in g))
        for group in groups[: MOST // len(layers)]:
            if len({i for i, _ in group}) == count:
                yield [(i, setting) for i, (_, setting) in group]
    # Odd sizes with strides need output_padding in several layers, in as few as possible.
    choices: list[list[tuple[int, dict[str, Any]] | None]] = []
    for i in range(first, len(layers)):
        paddings = (
            (i, setting) for _, setting in layers[i].changes() if "output_padding" in setting
        )
        choices.append([None, *islice(paddings, MOST)])
        if prod(map(len, choices)) > MOST // len(layers):
            return
    yield from sorted(([c for c in group if c] for group in product(*choices)), key=len)
