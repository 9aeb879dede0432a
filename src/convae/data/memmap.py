"""Images that stay in their file: an array of them, and what is mapped given back in time."""

from __future__ import annotations

import math
import mmap
import os
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Mapped(np.ndarray[Any, np.dtype[np.uint8]]):
    """The images of an .npy file, which stay on the disk until they are looked at.

    Slices are views. What is mapped counts as this process's memory until it is given back, which
    is done whenever `HELD` bytes have been asked for. A choice of images (an array of places) is
    read, not mapped: for a page asked for the system may map the two megabytes around it.
    """

    HELD = 16 << 20
    _file: _File | None

    @classmethod
    def open(cls, file: IO[bytes], offset: int, shape: tuple[int, ...]) -> Mapped:
        """The array of `shape` that begins at byte `offset` of an open file."""
        opened = _File(file)
        mapped = np.frombuffer(opened.map, np.uint8, math.prod(shape), offset)
        images = mapped.reshape(shape).view(cls)
        images._file, opened.start = opened, _address(mapped) - offset
        return images

    def __array_finalize__(self, source: Any) -> None:
        shared = isinstance(source, Mapped) and np.may_share_memory(self, source)
        self._file = source._file if shared else None

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        return array[()] if return_scalar else array.view(np.ndarray)

    def __getitem__(self, key: Any) -> Any:
        if self._file is None:
            return super().__getitem__(key)
        if isinstance(key, list | np.ndarray):
            places = np.asarray(key)
            if places.dtype == bool and places.shape == self.shape[:1]:
                places = np.flatnonzero(places)
            if places.ndim == 1 and places.dtype.kind in "iu" and self._is_rows():
                return self._read(places)
        if self._file.asked > self.HELD:
            self._file.give_back()
        result = super().__getitem__(key)
        self._file.asked += result.nbytes
        own = isinstance(result, Mapped) and result._file is None
        return result.view(np.ndarray) if own else result

    def _is_rows(self) -> bool:
        """Whether each image lies in one piece, as it does not in a view of their middles."""
        strides = [math.prod(self.shape[axis + 1 :]) for axis in range(1, self.ndim)]
        return self.ndim > 1 and list(self.strides[1:]) == strides

    def _read(self, places: NDArray[np.integer]) -> NDArray[np.uint8]:
        count, file = len(self), cast(_File, self._file)
        if len(places) and not -count <= places.min() <= places.max() < count:
            raise IndexError(
                f"the images are {count:,}. Received: {places.min()} to {places.max()}"
            )
        begin = _address(self) - file.start
        result = np.empty((len(places), *self.shape[1:]), np.uint8)
        for image, place in zip(result, places.tolist(), strict=True):
            at = begin + (place % count) * self.strides[0]
            if os.preadv(file.handle, [image], at) != image.nbytes:
                raise OSError(f"cut off while it was read: there is nothing at byte {at:,}")
        return result


class _File:
    """An open file and its map; closed when the last view of it is gone."""

    def __init__(self, file: IO[bytes]) -> None:
        self.handle = os.dup(file.fileno())
        self.map = mmap.mmap(self.handle, 0, access=mmap.ACCESS_READ)
        self.start = 0  # the map's address
        self.asked = 0  # bytes since the map was last given back

    def __del__(self) -> None:
        os.close(self.handle)

    def give_back(self) -> None:
        """Let go of all pages; they stay in the system's cache of the disk."""
        self.asked = 0
        if hasattr(mmap, "MADV_DONTNEED"):
            self.map.madvise(mmap.MADV_DONTNEED)


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])
