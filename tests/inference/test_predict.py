"""Predictions for image files: photographs, folders, patterns."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convae.errors import ConvaeError
from convae.inference import predict
from convae.runs.run import Run
from tests.conftest import SAMPLE, Command


def digits(count: int) -> np.ndarray:
    with np.load(SAMPLE) as file:
        return np.asarray(file["x_test"][:count])


def photograph(digit: np.ndarray) -> Image.Image:
    """A digit in dark ink on bright paper, large, in a corner of a sheet that is not evenly lit."""
    ink = Image.fromarray(digit).resize((168, 168), Image.Resampling.BILINEAR)
    paper = np.linspace(200, 235, 420)[None, :].repeat(300, axis=0)
    paper[20:188, 30:198] -= np.asarray(ink) * 0.7
    return Image.fromarray(paper.clip(0, 255).astype(np.uint8))


def test_a_photograph_becomes_an_image_like_those_of_mnist() -> None:
    alike = []
    for digit in digits(8):
        found = predict.crop_digit(np.asarray(photograph(digit)), (28, 28))
        rows, columns = (np.flatnonzero(found.max(axis=axis) > 60) for axis in (1, 0))
        assert max(np.ptp(rows), np.ptp(columns)) + 1 in {19, 20, 21}
        weights = found / found.sum()
        center = [float((weights.sum(axis=1 - a) * np.arange(28)).sum()) for a in (0, 1)]
        assert center == pytest.approx([14, 14], abs=0.7)  # as in MNIST
        shifts = [np.roll(found, (r, c), (0, 1)) for r in (-1, 0, 1) for c in (-1, 0, 1)]
        alike.append(max(np.corrcoef(s.ravel(), digit.ravel())[0, 1] for s in shifts))
    assert np.mean(alike) > 0.95


def test_white_ink_on_black_is_found() -> None:
    picture = np.asarray(photograph(digits(1)[0]))
    np.testing.assert_allclose(
        predict.crop_digit(picture, (28, 28)), predict.crop_digit(255 - picture, (28, 28)), atol=1
    )


def test_an_empty_sheet_is_no_digit(tmp_path: Path) -> None:
    Image.new("L", (50, 40), 200).save(tmp_path / "blank.png")
    with pytest.raises(ConvaeError, match=r"blank.png: .*nothing stands out from its background"):
        predict.read_image(tmp_path / "blank.png", (28, 28, 1), as_digit=True)


def test_files_folders_and_patterns_keep_their_names(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/b/1.png", "c/1.jpg", "c/2.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 9)).save(path)
    (tmp_path / "a/notes.txt").write_text("no image")
    found = predict.find_files([str(tmp_path / "a"), str(tmp_path / "c/*.jpg")])
    assert [name for _, name in found] == ["1", "b/1", "1-2", "2"]
    with pytest.raises(ConvaeError, match="no such file or folder, and no file matches it"):
        list(predict.find_files([str(tmp_path / "nothing*")]))


def test_a_model_scores_files(tmp_path: Path) -> None:
    run = Run.find("pretrained:bottleneck", str(tmp_path))
    folder = tmp_path / "in"
    folder.mkdir()
    for index, digit in enumerate(digits(12)):
        Image.fromarray(digit).save(folder / f"{index}.png")
    noise = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    found = predict.predict(run, [str(folder)], tmp_path / "out")
    assert len(found) == 13
    assert all(np.asarray(Image.open(str(one.output))).shape == (28, 28) for one in found)
    rows = list(csv.DictReader((tmp_path / "out/scores.csv").read_text().splitlines()))
    assert Path(rows[0]["file"]).name == "noise.png"  # the highest score stands first
    assert float(rows[0]["score"]) > 5 * float(rows[1]["score"])
    assert (tmp_path / "out/overview.png").stat().st_size > 5_000


@pytest.mark.slow
def test_the_command_line(tmp_path: Path, convae: Command) -> None:
    photograph(digits(1)[0]).save(tmp_path / "photo.jpg")
    words = ["predict", "pretrained:mnist", str(tmp_path / "photo.jpg"), "--as-digit", "--json"]
    done = convae(*words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["score"] < 0.01
    (tmp_path / "text.png").write_text("this is no image")
    wrong = convae("predict", "pretrained:mnist", "text.png")
    assert wrong.returncode == 2
    assert "text.png: this image cannot be read" in wrong.stderr
    assert "Traceback" not in wrong.stderr
