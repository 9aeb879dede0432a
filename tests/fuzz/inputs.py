"""Inputs for the fuzz suite, as bytes: made by hypothesis, or by damaging valid files."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from scripts.project import CONFIGS

CONFIG_FILES = [path.read_bytes() for path in sorted(CONFIGS.glob("*.yaml"))]
ODD_NUMBERS = (0, 1, -1, 2, 7, 28, 127, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**63, 2**64, 10**30)
ODD_WORDS = (
    "", "~", "null", ".inf", "-.nan", "1e400", "0x" + "f" * 5000, "9" * 5000, "1:1:1", "*a", "&a b",
    "<<", "!!python/object:os.system x", "!!int ''", "2001-13-41", "[[[[[[[[[[[[[[[[[[[[[[[1",
    '"\\ud800"', '"\\0"', '"\\e[31m"', "\x85", "\u202e", "x" * 20_000, "base: /dev/zero", "? a",
    "../../../etc/passwd", "config.yaml", "- - - -", "{a: {a: {a: {}}}}", "!<x> y", "%YAML 9.9",
)  # fmt: skip
SEPARATOR = "\x1e"  # between overrides
Rng = np.random.Generator


def pick(rng: Rng, items: Any) -> Any:
    """One of `items`, untouched by NumPy."""
    return items[int(rng.integers(len(items)))]


def damaged(rng: Rng, data: bytes, other: bytes = b"") -> bytes:
    """`data` after one to four of: bits flipped, bytes set, cut, put in, moved, spliced."""
    result = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        size = len(result)
        at = int(rng.integers(size + 1))
        # Headers are at the start, a zip's directory at the end.
        at = pick(rng, (at, at, min(at, 64), max(size - 1 - at % 256, 0)))
        length = int(rng.integers(1, 33))
        kind = int(rng.integers(8))
        if kind == 0 and at < size:
            result[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            result[at : at + 1] = bytes([pick(rng, (0, 1, 127, 128, 255))])
        elif kind == 2:
            del result[at : at + length]
        elif kind == 3:
            result[at:at] = rng.bytes(length)
        elif kind == 4:
            number = pick(rng, ODD_NUMBERS) % 2**32
            result[at : at + 4] = struct.pack(pick(rng, ("<I", ">I")), number)
        elif kind == 5:
            result[at:at] = result[at : at + length] * int(rng.integers(1, 200))
        elif kind == 6 and other:
            start = int(rng.integers(len(other)))
            result[at : at + length] = other[start : start + length]
        elif kind == 7:
            del result[at:]
    return bytes(result)


def changed(rng: Rng, tree: Any, odd: Callable[[Rng], Any]) -> Any:
    """A copy of a tree of mappings and lists in which one node is replaced, doubled or removed."""
    if isinstance(tree, dict | list) and tree and rng.random() < 0.85:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        key = pick(rng, keys)
        copy: Any = dict(tree) if isinstance(tree, dict) else list(tree)
        way = rng.random()
        if way < 0.1:
            del copy[key]
        elif way < 0.2 and isinstance(copy, list):
            copy[key:key] = [copy[key]] * int(rng.integers(1, 300))
        elif way < 0.2:
            copy[str(odd(rng))[:50]] = copy[key]
        else:
            copy[key] = changed(rng, copy[key], odd)
        return copy
    return odd(rng)


def odd_value(rng: Rng) -> Any:
    """A number, word or container that a config or a header does not expect."""
    nested: Any = []
    for _ in range(int(rng.integers(1, 60))):
        nested = [nested]
    return pick(
        rng,
        (
            pick(rng, ODD_NUMBERS), pick(rng, ODD_NUMBERS) + 0.5, pick(rng, ODD_WORDS), nested,
            {}, [], None, True, float("nan"), [pick(rng, ODD_NUMBERS)] * 2, {"type": "conv"},
        ),
    )  # fmt: skip


def configs(rng: Rng) -> bytes:
    """A shipped config with damaged bytes, a damaged tree, or odd words in its lines."""
    text = pick(rng, CONFIG_FILES)
    way = rng.random()
    if way < 0.35:
        return damaged(rng, text, pick(rng, CONFIG_FILES))
    if way < 0.75:
        tree = yaml.safe_load(text)
        for _ in range(int(rng.integers(1, 4))):
            tree = changed(rng, tree, odd_value)
        return yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")
    lines = text.decode().splitlines()
    at = int(rng.integers(len(lines)))
    lines[at] = f"{lines[at].split(':')[0]}: {pick(rng, ODD_WORDS)}"
    return "\n".join(lines).encode("utf-8", "surrogatepass")


PATHS = (
    "model.encoder.0.filters", "model.encoder.1.kernel_size", "model.decoder.0.strides",
    "model.decoder.1.output_padding", "model.decoder.2.dilation_rate", "model.input_shape",
    "model.decoder.0.padding", "training.epochs", "training.batch_size", "training.learning_rate",
    "training.schedule", "training.schedule.type", "data.path", "data.resize", "data.subset",
    "output.folder", "runtime.threads", "runtime.micro_batch_size", "name", "seed", "model.encoder",
    "model.encoder." + "9" * 5000 + ".filters", "a" + ".a" * 3000, "model.decoder.٣.filters",
)  # fmt: skip


def overrides(rng: Rng) -> bytes:
    """One to three `key=value`, joined by a separator."""
    words = []
    for _ in range(int(rng.integers(1, 4))):
        value = odd_value(rng)
        text = value if isinstance(value, str) else json.dumps(value)
        if rng.random() < 0.3:
            text = str(int(rng.integers(1, 300)))
        words.append(f"{pick(rng, PATHS)}={text}")
    data = SEPARATOR.join(words).encode("utf-8", "surrogatepass")
    return damaged(rng, data) if rng.random() < 0.2 else data


def split_words(data: bytes) -> list[str]:
    """Return the words that `overrides` joined."""
    return data.decode("utf-8", "surrogateescape").split(SEPARATOR)


_KEYS = st.sampled_from([*PATHS, "base", "model", "type", "value", "a.b"]) | st.text(max_size=8)
_LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates()
)
_TREES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)
_SYMBOLS = st.sampled_from(":-[]{}?&*!|>'\"%@`#,\n\t x1")
YAML: st.SearchStrategy[bytes] = st.one_of(
    _TREES.map(lambda tree: yaml.dump(tree, Dumper=yaml.SafeDumper).encode()),
    st.text(alphabet=_SYMBOLS, max_size=60).map(str.encode),
    st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=60),
)
OVERRIDES = st.tuples(_KEYS, _TREES | st.text(max_size=30)).map(
    lambda pair: f"{pair[0]}={pair[1]}".encode("utf-8", "surrogatepass")
)


def from_hypothesis(strategy: st.SearchStrategy[bytes], number: int, count: int) -> list[bytes]:
    """Return `count` examples of a strategy, the same ones for the same `number`."""
    found: list[bytes] = []
    options = settings(
        max_examples=count, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    collect = given(strategy)(lambda data: found.append(data))  # noqa: PLW0108 - no builtins
    seed(number)(options(collect))()
    return (found * count)[:count]  # a small strategy may run out of examples


def zipped(parts: dict[str, bytes], way: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file of these members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", way) as archive:
        for name, data in parts.items():
            info = zipfile.ZipInfo(name)  # of no date: the same seed gives the same bytes
            info.compress_type = way
            archive.writestr(info, data)
    return file.getvalue()


def npy(rng: Rng, array: np.ndarray[Any, Any], honest: float) -> bytes:
    """An .npy file, whose header now and then promises something else."""
    file = io.BytesIO()
    np.save(file, array)
    data = file.getvalue()
    if rng.random() < honest:
        return data
    dtype = pick(rng, ("|u1", "<i8", "<f4", "|O", "|V0", "<U9", "|b1", ">u2", "[('a','<i4')]"))
    shape = [pick(rng, (*ODD_NUMBERS, 28, 5)) for _ in range(int(rng.integers(0, 6)))]
    said = pick(rng, (f"({', '.join(map(str, shape))})", "(" * 300, "(-1,)", "((1,),)", "(1e3,)"))
    order = pick(rng, ("False", "True", "None", "1"))
    head = f"{{'descr': '{dtype}', 'fortran_order': {order}, 'shape': {said}}}\n".encode()
    if rng.random() < 0.2:
        head = damaged(rng, head)
    version = pick(rng, (1, 1, 2, 3, 9))
    size = struct.pack("<H" if version == 1 else "<I", len(head))
    return b"\x93NUMPY" + bytes([version, 0]) + size + head + data[128:]


def npz(rng: Rng) -> bytes:
    """Images and labels with crafted headers, or packed files with damaged bytes."""
    images = rng.integers(0, 256, (20, 28, 28), np.uint8) // pick(rng, (1, 64, 255))
    keys = ("x_train", "y_train", "x_test", "y_test")
    honest = pick(rng, (1.0, 0.6))
    parts = {}
    for key in keys[: pick(rng, (1, 2, 4, 4))]:
        array = images if key[0] == "x" else images[:, 0, 0] % 10
        parts[f"{key}.npy"] = npy(rng, array, honest)
    if rng.random() < 0.05:
        parts["../../evil.npy"] = parts["x_train.npy"]
    if rng.random() < 0.01:
        return packed_zeros(pick(rng, (40, 300)))
    way = pick(rng, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED))
    data = zipped(parts, pick(rng, (way, way, way, zipfile.ZIP_BZIP2)))
    return damaged(rng, data) if honest == 1.0 or rng.random() < 0.3 else data


@cache
def packed_zeros(mebibytes: int) -> bytes:
    """An npz of so many MiB of zeros, a thousandth as large itself."""
    file = io.BytesIO()
    shape = (mebibytes * 2**20 // 784, 28, 28)
    head = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    packed = zipfile.ZipInfo("x_train.npy")
    packed.compress_type = zipfile.ZIP_DEFLATED
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(packed, "w", force_zip64=True) as member,
    ):
        member.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head)
        for _ in range(shape[0]):
            member.write(bytes(784))
    return file.getvalue()


IDX_FILES = (
    "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)  # fmt: skip


def npy_files(rng: Rng) -> bytes:
    """Whether it is the labels, and an .npy file with a crafted header or damaged bytes."""
    labels = bool(rng.random() < 0.4)
    images = rng.integers(0, 10, (20,) if labels else (20, 28, 28), np.uint8)
    data = npy(rng, images, 0.5)
    return bytes([labels]) + (damaged(rng, data) if rng.random() < 0.5 else data)


def idx_file(ndim: int, shape: tuple[int, ...], data: bytes) -> bytes:
    """An IDX file of bytes, whatever its header says."""
    return struct.pack(f">I{ndim}I", 0x0800 + ndim, *(n % 2**32 for n in shape)) + data


def idx(rng: Rng) -> bytes:
    """The number of the file to replace, and a damaged IDX file, packed or not."""
    which = int(rng.integers(4))
    shape: tuple[int, ...] = (20, 28, 28) if which % 2 == 0 else (20,)
    data = rng.integers(0, 256 if which % 2 == 0 else 10, shape, np.uint8).tobytes()
    if rng.random() < 0.4:
        shape = tuple(pick(rng, ODD_NUMBERS) for _ in shape)
    file = idx_file(len(shape), shape, data)
    if rng.random() < 0.5:
        file = damaged(rng, file)
    if rng.random() < 0.4:
        file = gzip.compress(file, 1, mtime=0)
        if rng.random() < 0.5:
            file = damaged(rng, file)
    return bytes([which]) + file


@cache
def pictures() -> list[bytes]:
    """Small valid files of every format that is read, in the kinds that Pillow writes."""
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    gray = Image.fromarray(noise)
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x010E: "described"})
    kinds: list[tuple[Any, str, dict[str, Any]]] = [
        *((gray.convert(mode), "PNG", {"exif": exif}) for mode in ("L", "RGB", "RGBA", "P", "1")),
        (Image.fromarray(noise.astype(np.uint16)), "PNG", {"exif": exif}),
        (gray.convert("LA"), "PNG", {"exif": exif}),
        (gray, "JPEG", {}),
        (gray.convert("RGB"), "JPEG", {"progressive": True}),
        (gray.convert("CMYK"), "JPEG", {"exif": exif}),
        (gray, "WEBP", {}),
        (gray, "WEBP", {"lossless": True}),
        (gray, "BMP", {}),
        (gray, "GIF", {"save_all": True, "append_images": [gray.rotate(90)]}),
        (gray, "TIFF", {}),
        (gray, "TIFF", {"compression": "tiff_lzw"}),
        (gray, "TIFF", {"compression": "tiff_adobe_deflate"}),
        (gray, "TIFF", {"compression": "packbits"}),
    ]
    files = []
    for image, kind, options in kinds:
        file = io.BytesIO()
        image.save(file, kind, **options)
        files.append(file.getvalue())
    return files


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG with the right checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@cache
def png_extras() -> tuple[bytes, ...]:
    """Chunks that unpack to much, or promise what is not there."""
    zeros = zlib.compress(bytes(20_000_000), 1)
    return (
        chunk(b"zTXt", b"k\0\0" + zeros),
        chunk(b"iTXt", b"k\0\1\0\0\0" + zeros),
        chunk(b"iCCP", b"k\0\0" + zeros),
        chunk(b"tEXt", b"k\0" + bytes(100_000)),
        chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\xff\xff\xff\xff\0\x06"),
        chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)),
        chunk(b"PLTE", bytes(range(30))),
        b"",
    )


def crafted_png(rng: Rng) -> bytes:
    """A PNG whose chunks are whole and whose contents are not what they should be."""
    size = [pick(rng, (28, 28, 28, 5000, 60_000, 2**31 - 1, 0)) for _ in range(2)]
    depth, color = pick(rng, ((8, 0), (16, 0), (8, 2), (16, 6), (1, 3), (8, 9), (4, 0)))
    head = struct.pack(">IIBBBBB", *size, depth, color, 0, 0, int(rng.integers(2)))
    pixels = chunk(b"IDAT", zlib.compress(bytes(int(rng.integers(1, 100_000)))))
    middle = b"".join(pick(rng, png_extras()) for _ in range(2))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + middle + pixels + chunk(b"IEND", b"")


def images(rng: Rng) -> bytes:
    """A damaged picture, or a crafted PNG. What a file is is told by its bytes, not by its name."""
    if rng.random() < 0.15:
        return crafted_png(rng)
    return damaged(rng, pick(rng, pictures()), pick(rng, pictures()))


def each(maker: Callable[[Rng], bytes], number: int, count: int) -> list[bytes]:
    """Return `count` inputs of a maker, each from a generator of its own."""
    return [maker(np.random.default_rng([number, i])) for i in range(count)]
