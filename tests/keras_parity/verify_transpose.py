"""Compare the laboratory's arithmetic with the installed Keras, setting by setting.

    python -m tests.keras_parity.verify_transpose            every setting up to size 9: two minutes
    python -m tests.keras_parity.verify_transpose --size 4   up to size 4

Inputs of 1 to 9 rows, kernels 1 to 9, strides 1 to 5, dilation 1 to 3, both paddings and every
output_padding: what is legal must agree with the running layer exactly in shape and to 1e-5 in
value, by all three methods; what we refuse, Keras must refuse too.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, get_args

import numpy as np

from convae.arrays import Array
from convae.errors import ConvaeError
from convae.explain import operation
from convae.explain.operation import ConvOptions
from convae.layers.arithmetic import Padding

NO_DILATION = "do not yet support dilation rates larger than 1"  # TensorFlow without oneDNN


class Operation(NamedTuple):
    """One of the two operations: our function, its methods, and Keras' layer."""

    name: str
    run: Callable[..., Array]
    methods: Sequence[operation.Method]
    keras: operation.Method


CONV_TRANSPOSE = Operation(
    "Conv2DTranspose", operation.conv_transpose, list(operation.TRANSPOSE_METHODS.values()),
    operation.transpose_by_keras,
)  # fmt: skip
CONV = Operation(
    "Conv2D", operation.conv, list(operation.CONV_METHODS.values()), operation.conv_by_keras
)


def settings() -> Iterator[tuple[int, ConvOptions]]:
    """Yield every kernel size with every setting, legal or not."""
    for kernel, step, dilation in itertools.product(range(1, 10), range(1, 6), range(1, 4)):
        refused = step > 1 and dilation > 1  # by us and by Keras: one output_padding is enough
        for padding in get_args(Padding):
            for extra in (None, *(() if refused else range(step + 1))):
                both = None if extra is None else (extra, extra)
                yield kernel, ConvOptions((step, step), padding, both, (dilation, dilation))


def main() -> None:
    """Print the counts; exit 1 at the first disagreement."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=9, help="largest input (default 9)")
    largest = parser.parse_args().size
    start, counts = time.time(), Counter[str]()
    random = np.random.default_rng(0)
    for size in range(1, largest + 1):
        for number, (k, setting) in enumerate(settings()):
            shape = (size, 1 + (size + number) % largest)  # not square
            x = random.integers(-4, 5, (2, *shape, 2))
            kernel = random.integers(-4, 5, (k, k, 3, 2))
            counts[outcome(x, kernel, setting, CONV_TRANSPOSE)] += 1
            if setting.output_padding is None:
                counts[outcome(x, kernel.swapaxes(2, 3), setting, CONV)] += 1
        print(f"up to size {size}: {counts.total():,} settings", file=sys.stderr, flush=True)
    cannot = f", {counts['cannot']:,} dilated ones cannot run on this processor"
    print(
        f"{counts[CONV_TRANSPOSE.name]:,} legal settings of Conv2DTranspose and "
        f"{counts[CONV.name]:,} of Conv2D agree with Keras, {counts['refused']:,} illegal ones "
        f"are refused by both{cannot if counts['cannot'] else ''}: {time.time() - start:.0f} s"
    )


def outcome(x: Array, kernel: Array, setting: ConvOptions, operation: Operation) -> str:
    """Return the operation's name if all agree, "refused" (by both) or "cannot"."""
    what = f"{operation.name}: input {x.shape}, kernel {kernel.shape}, {setting}"
    ours, refusal = [], ""
    try:
        ours = [operation.run(x, kernel, setting, method) for method in operation.methods]
    except ConvaeError as error:
        refusal = str(error)
    try:
        keras = operation.keras(x, kernel, setting)
    except Exception as error:  # Keras and TensorFlow raise many kinds
        if not ours:
            return "refused"
        if NO_DILATION in str(error):
            return "cannot"
        sys.exit(f"Keras refuses what we compute: {what}: {error}")
    if not ours and keras.size:  # Keras returns images of no pixels
        sys.exit(f"Keras computes what we refuse: {what}: {refusal}")
    for result in ours:
        if result.shape != keras.shape or not np.allclose(result, keras, rtol=0, atol=1e-5):
            sys.exit(f"disagreement: {what}: {result.shape} and {keras.shape}")
    return operation.name if ours else "refused"


if __name__ == "__main__":
    main()
