"""Image files of every mode and format, as the pixels of a run."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from convae.config.schema import Data
from convae.data import image_file
from convae.data.image_file import FORMATS, ImageReader
from convae.data.transforms import ResizeMode, resize_images

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
WHITE = (255, 255, 255)


def read(data: bytes | Image.Image, channels: int = 3, form: str = "PNG", **settings: Any) -> Any:
    """Return the pixels of a file, (H, W, 3), or (H, W) if they are gray."""
    if isinstance(data, Image.Image):
        stream = io.BytesIO()
        data.save(stream, form)
        data = stream.getvalue()
    shape = (1, 1, channels)
    pixels = ImageReader(Data(**settings), shape).decode(io.BytesIO(data))
    return pixels if channels == 3 else pixels[..., 0]


def png(depth: int, kind: int, values: Any, **chunks: bytes) -> bytes:
    """Return a PNG of one row, with 1 to 16 bits and the kind of pixels of the PNG standard."""
    flat = np.ravel(values)
    bits = "".join(format(int(value), f"0{depth}b") for value in flat)
    bits += "0" * (-len(bits) % 8)
    row = b"\0" + int(bits, 2).to_bytes(len(bits) // 8)
    head = struct.pack(">IIBBBBB", len(values), 1, depth, kind, 0, 0, 0)
    parts = {"IHDR": head, **chunks, "IDAT": zlib.compress(row), "IEND": b""}
    data = b"\x89PNG\r\n\x1a\n"
    for name, content in parts.items():
        named = name.encode() + content
        data += struct.pack(">I", len(content)) + named + struct.pack(">I", zlib.crc32(named))
    return data


def tiff(image: Image.Image, photometric: int | None = None, sample_format: int = 1) -> bytes:
    """Return a TIFF with the given tags, whatever Pillow would write."""
    stream = io.BytesIO()
    image.save(stream, "TIFF", tiffinfo={339: sample_format})
    data = bytearray(stream.getvalue())
    if photometric is not None:
        set_tag(data, 262, photometric)
    return bytes(data)


def set_tag(data: bytearray, tag: int, value: int) -> None:
    entry = data.index(struct.pack("<HHI", tag, 3, 1))  # 3: two bytes
    data[entry + 8 : entry + 10] = struct.pack("<H", value)


def ramp(dtype: str, *values: int) -> Image.Image:
    return Image.fromarray(np.array([values], dtype))


def test_crop_keeps_the_aspect_ratio_and_stretch_the_complete_image(tmp_path: Path) -> None:
    wide = np.zeros((20, 60, 1), np.uint8)
    wide[:, 20:40] = 200  # the middle third is the largest square
    path = tmp_path / "wide.png"
    Image.fromarray(wide[..., 0]).save(path)

    def decode(mode: ResizeMode) -> NDArray[np.uint8]:
        return ImageReader(Data(resize=(10, 10), resize_mode=mode), (10, 10, 1)).read(path)

    cropped = decode("crop")
    np.testing.assert_array_equal(cropped[:, 1:-1], np.full((10, 8, 1), 200))
    assert cropped.min() > 150
    stretched = decode("stretch")
    assert (stretched[:, 0].max(), stretched[:, 5].min()) == (0, 200)
    modes: tuple[ResizeMode, ...] = ("crop", "stretch")
    for mode in modes:
        (resized,) = resize_images(wide[None], (10, 10), mode)
        np.testing.assert_array_equal(resized, decode(mode))


def test_large_jpegs_are_decoded_small_and_upright(tmp_path: Path) -> None:
    x = np.zeros((400, 600, 3), np.uint8)
    x[:, :300] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it clockwise: what was left is at the top
    Image.fromarray(x).save(tmp_path / "a.jpg", exif=exif)
    small = ImageReader(Data(), (30, 20, 3)).read(tmp_path / "a.jpg").astype(int)
    assert small[2].min() > 250
    assert small[-3].max() < 5


def test_a_crop_takes_the_center_and_refuses_smaller_images(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 9), np.uint8)
    Image.fromarray(image).save(tmp_path / "x.png")
    reader = ImageReader(Data(crop="random"), (4, 5, 1))
    np.testing.assert_array_equal(reader.read(tmp_path / "x.png")[..., 0], image[2:6, 2:7])
    with pytest.raises(ValueError, match="a crop of 9 x 9 does not fit into images of 8 x 9"):
        ImageReader(Data(crop="random"), (9, 9, 1)).read(tmp_path / "x.png")


def layers() -> dict[str, bytes | Image.Image]:
    """Files of four pixels: red, hidden green, hidden black, blue."""
    color = np.array([[(*RED, 255), (*GREEN, 0), (0, 0, 0, 0), (*BLUE, 255)]], np.uint8)
    rgba = Image.fromarray(color)
    palette = bytes((*RED, *GREEN, 0, 0, 0, *BLUE))
    deep = (color.astype(int) * 257)[0]
    plain = [RED, WHITE, WHITE, BLUE]
    return {
        "RGBA": rgba,
        "RGBA of 16 bits": png(16, 6, deep),
        "palette": png(2, 3, [0, 1, 2, 3], PLTE=palette, tRNS=b"\xff\0\0"),
        "RGB": png(8, 2, [RED, GREEN, GREEN, BLUE], tRNS=struct.pack(">3H", *GREEN)),
        "RGB of 16 bits": png(
            16,
            2,
            np.array([RED, GREEN, GREEN, BLUE]) * 256 + 9,
            tRNS=struct.pack(">3H", 9, 65289, 9),
        ),
        "opaque": Image.fromarray(np.array([plain], np.uint8)),
    }


@pytest.mark.parametrize("name", layers())
def test_transparent_images_are_drawn_on_the_background(name: str) -> None:
    data = layers()[name]
    np.testing.assert_array_equal(read(data), [[RED, WHITE, WHITE, BLUE]])
    np.testing.assert_array_equal(read(data, 1), [[76, 255, 255, 29]])
    if name != "opaque":
        violet = (99, 7, 200)
        np.testing.assert_array_equal(read(data, background=violet), [[RED, violet, violet, BLUE]])


@pytest.mark.parametrize(
    ("depth", "values", "clear", "levels"),
    [
        (1, [0, 1], 0, [255, 255]),
        (1, [0, 1], 1, [0, 50]),
        (2, [0, 1, 2, 3], 1, [0, 50, 170, 255]),
        (4, [0, 7, 9, 15], 7, [0, 50, 153, 255]),
        (8, [0, 7, 9, 255], 7, [0, 50, 9, 255]),
        (16, [0, 700, 701, 65535], 700, [0, 50, 2, 255]),
    ],
)
def test_gray_pngs_may_have_a_transparent_value(
    depth: int, values: list[int], clear: int, levels: list[int]
) -> None:
    background = (50, 50, 50) if 50 in levels else (255, 255, 255)
    data = png(depth, 0, values, tRNS=struct.pack(">H", clear))
    np.testing.assert_array_equal(read(data, 1, background=background), [levels])
    colored = read(data, background=background)
    np.testing.assert_array_equal(colored, np.repeat(np.array([levels])[..., None], 3, axis=2))


def test_half_transparent_pixels_are_mixed_with_the_background() -> None:
    layer = Image.fromarray(np.array([[(0, 128), (100, 255)]], np.uint8))
    assert layer.mode == "LA"
    for form in ("PNG", "TIFF", "WEBP"):
        assert np.abs(read(layer, 1, form).astype(int) - [[127, 100]]).max() <= 2
        dark = read(layer, 1, form, background=(0, 0, 0)).astype(int)
        assert np.abs(dark - [[0, 100]]).max() <= 2  # WebP is lossy
    film = [Image.new("RGBA", (2, 1), color) for color in ((9, 9, 9, 0), (*RED, 255))]
    for form in ("GIF", "PNG", "WEBP"):
        stream = io.BytesIO()
        film[0].save(stream, form, save_all=True, append_images=film[1:])
        np.testing.assert_array_equal(read(stream.getvalue()), [[WHITE, WHITE]])


def test_what_is_lost_is_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    reader = ImageReader(Data(), (1, 2, 3))
    several = {"save_all": True, "append_images": [Image.new("RGB", (2, 1), RED)]}
    for form in FORMATS:
        for mode, more in (("RGB", {}), ("RGBA", {}), ("RGB", several)):
            if form not in {"JPEG", "BMP"} or (mode, more) == ("RGB", {}):
                stream = io.BytesIO()
                Image.new(mode, (2, 1)).save(stream, form, **more)
                reader.read(stream)
    reader.log_losses(16)
    assert [record.getMessage() for record in caplog.records] == [
        "4 of 16 images have transparent pixels: they are drawn on data.background, "
        "[255, 255, 255]",
        "4 of 16 images have more than one frame or page: only the first is used",
    ]
    reader.log_losses(16)
    assert len(caplog.records) == 2


def test_a_preview_in_a_jpeg_is_no_frame_and_hides_no_scans(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.BytesIO()
    photograph, preview = Image.new("RGB", (16, 8), RED), Image.new("RGB", (8, 4), GREEN)
    photograph.save(stream, "MPO", save_all=True, append_images=[preview])
    with Image.open(stream) as opened:
        assert opened.format == "MPO"
    reader = ImageReader(Data(), (8, 16, 3))
    assert np.abs(reader.read(stream).astype(int) - RED).max() < 3
    reader.log_losses(1)
    assert caplog.text == ""
    monkeypatch.setattr(image_file, "MAX_WORK", 16 * 8)  # one scan of the photograph
    with pytest.raises(ValueError, match="scans of 16 x 8 pixels"):
        reader.read(stream)


def test_a_damaged_second_frame_is_no_reason_to_refuse_the_first() -> None:
    stream = io.BytesIO()
    second = Image.new("RGB", (2, 1), GREEN)
    Image.new("RGB", (2, 1), RED).save(stream, "GIF", save_all=True, append_images=[second])
    data = stream.getvalue()
    for end in range(len(data) - 12, len(data)):
        np.testing.assert_array_equal(read(data[:end]), [[RED, RED]])


DEEP = (0, 1000, 32896, 65535)
LEVELS = [0, 3, 128, 255]


@pytest.mark.parametrize(
    ("data", "levels"),
    [
        pytest.param(png(16, 0, DEEP), LEVELS, id="PNG"),
        pytest.param(tiff(ramp("<u2", *DEEP)), LEVELS, id="TIFF"),
        pytest.param(tiff(ramp(">u2", *DEEP)), LEVELS, id="TIFF, big-endian"),
        pytest.param(tiff(ramp("<u2", *DEEP), photometric=0), [255, 251, 127, 0], id="inverted"),
        pytest.param(png(16, 4, [(v, 65535) for v in DEEP]), LEVELS, id="PNG with opacity"),
        pytest.param(png(16, 2, [(v, v, v) for v in DEEP]), LEVELS, id="PNG in color"),
        pytest.param(tiff(ramp("u1", 0, 3, 128, 255), photometric=0), [255, 252, 127, 0], id="8"),
        pytest.param(png(1, 0, [0, 1, 1, 0]), [0, 255, 255, 0], id="1 bit"),
        pytest.param(png(4, 0, [0, 1, 8, 15]), [0, 17, 136, 255], id="4 bits"),
    ],
)
def test_known_ranges_are_scaled(data: bytes, levels: list[int]) -> None:
    expected = np.array([levels])
    np.testing.assert_allclose(read(data, 1), expected, atol=0)
    np.testing.assert_allclose(read(data), np.repeat(expected[..., None], 3, axis=2), atol=0)


def test_values_of_12_bits_are_scaled() -> None:
    packed = bytearray(tiff(ramp("<u2", 1, 0xABCD, 1)))
    set_tag(packed, 258, 12)
    strip = packed.index(bytes.fromhex("0100 cdab 0100"))
    packed[strip : strip + 6] = bytes.fromhex("0007ff fff000")
    np.testing.assert_array_equal(read(bytes(packed), 1), [[0, 127, 255]])


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (tiff(ramp("<i4", *range(256))), "integers"),
        (tiff(ramp("<i4", 0, 25_500_000)), "integers"),
        (tiff(ramp("<u2", 0, 9), sample_format=2), "signed integers"),
        (tiff(ramp("u1", 0, 9), sample_format=2), "signed integers"),
        (tiff(ramp("<f4", 0, 1)), "floats"),
    ],
)
def test_unknown_ranges_are_refused(data: bytes, kind: str) -> None:
    for channels in (1, 3):
        with pytest.raises(
            ValueError, match=f"its pixels are .*{kind}.*, whose range is not known"
        ):
            read(data, channels)


@pytest.mark.parametrize("mode", ["CMYK", "LAB", "YCbCr", "HSV"])
def test_other_color_spaces_become_rgb(mode: str) -> None:
    color = Image.new("RGB", (8, 8), (200, 120, 40)).convert(mode)
    form = {"CMYK": "TIFF", "LAB": "TIFF", "YCbCr": "JPEG", "HSV": "WEBP"}[mode]
    assert np.abs(read(color, 3, form).astype(int) - (200, 120, 40)).max() <= 4
    assert np.abs(read(color, 1, form).astype(int) - 135).max() <= 3


def test_an_upright_image_keeps_its_transparent_pixels() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    layer = Image.fromarray(np.array([[(9, 255), (0, 0)]], np.uint8))
    layer.save(stream, "PNG", exif=exif)
    np.testing.assert_array_equal(read(stream.getvalue(), 1), [[9], [255]])
