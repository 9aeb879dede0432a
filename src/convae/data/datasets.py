"""Fashion-MNIST, of Zalando Research: 70,000 gray pictures of clothes, in MNIST's own format.

Looks into Keras' cache, then the folder of the Debian package dataset-fashion-mnist, then downloads
the files that Keras would, into Keras' cache. Nothing else stands in for it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from convae.data.download import download as fetch
from convae.data.readers import Arrays, SplitName, digests, read_idx
from convae.errors import ConvaeError, DataError

NAME = "Fashion-MNIST"
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets"
FILES = {  # SHA-256 of the archives, as they are published
    "train-images-idx3-ubyte.gz": (
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
    ),
    "train-labels-idx1-ubyte.gz": (
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
    ),
}
IMAGES: dict[SplitName, str] = {  # SHA-256 of the images alone: Debian packs the archives anew
    "train": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
    "test": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
}


def keras_datasets() -> Path:
    """Where Keras keeps data: $KERAS_HOME/datasets, usually below ~/.keras."""
    home = Path(os.environ.get("KERAS_HOME") or "~/.keras")
    try:
        return home.expanduser() / "datasets"
    except RuntimeError:
        raise DataError("this user has no home folder; KERAS_HOME can name another") from None


def find(side: SplitName, *, download: bool) -> Arrays:
    """One side of Fashion-MNIST, verified. Raises DataError with every step's reason."""
    cache = keras_datasets() / "fashion-mnist"
    reasons = []
    for step, folder in (("Keras' cache", cache), ("Debian package", DEBIAN), ("download", cache)):
        try:
            if step == "download":
                _download(cache, download)
            return _verified(folder, side)
        except (OSError, ConvaeError) as error:
            reasons.append(f"  {step}: {error}")
    why = "\n".join(reasons)
    raise DataError(
        f"{NAME} was not found:\n{why}\nWhat to do: make the network reachable, install Debian's "
        "dataset-fashion-mnist, or fetch the four files elsewhere and name their folder by "
        "data.path."
    )


def _verified(folder: Path, side: SplitName) -> Arrays:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    arrays = read_idx(folder, side)
    found = digests(arrays)
    received = found[0]
    if received != IMAGES[side] or arrays.whole or arrays.labels is None:
        raise DataError(
            f"{folder}: not whole, or other files: there must be images and labels of both parts, "
            f"the {side} images with the SHA-256 {IMAGES[side]}. Received: {received}"
        )
    return replace(arrays, digests=found)  # data.py names the classes of any such images


def _download(folder: Path, allowed: bool) -> None:
    if not allowed:
        raise DataError("data.download is false")
    for name, digest in FILES.items():
        fetch(f"{URL}/{name}", folder / name, digest)
