"""A memory-mapped array of images whose pages are released, so that memory does not grow."""

from __future__ import annotations

import math
import mmap
import os
import sys
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray


class Mapped(np.ndarray[Any, np.dtype[np.uint8]]):
    """The images of an .npy file, which stay on the disk until they are used.

    Slices are views. Mapped pages count as memory of this process until they are released, after
    each `HELD` bytes that were accessed. Images at an array of indices are read, not mapped: for
    one page the system may map the two megabytes around it.
    """

    HELD = 16 << 20
    _file: _File | None

    @classmethod
    def open(cls, file: IO[bytes], offset: int, shape: tuple[int, ...]) -> Mapped:
        """Map the array of `shape` that begins at byte `offset` of an open file."""
        opened = _File(file)
        mapped = np.frombuffer(opened.map, np.uint8, math.prod(shape), offset)
        images = mapped.reshape(shape).view(cls)
        images._file, opened.start = opened, mapped.ctypes.data - offset
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
            indices = np.asarray(key)
            if indices.dtype == bool and indices.shape == self.shape[:1]:
                indices = np.flatnonzero(indices)
            # The bytes of each image must be contiguous; those of a center crop are not.
            rows = self.ndim > 1 and super().__getitem__(slice(1)).flags.c_contiguous
            if rows and indices.ndim == 1 and indices.dtype.kind in "iu":
                return self._read(indices)
        if self._file.accessed > self.HELD:
            self._file.release()
        result = super().__getitem__(key)
        self._file.accessed += result.nbytes
        own = isinstance(result, Mapped) and result._file is None
        return result.view(np.ndarray) if own else result

    def _read(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        count, file = len(self), cast(_File, self._file)
        if len(indices) and not -count <= indices.min() <= indices.max() < count:
            raise IndexError(
                f"the images are {count:,}. Received: {indices.min()} to {indices.max()}"
            )
        begin = self.ctypes.data - file.start
        result = np.empty((len(indices), *self.shape[1:]), np.uint8)
        for image, index in zip(result, indices.tolist(), strict=True):
            at = begin + (index % count) * self.strides[0]
            if file.read(image, at) != image.nbytes:
                raise OSError(f"the file was cut off while it was read: there is no byte {at:,}")
        return result


class _File:
    """An open file and its map; closed with the last view of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.handle = os.dup(file.fileno())
        self.map = mmap.mmap(self.handle, 0, access=mmap.ACCESS_READ)
        self.start = 0  # the map's address
        self.accessed = 0  # bytes since the last release

    def __del__(self) -> None:
        os.close(self.handle)

    def read(self, image: NDArray[np.uint8], at: int) -> int:
        """Fill `image` with the bytes from `at` on, and return their number."""
        if hasattr(os, "preadv"):
            return int(os.preadv(self.handle, [image.data], at))
        data = self.map[at : at + image.nbytes]  # Windows
        image.reshape(-1)[: len(data)] = np.frombuffer(data, np.uint8)
        return len(data)

    def release(self) -> None:
        """Release all pages; they stay in the disk cache of the system."""
        self.accessed = 0
        if sys.platform != "win32":  # Windows takes unused pages back by itself
            self.map.madvise(mmap.MADV_DONTNEED)
