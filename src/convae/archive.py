"""Read .npz and .keras files, whose members are stored without compression, and their contents.

Nothing is decompressed, so reading never takes more memory than the file has bytes.
"""

from __future__ import annotations

import io
import json
import math
import struct
import time
import tokenize
import zipfile
import zlib
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from convae.errors import FileError

BROKEN = (  # errors of the standard library and NumPy for damaged bytes
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
MAX_JSON = 4_000_000  # characters


def check_clock() -> None:
    """Raise FileError if this machine's clock shows a time that no zip file can hold."""
    now = time.localtime()
    if not 1980 <= now.tm_year <= 2107:
        raise FileError(
            f"the clock of this machine shows {time.strftime('%Y-%m-%d', now)}, but the files of a "
            "run, which are zip files, hold years from 1980 to 2107; set the clock"
        )


def members(data: bytes) -> dict[str, bytes]:
    """Return the members of a zip file by name.

    Raises:
        ValueError: the file is damaged, compressed, or its members overlap.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            if len({info.filename for info in infos}) < len(infos):
                raise ValueError("two members have the same name")
            if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
                raise ValueError("its members must be stored, not compressed")
            if sum(info.file_size for info in infos) > len(data):
                raise ValueError("its members overlap or are larger than the file")
            return {info.filename: archive.read(info) for info in infos}
    except BROKEN as error:
        raise ValueError(f"not a complete archive: {error}") from None


def array(data: bytes) -> NDArray[Any]:
    """Return the array of a .npy file.

    Raises:
        ValueError: the file is damaged or holds Python objects.
    """
    stream = io.BytesIO(data)
    try:
        shape, fortran, dtype = read_npy_header(stream)
        rest = data[stream.tell() :]
        if math.prod(shape) * dtype.itemsize != len(rest):
            raise ValueError(f"its header says {shape} of {dtype}, but it holds {len(rest)} bytes")
        return np.frombuffer(rest, dtype).reshape(shape, order="F" if fortran else "C")
    except BROKEN as error:
        raise ValueError(str(error)) from None


def read_npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of a .npy file, up to the first byte of the array.

    Returns:
        The shape, whether the array is in Fortran order, and the dtype.

    Raises:
        ValueError: The array holds pickled objects; or another class of `BROKEN`.
    """
    major = npy.read_magic(stream)[0]
    read_header = npy.read_array_header_1_0 if major == 1 else npy.read_array_header_2_0
    shape, fortran, dtype = read_header(stream)
    if dtype.hasobject:
        raise ValueError("holds pickled Python objects, which can run code when they are loaded")
    return shape, fortran, dtype


def mapping(text: bytes | str) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        ValueError: the text is no JSON object, or is too long or nested too deep.
    """
    if len(text) > MAX_JSON:
        raise ValueError(f"longer than {MAX_JSON:,} characters")
    try:
        tree = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(tree, dict):
        raise ValueError(f"must be a JSON object. Received: {tree!r:.80}")
    return tree
