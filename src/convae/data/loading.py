"""Find images, check them against the config, and split them.

The images are those of `data.path`, else of the environment variable CONVAE_DATA (for MNIST), else
of the data set `data.name`. A path that was given and fails is an error: nothing replaces it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from convae.arrays import Images, Labels, Shape
from convae.config import schema
from convae.console import printable
from convae.data import cache, readers
from convae.data.datasets import SAMPLE, get_dataset, identify
from convae.data.readers import Arrays
from convae.data.split_names import SplitName
from convae.data.transforms import crop_center, resize_images
from convae.errors import ConvaeError, DataError


@dataclass(frozen=True)
class Split:
    """The images of a split, 0 to 255, and their labels if the data have any."""

    images: Images  # (N, H, W, C)
    labels: Labels | None  # (N,), each an index into the classes

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, chosen: slice) -> Split:
        return Split(self.images[chosen], None if self.labels is None else self.labels[chosen])

    def center(self, shape: Shape) -> Split:
        """Return views of the center of each image, in the height and width of `shape`."""
        if self.images.shape[1:] == shape:
            return self
        return replace(self, images=crop_center(self.images, shape))


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What is known of the images, whichever split was read."""

    name: str  # "MNIST", "MNIST sample", or the name of the file or folder
    is_sample: bool  # whether these are the bundled sample's images, wherever they were found
    sha256: str  # of images and labels as read: before subset, split and resize of arrays
    notice: str | None  # that the sample replaces MNIST, why, and what to do
    classes: tuple[str, ...] | None
    splits: Mapping[SplitName, str]  # what each split was read from


@dataclass(frozen=True, kw_only=True)
class TrainingData(Dataset):
    """The training and validation splits, which may be views of the same arrays.

    With `data.crop` the images of `train` may be larger than the model's: each step takes a random
    crop. Those of `validation` are the centers, of the model's size.
    """

    train: Split
    validation: Split
    samples_per_epoch: int  # len(train); for the sample, as many as the full MNIST has


@dataclass(frozen=True, kw_only=True)
class TestData(Dataset):
    """The test split, of which `load_training` reads no image."""

    __test__ = False  # not a test of pytest's

    test: Split


def load_training(data: schema.Data, input_shape: Shape) -> TrainingData:
    """Return the training and validation splits; no test image is read.

    The steps are: of data without a test split, leave out the last `data.test_split`; take the
    first `data.subset`; keep the last `data.validation_split` for validation, as Keras' fit does.
    Data with a validation split of their own keep it, and nothing else.

    Args:
        data: The section `data` of a config.
        input_shape: Height, width and channels of the images that the model needs.

    Raises:
        DataError: The data cannot be found, read or split, or do not fit the model.
    """
    info, arrays = _find(data, "train", input_shape)
    split = Split(arrays.images, arrays.labels)
    if "test" not in arrays.splits:
        split = split[: _split_point(len(split), data.test_split, "data.test_split")]
    if data.subset and data.subset > len(split):
        received = f"data.subset: {data.subset:,} is more than the {len(split):,} training images"
        notice = f"\n{info.notice}" if info.notice else ""
        raise DataError(f"{received} of {info.name}{notice}")
    split = split[: data.subset]
    if "validation" in arrays.splits:
        other, arrays = _find(data, "validation", input_shape)
        both = hashlib.sha256(f"{info.sha256} {other.sha256}".encode()).hexdigest()
        return TrainingData(
            train=split,
            validation=Split(arrays.images, arrays.labels).center(input_shape),
            samples_per_epoch=len(split),
            **vars(replace(info, sha256=both)),
        )
    count = _split_point(len(split), data.validation_split, "data.validation_split")
    samples = count
    if info.notice and data.subset is None:
        total = get_dataset(data.name).sizes["train"]
        samples = _split_point(total, data.validation_split, "data.validation_split")
        repeats = (
            f"An epoch uses the {count:,} training images {samples / count:g} times, which are as "
            f"many samples ({samples:,}) as in an epoch of the full data set."
        )
        info = replace(info, notice=f"{info.notice}\n{repeats}")
    return TrainingData(
        train=split[:count],
        validation=split[count:].center(input_shape),
        samples_per_epoch=samples,
        **vars(info),
    )


def load_test(data: schema.Data, input_shape: Shape) -> TestData:
    """Return the test split: that of the data, or the last `data.test_split` of all images.

    Args and errors are those of `load_training`.
    """
    info, arrays = _find(data, "test", input_shape)
    split = Split(arrays.images, arrays.labels)
    if "test" not in arrays.splits:
        split = split[_split_point(len(split), data.test_split, "data.test_split") :]
    return TestData(test=split.center(input_shape), **vars(info))


def describe_splits(data: schema.Data, found: Dataset) -> str:
    """Return what each split was read from, and the classes, in one line."""
    train = found.splits["train"]
    test = found.splits.get("test") or f"the last {data.test_split:.0%} of {train}"
    rest = train if "test" in found.splits else "the rest"
    validation = found.splits.get("validation") or f"the last {data.validation_split:.0%} of {rest}"
    text = f"splits: train from {train}; validation: {validation}; test: {test}"
    if found.classes:
        names = ", ".join(name[:20] for name in found.classes[:10])
        more = ", ..." if len(found.classes) > 10 else ""
        text += f"; {len(found.classes):,} classes: {names}{more}"
    return text


def find_path(data: schema.Data) -> tuple[str, Path] | None:
    """Return "data.path" or the environment variable, and the path that it names, if one is set.

    Raises:
        DataError: There is no such file or folder.
    """
    variable = get_dataset(data.name).variable
    name, key = data.path, "data.path"
    if not name and variable:
        name, key = os.environ.get(variable), variable
    if not name:
        return None
    try:
        path = Path(name).expanduser()
        found = path.is_file() or path.is_dir()
    except (OSError, RuntimeError) as error:
        raise DataError(f"{key}: {name}: cannot be read: {error}") from None
    if not found:
        rule = f"It must be {readers.ACCEPTED}"
        raise DataError(f"{key}: {path.absolute()}: no such file or folder. {rule}")
    return key, path


def _find(data: schema.Data, split: SplitName, shape: Shape) -> tuple[Dataset, Arrays]:
    """Return one split before it is cut, in the size that the model needs."""
    _check_resize(data, shape)
    notice = None
    if named := find_path(data):
        key, path = named
        arrays = _read_named(key, path, split, shape, data)
        name, where = path.name or path.resolve().name, f"{key}: {path}"
        _check_range(arrays.images, where)
    else:
        dataset = get_dataset(data.name)
        arrays, notice = dataset.find(
            split, allow_download=data.download, allow_sample=data.allow_sample
        )
        name = where = SAMPLE.display_name if notice else dataset.display_name
    images_sha256, sha256 = readers.digests(arrays)
    if known := identify(images_sha256):
        name = known.display_name
        if arrays.classes and len(arrays.classes) == len(known.classes):
            arrays = replace(arrays, classes=known.classes)
    info = Dataset(
        name=printable(name),
        is_sample=known is SAMPLE,
        sha256=sha256,
        notice=notice,
        classes=arrays.classes,
        splits=arrays.splits,
    )
    return info, _fit(arrays, shape, data, where)


def _check_resize(data: schema.Data, shape: Shape) -> None:
    size = data.resize or shape[:2]
    if size != shape[:2] and not data.crop:
        rule = (
            f"must be the height and width of model.input_shape {list(shape)}, or larger with "
            "data.crop=random"
        )
    elif size[0] < shape[0] or size[1] < shape[1]:
        rule = f"cannot be smaller than the crop, which is model.input_shape {list(shape)}"
    else:
        return
    raise DataError(f"data.resize: {rule}. Received: {list(size)}")


def _read_named(key: str, path: Path, split: SplitName, shape: Shape, data: schema.Data) -> Arrays:
    try:
        if path.is_file() or readers.is_idx_folder(path):
            return readers.read(path, split)
        return cache.read_folder(path, split, shape, data)
    except OSError as error:
        raise DataError(f"{key}: {path}: cannot be read: {error}") from None
    except ConvaeError as error:
        own = str(error).startswith("data.cache: ")  # this message names its own key
        raise DataError(str(error) if own else f"{key}: {error}") from None


def _check_range(images: Images, where: str) -> None:
    """Refuse images of 0 and 1 alone, such as binary images and masks: 1 of 255 is black."""
    first = images[: max(1, 2**26 // images[0].size)]  # enough, and quick also of a mapped file
    if first.max() == 1:
        raise DataError(
            f"{where}: the images hold only 0 and 1, both black where 255 is white; multiply them "
            "by 255"
        )


def _fit(arrays: Arrays, shape: Shape, data: schema.Data, where: str) -> Arrays:
    """Resize arrays to `data.resize`, and check that the model can take them."""
    size, received = data.resize, arrays.images.shape[1:]
    if size and received[:2] != size and received[2] == shape[2]:
        try:
            images = resize_images(arrays.images, size, data.resize_mode)
        except MemoryError:
            raise DataError("data.resize: the images do not fit into memory") from None
        arrays, received = replace(arrays, images=images), (*size, shape[2])
    high, wide, channels = received
    larger = high >= shape[0] and wide >= shape[1]
    if received == shape or (data.crop and larger and channels == shape[2]):
        return arrays
    fixes = [f"set model.input_shape to [{high},{wide},{channels}]"]
    if channels == shape[2]:
        fixes.append(f"data.resize to [{shape[0]},{shape[1]}]")
    if not data.path:
        fixes.append("name your own images by data.path")
    raise DataError(
        f"{where}: the images are {list(received)} (height, width, channels), but "
        f"model.input_shape is {list(shape)}; {' or '.join(fixes)}"
    )


def _split_point(count: int, fraction: float, key: str) -> int:
    """Return how many of `count` images come before the last `fraction`, rounded as Keras does."""
    first = int(count * (1 - fraction))
    if not 0 < first < count:
        raise DataError(
            f"{key}: {fraction:g} of {count:,} images makes splits of {first:,} and "
            f"{count - first:,}; each needs at least one image"
        )
    return first
