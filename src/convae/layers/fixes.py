"""Sizes that do not come back through an autoencoder, and the smallest change that mends them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, islice, product
from math import comb, prod
from typing import TYPE_CHECKING, Any

from convae.layers.arithmetic import layer_options, layer_size, problem

if TYPE_CHECKING:
    from convae.layers.spec import Layer

Shape = tuple[int, int, int]  # height, width, channels
Change = tuple[int, dict[str, Any]]  # how far it is from what stands there, and the new setting
MOST = 100_000  # layers looked at, and combinations put in order: a few seconds


def chain(size: int, layers: Sequence[Layer], axis: int = 0) -> list[int]:
    """The sizes along one axis through every layer; ends early where a layer cannot run."""
    sizes = [size]
    for layer in layers:
        transposed = layer.type == "conv_transpose"
        if transposed and problem(sizes[-1], **layer_options(layer, axis)):
            break
        after = layer_size(layer, sizes[-1], axis)
        if after < 1:
            break
        sizes.append(after)
    return sizes


def comes_back(size: int, layers: Sequence[Layer], axis: int = 0, factor: int = 1) -> bool:
    """Whether an image of this size leaves the last layer `factor` times as large."""
    sizes = chain(size, layers, axis)
    return len(sizes) == len(layers) + 1 and sizes[-1] == factor * size


def nearest_sizes(size: int, layers: Sequence[Layer], axis: int = 0, factor: int = 1) -> list[int]:
    """The nearest smaller and the nearest larger size that come back, where there are such."""
    downwards, upwards = range(size - 1, 0, -1), range(size + 1, 2 * size + 65)
    fits = (next((s for s in way if comes_back(s, layers, axis, factor)), None)
            for way in (downwards, upwards))  # fmt: skip
    return [s for s in fits if s is not None]


def smallest_mend(
    input_shape: Shape,
    layers: Sequence[Layer],
    decoder_at: int,
    names: Sequence[str],
    output_shape: Shape | None = None,
) -> str | None:
    """The fewest and simplest settings of the decoder that give `output_shape`, or the input's."""
    wanted = output_shape or input_shape
    stack = list(layers)
    words = []
    if stack[-1].filters != wanted[2]:  # independent of the sizes: always part of the mend
        stack[-1] = stack[-1].model_copy(update={"filters": wanted[2]})
        words = [f"{names[-1]}: filters: {wanted[2]}"]
        if _fits(input_shape, wanted, stack):
            return words[0]
    shapes = (input_shape, wanted)
    found = _few(shapes, stack, decoder_at) or _paddings(shapes, stack, decoder_at)
    if not found:
        return None
    words += [
        f"{names[i]}: {key}: {_plain(value)}"
        for i, update in found
        for key, value in update.items()
    ]
    return " and ".join(words)


def _fits(input_shape: Shape, wanted: Shape, layers: Sequence[Layer]) -> bool:
    ends = (chain(input_shape[axis], layers, axis) for axis in (0, 1))
    sizes = [end[-1] if len(end) == len(layers) + 1 else None for end in ends]
    return (*sizes, layers[-1].filters) == wanted


def _few(
    shapes: tuple[Shape, Shape], stack: Sequence[Layer], decoder_at: int
) -> list[tuple[int, dict[str, Any]]] | None:
    """One changed setting, or two in different layers."""
    every = ((i, c) for i in range(decoder_at, len(stack)) for c in _changes(stack[i]))
    changes = list(islice(every, MOST))
    for count in (1, 2):
        if comb(len(changes), count) > MOST:
            break
        groups = sorted(combinations(changes, count), key=lambda g: sum(c[0] for _, c in g))
        for group in groups[: MOST // len(stack)]:
            if len({i for i, _ in group}) == count:
                found = [(i, update) for i, (_, update) in group]
                if _fits(*shapes, _changed(stack, found)):
                    return found
    return None


def _paddings(
    shapes: tuple[Shape, Shape], stack: Sequence[Layer], decoder_at: int
) -> list[tuple[int, dict[str, Any]]] | None:
    """An output_padding in as many layers as it takes: what odd sizes through strides need."""
    choices: list[list[tuple[int, dict[str, Any]] | None]] = []
    for i in range(decoder_at, len(stack)):
        every = (update for _, update in _changes(stack[i]) if "output_padding" in update)
        updates = list(islice(every, MOST))
        if len(updates) * prod(len(c) for c in choices) > MOST // len(stack):
            return None
        choices.append([None, *((i, update) for update in updates)])
    groups = ([c for c in group if c] for group in product(*choices))
    return next((g for g in sorted(groups, key=len) if _fits(*shapes, _changed(stack, g))), None)


def _changed(stack: Sequence[Layer], found: Sequence[tuple[int, dict[str, Any]]]) -> list[Layer]:
    changed = list(stack)
    for i, update in found:
        changed[i] = changed[i].model_copy(update=update)
    return changed


def _changes(layer: Layer) -> Iterator[Change]:
    """Changes of one setting, each with how far it is from what stands there."""
    if layer.type == "conv_transpose":
        if layer.output_padding is not None:
            yield 0, {"output_padding": None}
        for rows, columns in product(*(range(s) for s in layer.strides)):
            if (rows, columns) != layer.output_padding and max(layer.strides) > 1:
                yield int(rows != columns), {"output_padding": (rows, columns)}
    if layer.type in {"conv", "conv_transpose"}:
        yield 1, {"padding": "same" if layer.padding == "valid" else "valid"}
    for step in (1, -1, 2, -2):
        kernel = (layer.kernel_size[0] + step, layer.kernel_size[1] + step)
        if min(kernel) > 0:
            yield 1 + abs(step), {"kernel_size": kernel}
    for strides in ((1, 1), (2, 2), (3, 3)):
        padding = getattr(layer, "output_padding", None) or (0, 0)
        allowed = max(layer.dilation_rate) == 1 and max(padding) < strides[0]
        if strides != layer.strides and allowed:
            yield 5, {"strides": strides}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return value[0] if value[0] == value[1] else list(value)
    return "null" if value is None else value
