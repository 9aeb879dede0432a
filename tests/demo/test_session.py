"""Views of an image for every task, and the files that a browser may send."""

from __future__ import annotations

import base64
import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convae.config.loader import load_config
from convae.demo.session import MAX_CHANNELS, Choice, Session, choices, mosaic, open_session
from convae.errors import ConvaeError
from convae.inference.autoencoder import Autoencoder
from convae.models.builder import build_model
from tests.conftest import ROOT


def made(name: str, threshold: float | None = None, *overrides: str) -> Session:
    config = load_config(ROOT / f"configs/{name}.yaml", overrides)
    return Session(Autoencoder(build_model(config), config), config, threshold)


def pixels(uri: str) -> Any:
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def image(array: Any, form: str = "PNG") -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.asarray(array, np.uint8)).save(data, form)
    return data.getvalue()


def bar(height: int = 100, width: int = 100) -> Any:
    paper = np.full((height, width), 255, np.uint8)
    paper[height // 5 : -height // 5, width // 8 : width // 4] = 0
    return paper


def test_the_code_of_a_model_that_generates_can_be_changed() -> None:
    seen = made("generate")
    view = seen.view(seen.read_image(image(bar()), as_digit=True))
    assert view.code is not None
    assert len(view.code) == 16
    (again,) = seen.decode_view(json.dumps(view.code).encode()).pictures
    np.testing.assert_array_equal(pixels(again.uri), pixels(view.pictures[1].uri))
    (other,) = seen.decode_view(json.dumps([*view.code[1:], 3]).encode()).pictures
    assert (pixels(other.uri) != pixels(again.uri)).any()
    for odd in (b"", b"[1]", b"[" * 10**5, b'["a"]', b"{}", b"[1e999]" * 1, b"[[null]]"):
        with pytest.raises(ConvaeError):
            seen.decode_view(odd)
    assert made("bottleneck").view(np.zeros((28, 28, 1), np.uint8)).code is None


def test_reconstructions_show_the_code() -> None:
    seen = made("bottleneck")
    picture = seen.read_image(image(bar()), as_digit=True)
    assert picture.shape == (28, 28, 1)
    view = seen.view(picture)
    assert [p.title for p in view.pictures] == ["Input", "Reconstruction", "Absolute error", "Code"]
    goes_in, out, difference, code = (pixels(p.uri) for p in view.pictures)
    assert (goes_in == picture[:, :, 0]).all()
    assert (difference == np.abs(out.astype(int) - goes_in)).all()
    assert code.shape[2] == 2
    assert "32 numbers for 784" in view.pictures[3].caption
    assert view.lines[0].startswith("mean squared error")
    assert view.alarm is None
    expected = seen.autoencoder.reconstruct(picture)[0, :, :, 0]
    assert np.abs(expected * 255 - out).max() <= 0.51


def test_views_of_the_tasks() -> None:
    denoise = made("denoise")
    picture = denoise.read_image(image(bar()), as_digit=True)
    noisy, again, clean = (
        denoise.view(picture),
        denoise.view(picture),
        denoise.view(picture, corrupt=False),
    )
    assert noisy == again
    assert (pixels(noisy.pictures[0].uri) != picture[:, :, 0]).any()
    assert (pixels(clean.pictures[0].uri) == picture[:, :, 0]).all()
    assert noisy.pictures[2].title == "Clean target"
    assert denoise.options()["corrupt"] is True

    upscale = made("upscale")
    shapes = [
        pixels(p.uri).shape
        for p in upscale.view(upscale.read_image(image(bar()), as_digit=True)).pictures[:3]
    ]
    assert shapes == [(14, 14), (28, 28), (28, 28)]

    segment = made("segment")
    assert segment.options()["digit"] is False
    view = segment.view(segment.read_image(image(bar()), as_digit=True))  # a complete scene
    assert pixels(view.pictures[1].uri).shape == (*segment.shape[:2], 3)
    assert view.lines[0].startswith("pixels of")


@pytest.mark.parametrize(("threshold", "says"), [(0.0, "above"), (1e9, "below"), (None, "eval")])
def test_anomaly_scores_are_compared_with_the_threshold(threshold: float | None, says: str) -> None:
    seen = made("anomaly", threshold)
    view = seen.view(seen.read_image(image(bar()), as_digit=True))
    assert says in " ".join(view.lines)
    assert view.alarm == {"above": True, "below": False, "eval": None}[says]


@pytest.mark.parametrize(
    "data",
    [b"", b"just text", image(bar())[:-40], b"\x89PNG\r\n\x1a\n", image(np.full((9, 9), 255))],
    ids=["nothing", "text", "cut", "header", "blank"],
)
def test_an_image_without_a_digit_gives_one_message(data: bytes) -> None:
    with pytest.raises(ConvaeError, match="image cannot be read|no digit found"):
        made("bottleneck").read_image(data, as_digit=True)


def test_bombs_are_not_decoded() -> None:
    for side in (8_000, 12_000, 60_000):  # Pillow warns of the second and refuses the third
        bomb = bytearray(image(np.zeros((1, 1))))
        bomb[16:24] = np.array([side, side], ">u4").tobytes()
        bomb[29:33] = np.array([zlib.crc32(bomb[12:29])], ">u4").tobytes()
        for as_digit in (True, False):
            with pytest.raises(ConvaeError, match="pixels"):
                made("bottleneck").read_image(bytes(bomb), as_digit=as_digit)


def test_large_photographs_give_the_same_digit() -> None:
    seen = made("bottleneck")
    small, large = (
        seen.read_image(image(bar(*size)), as_digit=True) for size in ((100, 100), (3000, 3000))
    )
    assert np.abs(small.astype(int) - large).mean() < 12


def test_mosaics_show_every_channel() -> None:
    code = np.arange(2 * 3 * 5, dtype=np.float32).reshape(2, 3, 5)
    found = mosaic(code)
    assert found[:2, :3, 0].tolist() == np.rint(code[:, :, 0] * (255 / 29)).astype(int).tolist()
    assert (found[..., 1] == 255).sum() == code.size
    assert mosaic(np.zeros((1, 1, 32), np.float32))[..., 1].sum() == 32 * 255
    assert mosaic(np.ones((4, 4, 200), np.float32))[..., 1].sum() == MAX_CHANNELS * 16 * 255
    assert found.ndim == 3


def test_choices_are_runs_with_weights_and_shipped_weights(tmp_path: Path) -> None:
    for name, day in (("a", 1), ("b", 2), ("c", 3)):
        folder = tmp_path / name / f"2026010{day}-000000-{4 * name}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("")
        if name != "c":
            (folder / "best.keras").write_bytes(b"")
    found = choices([], str(tmp_path))
    assert [c.title for c in found[:2]] == ["b (20260102-000000-bbbb)", "a (20260101-000000-aaaa)"]
    assert all(c.name.startswith("pretrained:") for c in found[2:])
    assert len(found) > 2
    assert [c.title for c in choices(["a"], str(tmp_path))] == ["a (20260101-000000-aaaa)"]
    with pytest.raises(ConvaeError, match="no run called 'x'"):
        choices(["x"], str(tmp_path))
    with pytest.raises(ConvaeError, match="no best.keras yet"):
        choices(["c"], str(tmp_path))


def test_shipped_weights_are_loaded_once(tmp_path: Path) -> None:
    choice = Choice("mnist", "pretrained:mnist", str(tmp_path))
    assert open_session(choice) is open_session(choice)
