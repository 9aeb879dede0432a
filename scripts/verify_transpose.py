"""Compare the laboratory's arithmetic with the installed Keras, setting by setting.

    python scripts/verify_transpose.py            every setting up to size 9: about a minute
    python scripts/verify_transpose.py --size 4   up to size 4

Inputs of 1 to 9 rows, kernels 1 to 9, strides 1 to 4, dilation 1 to 3, both paddings and every
output_padding: what is legal must agree with the running layer exactly in shape and to 1e-5 in
value, in all three ways of computing it; what we refuse, Keras must refuse too.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # without it the CPU refuses all dilation

import numpy as np

from convae.errors import UserError
from convae.lab import transpose
from convae.lab.transpose import Setting

NO_DILATION = "do not yet support dilation rates larger than 1"  # TensorFlow without oneDNN


def settings() -> Iterator[tuple[int, Setting]]:
    """Every kernel size and setting, legal or not."""
    for kernel, step, dilation in itertools.product(range(1, 10), range(1, 5), range(1, 4)):
        for padding in ("valid", "same"):
            for extra in (None, *range(step + 1)):
                both = None if extra is None else (extra, extra)
                yield kernel, Setting((step, step), padding, both, (dilation, dilation))  # type: ignore[arg-type]


def main() -> int:
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
            counts[outcome(x, kernel, setting)] += 1
        print(f"\rup to size {size}: {counts.total():,} settings", end="", flush=True)
    print(f"\r{counts['agree']:,} legal settings agree with Keras, ", end="")
    print(f"{counts['refused']:,} illegal ones are refused by both", end="")
    if counts["cannot"]:
        print(f", {counts['cannot']:,} dilated ones cannot run on this processor", end="")
    print(f": {time.time() - start:.0f} s")
    return 0


def outcome(x: transpose.Array, kernel: transpose.Array, setting: Setting) -> str:
    """agree, refused (by both) or cannot (dilation without oneDNN); SystemExit otherwise."""
    what = f"input {x.shape}, kernel {kernel.shape}, {setting}"
    try:
        ours = [transpose.conv_transpose(x, kernel, setting, w) for w in transpose.TRANSPOSE_WAYS.values()]
    except UserError as error:
        refusal = str(error)
        ours = []
    try:
        keras = transpose.by_keras(x, kernel, setting)
    except Exception as error:  # Keras and TensorFlow raise many kinds
        if ours and NO_DILATION in str(error):
            return "cannot"
        if ours:
            sys.exit(f"\nKeras refuses what we compute: {what}: {error}")
        return "refused"
    if not ours and keras.size:  # an image of no pixels is no answer
        sys.exit(f"\nKeras computes what we refuse: {what}: {refusal}")
    for result in ours:
        if result.shape != keras.shape or not np.allclose(result, keras, rtol=0, atol=1e-5):
            sys.exit(f"\ndisagreement: {what}: {result.shape} and {keras.shape}")
    return "agree" if ours else "refused"


if __name__ == "__main__":
    sys.exit(main())
