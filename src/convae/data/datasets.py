"""The data sets that convae finds by name: in Keras' cache, in a package's folder, by download.

A further data set is one row of `DATASETS`, and its name in the schema's `data.name`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from convae.data.download import download
from convae.data.readers import Arrays, digests, read
from convae.data.split_names import SplitName
from convae.errors import ConvaeError, DataError

_DIGITS = tuple("0123456789")
_CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_IDX_FILES = (
    "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz",
)  # fmt: skip
_FASHION_SHA256 = (
    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
)
_KERAS_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets"
_failed_downloads: dict[str, str] = {}  # URL to reason: a process waits for a server only once


@dataclass(frozen=True, kw_only=True)
class NamedDataset:
    """A published data set: one .npz file, or a folder of IDX files."""

    display_name: str
    classes: tuple[str, ...]
    sizes: Mapping[SplitName, int]  # number of images
    # SHA-256 of the images alone: that of a file depends on its compression.
    images_sha256: Mapping[SplitName, str]
    files: Mapping[str, str]  # file name to SHA-256, as published
    url: str  # the folder of these files
    cache: str = ""  # their folder in Keras' cache
    packages: Mapping[str, Path] = field(default_factory=dict)  # package that has them to folder
    variable: str | None = None  # the environment variable that can name other data
    sample: NamedDataset | None = None  # used where the data set is not found

    def __post_init__(self) -> None:
        digests = [*self.files.values(), *self.images_sha256.values()]
        complete = self.classes and self.files and self.sizes.keys() == {"train", "test"}
        complete = complete and self.images_sha256.keys() == self.sizes.keys()
        if not complete or not all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests):
            raise ValueError(
                f"{self.display_name}: a data set needs classes, files with their SHA-256, and "
                "for both splits the number of images and their SHA-256"
            )

    @property
    def cache_folder(self) -> Path:
        """The folder that Keras' own loader uses: below $KERAS_HOME, by default ~/.keras."""
        home = Path(os.environ.get("KERAS_HOME") or "~/.keras")
        try:
            return home.expanduser() / "datasets" / self.cache
        except RuntimeError:
            raise DataError("this user has no home folder; KERAS_HOME can name another") from None

    def find(
        self, split: SplitName, *, allow_download: bool, allow_sample: bool
    ) -> tuple[Arrays, str | None]:
        """Find, verify and read one split.

        Args:
            split: The split; images of the other one are not read.
            allow_download: Whether to download what is not found on this machine.
            allow_sample: Whether `sample` may be used, if the data set has one.

        Returns:
            The arrays, and a notice if they are those of the sample.

        Raises:
            DataError: Nothing was found. The message has the reason for each place.
        """
        reasons = []
        for place in ("Keras' cache", *self.packages, "download"):
            try:
                if place == "download":
                    self._download(allow_download)
                return self._read(self.packages.get(place) or self.cache_folder, split), None
            except (OSError, ConvaeError) as error:
                reasons.append(f"  {place}: {error}")
        if self.sample and allow_sample:
            total, sample = sum(self.sizes.values()), self.sample.sizes
            notice = (
                f"These data are not the complete {self.display_name} ({total:,} images) but a "
                f"bundled sample of {sum(sample.values()):,} of its images: {sample['train']:,} to "
                f"train and {sample['test']:,} to test."
            )
            notice = "\n".join([notice, "Why:", *reasons, self._advice])
            return self.sample._read(SAMPLE_PATH.parent, split), notice
        if self.sample:
            reasons.append("  bundled sample: data.allow_sample is false")
        raise DataError("\n".join([f"{self.display_name} was not found:", *reasons, self._advice]))

    @property
    def _advice(self) -> str:
        packages = "".join(f"install {package}, " for package in self.packages)
        files = ", ".join(self.files)
        variable = f" or the environment variable {self.variable}" if self.variable else ""
        return (
            f"What to do: make the network reachable, {packages}or copy {files} from another "
            f"machine and set data.path{variable}."
        )

    def _read(self, folder: Path, split: SplitName) -> Arrays:
        path = folder / next(iter(self.files)) if len(self.files) == 1 else folder
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
        arrays = read(path, split)
        found, expected = digests(arrays), self.images_sha256[split]
        if found[0] != expected or "test" not in arrays.splits or arrays.labels is None:
            raise DataError(
                f"{path}: damaged or incomplete: there must be images and labels of both splits, "
                f"and the {split} images must have the SHA-256 {expected}. Received: {found[0]}"
            )
        return replace(arrays, digests=found)

    def _download(self, allowed: bool) -> None:
        if not allowed:
            raise DataError("data.download is false")
        for name, digest in self.files.items():
            url = f"{self.url}/{name}"
            if url in _failed_downloads:
                raise DataError(_failed_downloads[url])
            try:
                download(url, self.cache_folder / name, digest)
            except ConvaeError as error:
                _failed_downloads[url] = str(error)
                raise


SAMPLE = NamedDataset(
    display_name="MNIST sample",
    classes=_DIGITS,
    sizes={"train": 4_000, "test": 1_000},
    images_sha256={
        "train": "bcfddb79ced74a8fc4b4e22dd43fa6c8265c9a6b0256b433a4dbe84e71fbdda8",
        "test": "a912b821ec4d85cc09ba5c3951081006df0c2de1e574a9c349e00fc78ec1a708",
    },
    files={"mnist_sample.npz": "a32b09151a47a163c7177b0fa97d3cd2e1cbe9ef95c2c5a92765c9d35e2dbfec"},
    url="",  # it comes with the package
)
SAMPLE_PATH = Path(__file__).with_name("mnist_sample.npz")

DATASETS = {  # by their names in a config, data.name
    "mnist": NamedDataset(
        display_name="MNIST",
        classes=_DIGITS,
        sizes={"train": 60_000, "test": 10_000},
        images_sha256={
            "train": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
            "test": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        },
        files={"mnist.npz": "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"},
        url=_KERAS_URL,
        variable="CONVAE_DATA",
        sample=SAMPLE,
    ),
    "fashion_mnist": NamedDataset(  # of Zalando Research
        display_name="Fashion-MNIST",
        classes=_CLOTHES,
        sizes={"train": 60_000, "test": 10_000},
        images_sha256={
            "train": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
            "test": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
        },
        files=dict(zip(_IDX_FILES, _FASHION_SHA256, strict=True)),
        url=_KERAS_URL,
        cache="fashion-mnist",
        packages={"Debian's dataset-fashion-mnist": Path("/usr/share/datasets/fashion-mnist")},
    ),
}


def get_dataset(name: str) -> NamedDataset:
    """Return the row of `DATASETS`, or raise DataError for an unknown name."""
    if name not in DATASETS:
        raise DataError(f"data.name: must be one of {', '.join(DATASETS)}. Received: {name}")
    return DATASETS[name]


def identify(images_sha256: str) -> NamedDataset | None:
    """Return the data set whose training or test images have this SHA-256, if one does."""
    known = (*DATASETS.values(), SAMPLE)
    return next((d for d in known if images_sha256 in d.images_sha256.values()), None)
