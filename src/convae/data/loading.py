"""Find, verify, load and split: uint8 images as (N, H, W, C), in memory or memory-mapped.

Looks at `data.path`, else the environment variable CONVAE_DATA, else Keras' cache of MNIST, else
downloads it there, else takes the bundled sample of 5,000 digits. A path that is given and fails
is an error; only the search for MNIST goes on to the next step, and remembers why. With
`data.name: fashion_mnist` the search is that of fashion.py.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from convae.data import datasets as fashion
from convae.data.download import download
from convae.data.readers import (
    Arrays,
    SplitName,
    digests,
    is_idx_folder,
    read_idx,
    read_npy,
    read_npz,
)
from convae.errors import ConvaeError, DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from convae.config import schema as config

Shape = tuple[int, int, int]  # height, width, channels

MNIST_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
MNIST_SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"
MNIST_IMAGES = 60_000
SAMPLE_PATH = Path(__file__).with_name("mnist_sample.npz")
ENVIRONMENT = "CONVAE_DATA"

# SHA-256 of the images alone: an archive's own hash changes with the zlib that packed it.
MNIST: dict[SplitName, str] = {
    "train": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
    "test": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
}
SAMPLE: dict[SplitName, str] = {
    "train": "bcfddb79ced74a8fc4b4e22dd43fa6c8265c9a6b0256b433a4dbe84e71fbdda8",
    "test": "a912b821ec4d85cc09ba5c3951081006df0c2de1e574a9c349e00fc78ec1a708",
}

_failed_downloads: dict[tuple[str, Path], str] = {}  # one wait a process is enough


@dataclass(frozen=True)
class Split:
    """Images from 0 to 255, and their labels if the data have any."""

    images: NDArray[np.uint8]  # (N, H, W, C)
    labels: NDArray[np.int64] | None  # (N,), each an index into `classes`

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class TrainingData:
    """What training may see. `train` and `validation` are views of the same arrays.

    With `data.crop` the images of `train` may be larger than the model's: crop_random takes a part
    of each. Those of `validation` are the middle, of the model's size.
    """

    name: str  # "MNIST", "MNIST sample", or the name of the file or folder
    is_sample: bool  # whether these are the bundled sample's images, wherever they came from
    sha256: str  # of images and labels as read: before subset, split and resize of arrays
    notice: str | None  # for the fallback: that it is the sample, why, and what to do
    train: Split
    validation: Split
    samples_per_epoch: int  # len(train), or as many as MNIST would have if the sample stands in
    classes: tuple[str, ...] | None


@dataclass(frozen=True)
class TestData:
    """What evaluation looks at; no image of it was ever handed out by load_training."""

    __test__ = False  # for pytest, which would take it for a test by its name

    name: str
    is_sample: bool
    sha256: str
    notice: str | None
    test: Split
    classes: tuple[str, ...] | None


def load_training(data: config.Data, input_shape: Shape) -> TrainingData:
    """The training and validation images for a model of `input_shape`; opens no test image.

    Of data without a test split, the last `data.test_split` is left out. Then come `data.subset`
    and `data.validation_split`, cutting as Keras does: validation is what stands last. Raises
    DataError for data that cannot be found, read or split, or do not fit the model.
    """
    source = _find(data, "train", input_shape)
    split = _without_test(source, data) if source.arrays.whole else _split(source.arrays)
    if data.subset and data.subset > len(split):
        raise DataError(
            f"data.subset: {data.subset:,} is more than the {len(split):,} training images of "
            f"{source.name}" + (f"\n{source.notice}" if source.notice else "")
        )
    split = _cut(split, 0, data.subset or len(split))
    first = _first(len(split), data.validation_split, "data.validation_split")
    train, validation = _cut(split, 0, first), middle(_cut(split, first, len(split)), input_shape)
    notice, samples_per_epoch = source.notice, first
    if notice and data.subset is None:
        samples_per_epoch = _first(MNIST_IMAGES, data.validation_split, "data.validation_split")
        notice += (
            f"\nAn epoch goes over its {first:,} training images {samples_per_epoch / first:g} "
            f"times, to see as many ({samples_per_epoch:,}) as an epoch of the whole MNIST."
        )
    return TrainingData(
        source.name,
        source.is_sample,
        source.sha256,
        notice,
        train,
        validation,
        samples_per_epoch,
        source.arrays.classes,
    )


def load_test(data: config.Data, input_shape: Shape) -> TestData:
    """Return the test images: the test split of the data, or the last `data.test_split`.

    Raises DataError as load_training does.
    """
    source = _find(data, "test", input_shape)
    split = _split(source.arrays)
    if source.arrays.whole:
        split = _cut(split, len(_without_test(source, data)), len(split))
    return TestData(
        source.name,
        source.is_sample,
        source.sha256,
        source.notice,
        middle(split, input_shape),
        source.arrays.classes,
    )


def middle(split: Split, shape: Shape) -> Split:
    """Views of the middle of each image, where images are larger than `shape` for `data.crop`."""
    if split.images.shape[1:] == shape:
        return split
    from convae.data.image_folder import crop_center

    return Split(crop_center(split.images, shape), split.labels)


def keras_cache() -> Path:
    """Where Keras keeps MNIST: $KERAS_HOME/datasets/mnist.npz, usually below ~/.keras."""
    return fashion.keras_datasets() / "mnist.npz"


@dataclass(frozen=True)
class _Source:
    name: str
    is_sample: bool
    sha256: str
    notice: str | None
    arrays: Arrays


def named_path(data: config.Data) -> tuple[str, Path] | None:
    """What names the data, data.path or the environment, and the file or folder; None if neither.

    Takes no time, so that a wrong name can be told before anything slow. Raises DataError if there
    is no such file or folder.
    """
    # The variable names MNIST, so that it must not stand in for data that were asked for by name.
    variable = os.environ.get(ENVIRONMENT) if data.name == "mnist" else None
    key = "data.path" if data.path else ENVIRONMENT
    if not (name := data.path or variable):
        return None
    try:
        path = Path(name).expanduser()
        found = path.is_file() or path.is_dir()
    except (OSError, RuntimeError) as error:
        raise DataError(f"{key}: {name}: cannot be read: {error}") from None
    if not found:
        raise DataError(
            f"{key}: {path.absolute()}: no such file or folder. It must be an .npz or .npy file, a "
            "folder of MNIST's IDX files, or a folder of images"
        )
    return key, path


def _find(data: config.Data, side: SplitName, shape: Shape) -> _Source:
    """One side of the data, from the first step of the search that leads to any."""
    _check_resize(data, shape)
    notice = None
    if named := named_path(data):
        key, path = named
        try:
            arrays = _read(path, side, shape, data)
        except OSError as error:
            raise DataError(f"{key}: {path}: cannot be read: {error}") from None
        except ConvaeError as error:
            own = str(error).startswith("data.cache: ")  # which says itself where it is wrong
            raise DataError(str(error) if own else f"{key}: {error}") from None
        name = path.name or path.resolve().name
        where = f"{key}: {path}"
    elif data.name == "fashion_mnist":
        arrays, name = fashion.find(side, download=data.download), fashion.NAME
        where = name
    else:
        arrays, notice = _find_mnist(data, side)
        name = "MNIST"
        where = "the bundled sample of MNIST" if notice else "MNIST"
    hashed, both = arrays.digests or digests(arrays)
    sample = hashed in SAMPLE.values()
    if sample or hashed in MNIST.values():
        name = "MNIST sample" if sample else "MNIST"
    if hashed in fashion.IMAGES.values():
        name, arrays = fashion.NAME, replace(arrays, classes=fashion.CLASSES)
    return _Source(name, sample, both, notice, _fitted(arrays, shape, data, where))


def _check_resize(data: config.Data, shape: Shape) -> None:
    if not data.resize or data.resize == shape[:2]:
        return
    if not data.crop:
        raise DataError(
            f"data.resize: must be the height and width of model.input_shape {list(shape)}, or "
            f"larger with data.crop=random. Received: {list(data.resize)}"
        )
    if data.resize[0] < shape[0] or data.resize[1] < shape[1]:
        raise DataError(
            f"data.resize: cannot be smaller than the crop, which is model.input_shape "
            f"{list(shape)}. Received: {list(data.resize)}"
        )


def _read(path: Path, side: SplitName, shape: Shape, data: config.Data) -> Arrays:
    if path.is_file():
        return read_npy(path) if path.suffix == ".npy" else read_npz(path, side)
    if is_idx_folder(path):
        return read_idx(path, side)
    from convae.data.cache import read_folder  # imported when needed: it brings Pillow

    return read_folder(path, side, shape, data)


def _find_mnist(data: config.Data, side: SplitName) -> tuple[Arrays, str | None]:
    """MNIST, or its sample with the notice that says why."""

    def cached() -> Arrays:
        return _verified(keras_cache(), side, MNIST[side])

    def downloaded() -> Arrays:
        _download(data)
        return cached()

    reasons = []
    for step, find in (("Keras' cache", cached), ("download", downloaded)):
        try:
            return find(), None
        except (OSError, ConvaeError) as error:
            reasons.append(f"  {step}: {error}")
    why = "\n".join(reasons)
    mend = (
        "make the network reachable, or fetch mnist.npz elsewhere and name it by data.path or the "
        f"environment variable {ENVIRONMENT}"
    )
    if not data.allow_sample:
        raise DataError(
            f"MNIST was not found:\n{why}\n  bundled sample: data.allow_sample is false\n"
            f"What to do: {mend}."
        )
    notice = (
        "These data are not the whole MNIST (70,000 digits) but a bundled sample of 5,000 real "
        f"MNIST digits: 4,000 to train and 1,000 to test.\nWhy:\n{why}\nWhat to do: {mend}."
    )
    return _verified(SAMPLE_PATH, side, SAMPLE[side]), notice


def _verified(path: Path, side: SplitName, digest: str) -> Arrays:
    """What an npz holds for `side`, if its images hash to `digest`; else DataError."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    arrays = read_npz(path, side)
    found = digests(arrays)
    received = found[0]
    if arrays.whole or received != digest:
        raise DataError(
            f"{path}: damaged, or another file: its {side} images must have the SHA-256 {digest}. "
            f"Received: {received}"
        )
    return replace(arrays, digests=found)


def _download(data: config.Data) -> None:
    """MNIST into Keras' cache; a second try in the same process fails at once, as the first did."""
    if not data.download:
        raise DataError("data.download is false")
    attempt = (MNIST_URL, keras_cache())
    if attempt in _failed_downloads:
        raise DataError(_failed_downloads[attempt])
    try:
        download(MNIST_URL, attempt[1], MNIST_SHA256)
    except ConvaeError as error:
        _failed_downloads[attempt] = str(error)
        raise


def _fitted(arrays: Arrays, shape: Shape, data: config.Data, where: str) -> Arrays:
    """Arrays of images that the model can take, resized if they were not read at that size."""
    size, received = data.resize, arrays.images.shape[1:]
    if received[2] == shape[2] and size and received[:2] != size:
        from convae.data.image_folder import resized

        arrays = replace(arrays, images=resized(arrays.images, size, data.resize_mode))
        received = (*size, shape[2])
    if received == shape:
        return arrays
    high, wide, channels = received
    if data.crop and channels == shape[2] and high >= shape[0] and wide >= shape[1]:
        return arrays
    mends = [f"set model.input_shape to [{high},{wide},{channels}]"]
    if channels == shape[2]:
        mends.append(f"data.resize to [{shape[0]},{shape[1]}]")
    if not data.path:
        mends.append("name your own images by data.path")
    raise DataError(
        f"{where}: the images are {list(received)} (height, width, channels), but "
        f"model.input_shape is {list(shape)}; {' or '.join(mends)}"
    )


def _split(arrays: Arrays) -> Split:
    return Split(arrays.images, arrays.labels)


def _cut(split: Split, start: int, stop: int) -> Split:
    """Views of the images from `start` to before `stop`."""
    labels = None if split.labels is None else split.labels[start:stop]
    return Split(split.images[start:stop], labels)


def _without_test(source: _Source, data: config.Data) -> Split:
    """What is left for training of data that have no test split of their own."""
    split = _split(source.arrays)
    return _cut(split, 0, _first(len(split), data.test_split, "data.test_split"))


def _first(images: int, fraction: float, key: str) -> int:
    """How many images come before the last `fraction`, rounded as Keras' validation_split is."""
    first = int(images * (1 - fraction))
    if not 0 < first < images:
        raise DataError(
            f"{key}: {fraction:g} of {images:,} images leaves {first:,} on one side and "
            f"{images - first:,} on the other; each side needs at least one"
        )
    return first
