"""Predictions for image files: photographs, folders, patterns."""

import csv
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convae.config.loader import load_config
from convae.config.schema import Config
from convae.data.image_folder import list_folder
from convae.data.loading import load_test
from convae.errors import ConvaeError
from convae.inference import predict
from convae.inference.autoencoder import load
from convae.models.builder import build_model, save_plain
from convae.runs.run import Run
from convae.tasks import build_task
from tests.conftest import ROOT, SAMPLE, Command

MNIST = ROOT / "configs/mnist.yaml"


def digits(count: int) -> np.ndarray:
    with np.load(SAMPLE) as file:
        return np.asarray(file["x_test"][:count])


def save_digits(folder: Path, count: int) -> Path:
    folder.mkdir()
    for index, digit in enumerate(digits(count)):
        Image.fromarray(digit).save(folder / f"{index}.png")
    return folder


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
        predict.read_input(build_task(load_config(MNIST)), tmp_path / "blank.png", as_digit=True)


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


def test_a_folder_is_listed_as_for_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.png", ".ipynb_checkpoints/a.png", "__MACOSX/a.png", "b.png/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (9, 9)).save(tmp_path / name)
    (tmp_path / "._a.png").write_bytes(b"\0\5\x16\7")
    names = [name for _, name in predict.find_files([str(tmp_path)])]
    assert sorted(names) == sorted(str(Path(n).with_suffix("")) for n in list_names(tmp_path))
    assert names == ["a", "b.png/c"]
    assert not caplog.records
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert [name for _, name in predict.find_files([str(tmp_path)])] == names
    assert "2 files are not used, such as loop.png: a link that leads nowhere" in caplog.text


def list_names(folder: Path) -> list[str]:
    return list_folder(folder, "train").names


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_of_any_bytes(tmp_path: Path) -> None:
    run = Run.find("pretrained:bottleneck", str(tmp_path))
    folder = tmp_path / "in"
    names = [
        b"caf\xe9.png",
        b"two\nlines.png",
        b'<b>&,".png',
        "\u202e.png".encode(),
        b"overview.png",
    ]
    for name, digit in zip(names, digits(5), strict=True):
        path = folder / os.fsdecode(b"class\xff") / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digit).save(path)
    path.rename(folder / "overview.png")
    found = predict.predict(run, [str(folder)], tmp_path / "out")
    assert {os.path.basename(os.fsencode(one.file)) for one in found} == set(names)  # noqa: PTH119
    assert all(Path(one.file).is_file() and Path(one.output).is_file() for one in found)
    text = (tmp_path / "out/scores.csv").read_text(encoding="utf-8")
    rows = [row["file"].removeprefix(f"{folder}/") for row in csv.DictReader(text.splitlines())]
    expected = {"caf\\xe9.png", "two\\nlines.png", '<b>&,".png', "\\u202e.png"}
    assert set(rows) == {f"class\\xff/{name}" for name in expected} | {"overview.png"}
    shown = [json.dumps(predict.describe(one), ensure_ascii=False).encode() for one in found]
    assert b"caf\\\\xe9.png" in b"".join(shown)
    predict.format_predictions(found, folder).encode()
    assert (tmp_path / "out/overview-2.png").is_file()  # overview.png shows all of them


def test_a_model_scores_files(tmp_path: Path) -> None:
    run = Run.find("pretrained:bottleneck", str(tmp_path))
    folder = save_digits(tmp_path / "in", 12)
    noise = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    found = predict.predict(run, [str(folder)], tmp_path / "out")
    assert len(found) == 13
    assert all(np.asarray(Image.open(str(one.output))).shape == (28, 28) for one in found)
    rows = list(csv.DictReader((tmp_path / "out/scores.csv").read_text().splitlines()))
    assert Path(rows[0]["file"]).name == "noise.png"  # the highest score stands first
    assert float(rows[0]["score"]) > 5 * float(rows[1]["score"])
    assert (tmp_path / "out/overview.png").stat().st_size > 5_000


def test_no_result_replaces_an_input(tmp_path: Path) -> None:
    run = Run.find("pretrained:mnist", str(tmp_path))
    folder = save_digits(tmp_path / "in", 2)
    (tmp_path / "link").symlink_to(folder)
    before = [path.read_bytes() for path in sorted(folder.iterdir())]
    for names, output in (([folder], folder), ([folder], tmp_path / "link"),
                          ([folder / "1.png"], folder)):  # fmt: skip
        with pytest.raises(ConvaeError, match=r"\d.png: is an input, which its result would"):
            predict.predict(run, [str(name) for name in names], output)
    assert [path.read_bytes() for path in sorted(folder.iterdir())] == before
    for _ in range(2):  # but results replace those from before
        predict.predict(run, [str(folder)], tmp_path / "results")


def save_mixed_files(folder: Path, sizes: list[tuple[int, int]]) -> None:
    """Save gray, color, transparent, 16-bit and rotated images, ten of each size."""
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    folder.mkdir()
    for number, (high, wide) in enumerate(sizes * 2):
        color = rng.integers(0, 256, (high, wide, 4), np.uint8)
        Image.fromarray(color).save(folder / f"{number}-clear.png")
        Image.fromarray(color[..., :3]).save(folder / f"{number}.png")
        Image.fromarray(color[..., 0]).save(folder / f"{number}.webp", lossless=True)
        Image.fromarray(color[..., 1].astype(np.uint16) * 257).save(folder / f"{number}.tif")
        turned = Image.fromarray(np.rot90(color[..., :3]))
        turned.save(folder / f"{number}.jpg", exif=exif, quality=95)


CROPPED = ["data.crop=random", "data.resize=[36,40]"]


@pytest.mark.parametrize(
    ("name", "overrides", "sizes"),
    [
        ("mnist", ["data.resize=[28,28]", "data.resize_mode=stretch"], [(20, 90), (300, 50)]),
        ("mnist", ["data.resize=[28,28]", "data.background=black"], [(20, 90), (28, 28)]),
        ("mnist", ["data.crop=random"], [(40, 50)]),
        ("mnist", CROPPED, [(40, 50), (90, 20)]),
        ("mnist", [], [(28, 28)]),
        ("images", [*CROPPED, "data.resize=[70,90]", "data.resize_mode=stretch"], [(40, 50)]),
        ("upscale", ["data.resize=[28,28]", "data.resize_mode=stretch"], [(20, 90), (300, 50)]),
        ("upscale", CROPPED, [(40, 50), (90, 20)]),
    ],
)
def test_files_get_the_pixels_that_eval_reads(
    tmp_path: Path, name: str, overrides: list[str], sizes: list[tuple[int, int]]
) -> None:
    save_mixed_files(tmp_path / "in", sizes)
    words = [f"data.path={tmp_path / 'in'}", "data.test_split=0.5", *overrides]
    config = load_config(ROOT / f"configs/{name}.yaml", words)
    task = build_task(config)
    test = load_test(config.data, task.image_shape).test
    expected = {image.tobytes() for image in task.evaluation_examples(test).inputs}
    found = {task.read_input(path).tobytes() for path in (tmp_path / "in").iterdir()}
    assert expected
    assert expected < found


def new_run(config: Config) -> Run:
    run = Run.create(config)
    run.save_model("best.keras", lambda path: save_plain(build_model(config), path))
    return run


def test_scores_are_those_of_eval(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_mixed_files(tmp_path / "in", [(20, 90)])
    (tmp_path / "in").rename(tmp_path / "test")
    save_mixed_files(tmp_path / "train", [(30, 60)])
    (tmp_path / "in").mkdir()
    for split in ("train", "test"):
        (tmp_path / split).rename(tmp_path / "in" / split)
    words = [f"data.path={tmp_path / 'in'}", "data.resize=[28,28]", "data.resize_mode=stretch",
             f"output.folder={tmp_path}"]  # fmt: skip
    run = new_run(load_config(MNIST, words))
    task, autoencoder = build_task(run.config), load(run.path)
    examples = task.evaluation_examples(load_test(run.config.data, task.image_shape).test)
    scores = task.scores(examples.targets, autoencoder.reconstruct(examples.inputs))["mse"]
    caplog.clear()
    found = predict.predict(run, [str(tmp_path / "in/test")], tmp_path / "out")
    assert sorted(one.score or 0 for one in found) == pytest.approx(sorted(scores), rel=1e-6)
    assert caplog.text.count("2 of 10 images have transparent pixels") == 1
    images = autoencoder.read_images(sorted((tmp_path / "in/test").iterdir()))
    assert sorted(autoencoder.score(images)) == pytest.approx(sorted(scores), rel=1e-6)
    with pytest.raises(ConvaeError, match=r"nothing\.png: this image cannot be read"):
        autoencoder.read_images([tmp_path / "nothing.png"])


def test_small_images_are_upscaled_as_they_are(tmp_path: Path) -> None:
    small = digits(1)[0][7:21, 7:21]
    Image.fromarray(small).save(tmp_path / "small.png")
    for overrides in ([], CROPPED):
        task = build_task(load_config(ROOT / "configs/upscale.yaml", overrides))
        np.testing.assert_array_equal(task.read_input(tmp_path / "small.png")[..., 0], small)


def test_scenes_to_segment_are_not_resized_as_digits_are(tmp_path: Path) -> None:
    config = load_config(ROOT / "configs/segment.yaml", ["data.resize=[28,28]"])
    high, wide, _ = config.model.input_shape
    scene = np.random.default_rng(0).integers(0, 256, (high, wide, 3), np.uint8)
    Image.fromarray(scene).save(tmp_path / "scene.png")
    np.testing.assert_array_equal(build_task(config).read_input(tmp_path / "scene.png"), scene)


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
