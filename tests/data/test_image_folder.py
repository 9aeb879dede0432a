"""Folders of image files, which the tests write."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convae.config import schema as config
from convae.data import image_file
from convae.data import loading as data
from convae.data.cache import read_folder
from convae.errors import ConvaeError
from tests.data.conftest import SHAPE, assert_has, make_images, refusal


def save_images(folder: Path, count: int, suffix: str = ".png", mode: str = "L") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, x in enumerate(make_images(count, (6, 5, 3) if mode == "RGB" else (6, 5))):
        Image.fromarray(x).save(folder / f"{i:03}{suffix}")


def test_images_with_classes(tmp_path: Path) -> None:
    for name in ("2", "10", "1"):
        (tmp_path / name).mkdir()
        for i in range(20):
            Image.new("L", (5, 6), 20 * int(name) + i).save(tmp_path / name / f"{i}.png")
    for name in (".DS_Store", "Thumbs.db", "README.md", "LICENSE"):
        (tmp_path / "2" / name).write_text("no image")
    settings = config.Data(path=str(tmp_path))
    training, test = data.load_training(settings, SHAPE), data.load_test(settings, SHAPE)
    assert training.classes == test.classes == ("1", "2", "10")
    assert (len(training.train), len(training.validation), len(test.test)) == (43, 11, 6)
    for split in (training.train, training.validation, test.test):
        labels = np.asarray(split.labels)
        assert len(set(labels)) > 1  # no cut follows the classes
        number = np.array([1, 2, 10])[labels]
        np.testing.assert_array_equal(split.images[:, 0, 0, 0] // 20, number)
    assert training.sha256 == data.load_training(settings, SHAPE).sha256


def test_images_with_train_and_test_folders(tmp_path: Path) -> None:
    save_images(tmp_path / "train" / "cat", 5)
    save_images(tmp_path / "train" / "dog", 5)
    save_images(tmp_path / "test" / "dog", 2)
    settings = config.Data(path=str(tmp_path))
    training, test = data.load_training(settings, SHAPE), data.load_test(settings, SHAPE)
    assert training.classes == test.classes == ("cat", "dog")
    assert (len(training.train), len(training.validation), len(test.test)) == (8, 2, 2)
    np.testing.assert_array_equal(test.test.labels, [1, 1])


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("Train", "Valid", "Test"),
        ("TRAIN", "VALIDATION", "TEST"),
        ("training", "validation", "testing"),
        ("training_set", "dev_set", "test_set"),
        ("seg_train", "seg_val", "seg_test"),
        ("train2017", "val2017", "test2017"),
    ],
)
@pytest.mark.parametrize("splits", ["train test", "train val", "train val test"])
def test_splits_are_known_by_the_names_of_folders(
    tmp_path: Path, names: tuple[str, str, str], splits: str, caplog: pytest.LogCaptureFixture
) -> None:
    sizes = dict(zip(("train", "val", "test"), (10, 4, 2), strict=True))
    folders = dict(zip(sizes, names, strict=True))
    for split in splits.split():
        save_images(tmp_path / folders[split] / "cat", sizes[split] // 2)
        save_images(tmp_path / folders[split] / "dog", sizes[split] // 2)
    settings = config.Data(path=str(tmp_path))
    training, test = data.load_training(settings, SHAPE), data.load_test(settings, SHAPE)
    assert training.classes == test.classes == ("cat", "dog")
    expected = (10, 4) if "val" in splits else (8, 2)
    if "test" not in splits:
        expected = (9, 4)
    assert (len(training.train), len(training.validation)) == expected
    assert len(test.test) == (2 if "test" in splits else 1)
    if "val" in splits:
        assert sorted(np.asarray(training.validation.labels)) == [0, 0, 1, 1]
    line = data.describe_splits(settings, training)
    assert_has(line, f"train from {names[0]}/ (10 images)", "2 classes: cat, dog")
    assert (f"validation: {names[1]}/ (4 images)" in line) == ("val" in splits)
    assert (f"test: {names[2]}/ (2 images)" in line) == ("test" in splits)
    assert "warning" not in caplog.text


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (("train/a", "training/a"), ["more than one folder of a split, train/, training/"]),
        (("train/a", "Train/a"), ["more than one folder of a split"]),
        (("train", "boat"), ["boat/ beside folders with the names of splits", "into a folder"]),
        (("train/a", "test/a", "test_old/a"), ["test_old/ beside"]),
        (("val/a", "test/a"), ["test/, val/ without a folder train/"]),
        (("test/a", "a", "b"), ["a/, b/ beside"]),
        (("train/a", "train/b", "test/c"), ["its classes are not those of train/", "Received: c"]),
        (("train/a", "train/b", "test/a", "test/B"), ["its classes are not those of train/"]),
        (("data/train/a", "data/test/a"), ["holds split folders, test/, train/", "data.path"]),
        (("a/train", "a/test", "b/train", "b/test"), ["/a: holds split folders"]),
    ],
)
def test_unclear_splits_are_refused(
    tmp_path: Path, folders: tuple[str, ...], words: list[str]
) -> None:
    for name in folders:
        save_images(tmp_path / name, 5)
    assert_has(refusal(tmp_path), *words)


def test_names_of_splits_within_a_split_or_a_word_are_classes(tmp_path: Path) -> None:
    for name in ("train", "valid", "boat"):
        save_images(tmp_path / "a" / "train" / name, 5)
    loaded = data.load_training(config.Data(path=str(tmp_path / "a")), SHAPE)
    assert loaded.classes == ("boat", "train", "valid")
    for name in ("train_station", "bus_station", "test_tube"):
        save_images(tmp_path / "b" / name, 5)
    loaded = data.load_training(config.Data(path=str(tmp_path / "b")), SHAPE)
    assert loaded.classes == ("bus_station", "test_tube", "train_station")


@pytest.mark.skipif(sys.platform != "linux", reason="names that differ only in case")
def test_what_is_odd_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("train/good", "train/Good", "test/good", "test/crack"):
        save_images(tmp_path / name, 3)
    (tmp_path / "train" / "none").mkdir()
    save_images(tmp_path, 1)
    loaded = data.load_training(config.Data(path=str(tmp_path)), SHAPE)
    assert loaded.classes == ("Good", "crack", "good")
    assert_has(
        caplog.text,
        "train: folders without images are skipped: none/",
        "differ only in case: Good, good",
        "not those of train/; only here: crack",
        "images beside the split folders are not used: 000.png",
    )
    caplog.clear()
    save_images(tmp_path / "test", 1)
    data.load_training(config.Data(path=str(tmp_path)), SHAPE)
    assert_has(caplog.text, "no classes are used", "Outside: 000.png", "they have no labels")


def test_files_of_systems_are_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_images(tmp_path / "a", 10)
    save_images(tmp_path / "license", 10)  # a class, such as of documents
    for name in ("@eaDir", "__MACOSX", ".ipynb_checkpoints", "$RECYCLE.BIN", "lost+found"):
        save_images(tmp_path / name, 1)
        save_images(tmp_path / "a" / name, 1)
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "Icon\r", "._000.png", "README.txt"):
        for folder in (tmp_path, tmp_path / "a"):
            (folder / name).write_bytes(b"\0\5\x16\7")
    settings = config.Data(path=str(tmp_path))
    training = data.load_training(settings, SHAPE)
    assert training.classes == ("a", "license")
    assert len(training.train) + len(training.validation) == 18
    assert "warning" not in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_are_shown_printable_and_used_exactly(tmp_path: Path) -> None:
    classes = [b"caf\xe9", b"two\nlines", "\u202eleft".encode(), b'<b>&"', b"n" * 255]
    for name in classes:
        folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        save_images(folder, 4)
        (folder / "000.png").rename(folder / os.fsdecode(b"\xff\n,.png"))
    settings = config.Data(path=str(tmp_path))
    training = data.load_training(settings, SHAPE)
    shown = ('<b>&"', "caf\\xe9", "n" * 255, "two\\nlines", "\\u202eleft")
    assert training.classes == shown
    assert len(training.train) + len(training.validation) == 18
    assert data.describe_splits(settings, training).isprintable()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9/bad\xff.png")).write_bytes(b"none")
    assert "caf\\xe9/bad\\xff.png: is not an image" in refusal(tmp_path)


def test_images_without_classes_of_any_kind(tmp_path: Path) -> None:
    save_images(tmp_path, 6, ".PNG")
    save_images(tmp_path, 6, ".jpg", "RGB")
    Image.fromarray(np.full((6, 5), 0x8080, np.uint16)).save(tmp_path / "deep.png")
    loaded = read_folder(tmp_path, "train", SHAPE, config.Data())
    assert loaded.images.shape == (13, 6, 5, 1)
    assert loaded.labels is None
    assert any(np.all(x == 0x80) for x in loaded.images)  # 16 bits are scaled, not clipped
    colored = read_folder(tmp_path, "train", (6, 5, 3), config.Data()).images
    assert colored.shape == (13, 6, 5, 3)
    assert sum(bool(np.all(x == x[..., :1])) for x in colored) == 7  # the gray ones


def test_every_format_gives_the_same_pixels(tmp_path: Path) -> None:
    picture = Image.fromarray(np.full((6, 5, 3), (250, 120, 10), np.uint8))
    for suffix in image_file.SUFFIXES:
        options: dict[str, Any] = {"quality": 100} if suffix in {".jpg", ".jpeg", ".webp"} else {}
        picture.save(tmp_path / f"x{suffix}", **options)
    second = Image.new("RGB", (5, 6))
    picture.save(tmp_path / "film.gif", save_all=True, append_images=[second])  # the first frame
    loaded = read_folder(tmp_path, "train", (6, 5, 3), config.Data()).images
    assert len(loaded) == len(image_file.SUFFIXES) + 1
    assert np.abs(loaded.astype(int) - (250, 120, 10)).max() <= 3


def test_pixels_of_unknown_range_are_refused(tmp_path: Path) -> None:
    save_images(tmp_path, 2)
    Image.fromarray(np.ones((6, 5), np.float32)).save(tmp_path / "f.tif")
    assert "floats, whose range is not known" in refusal(tmp_path)


def test_random_crops_of_a_folder(tmp_path: Path) -> None:
    for i in range(20):
        Image.fromarray(make_images(1, (30, 40, 3), i)[0]).save(tmp_path / f"{i}.png")
    for size, stored in (((8, 9), (8, 9, 3)), (None, (30, 40, 3))):
        settings = config.Data(path=str(tmp_path), crop="random", resize=size)
        training = data.load_training(settings, (6, 5, 3))
        assert training.train.images.shape[1:] == stored
        assert training.validation.images.shape[1:] == (6, 5, 3)
        assert data.load_test(settings, (6, 5, 3)).test.images.shape == (2, 6, 5, 3)
    assert "the images are [30, 40, 3]" in refusal(tmp_path, (31, 5, 3), crop="random")
    with pytest.raises(ConvaeError, match=r"data.resize: cannot be smaller than the crop"):
        data.load_training(config.Data(path=str(tmp_path), crop="random", resize=(5, 9)), SHAPE)
    Image.new("RGB", (9, 9)).save(tmp_path / "other.png")
    assert "set data.resize to one size, at least" in refusal(tmp_path, (6, 5, 3), crop="random")


def test_mixed_sizes_need_resize(tmp_path: Path) -> None:
    save_images(tmp_path, 3)
    Image.new("L", (9, 8)).save(tmp_path / "big.png")
    parts = ("3 of 6 x 5", "1 of 8 x 9, such as big.png", "set data.resize to [6,5]")
    assert_has(refusal(tmp_path), *parts)
    loaded = data.load_training(config.Data(path=str(tmp_path), resize=(6, 5)), SHAPE)
    assert loaded.train.images.shape[1:] == SHAPE
    with pytest.raises(ConvaeError, match=r"data.resize: .*model.input_shape.* Received: \[4, 4\]"):
        data.load_training(config.Data(path=str(tmp_path), resize=(4, 4)), SHAPE)


def test_image_folder_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no images" in refusal(tmp_path)
    (tmp_path / "table.csv").write_text("1,2")
    assert "1 other files, such as table.csv" in refusal(tmp_path)
    save_images(tmp_path, 4)
    (tmp_path / "zebra.svg").write_bytes(b"<svg/>")
    parts = ("table.csv: is not an image", "and 1 other files are not", "4 files here are images")
    assert_has(refusal(tmp_path), *parts)
    (tmp_path / "table.csv").unlink()
    (tmp_path / "zebra.svg").unlink()
    assert "[6, 5, 1]" not in refusal(tmp_path, (8, 8, 1))  # the size of the images is named
    whole = (tmp_path / "000.png").read_bytes()
    (tmp_path / "000.png").write_bytes(whole[:-25])
    (tmp_path / "001.png").write_bytes(b"")
    bad = "000.png: is not an image"
    assert_has(refusal(tmp_path), bad, "and 1 other files are not; 2 files here are")
    save_images(tmp_path, 4)
    monkeypatch.setattr(image_file, "MAX_PIXELS", 29)
    assert "5 x 6 is more than 29 pixels" in refusal(tmp_path)


def test_links_must_stay_in_the_folder(tmp_path: Path) -> None:
    save_images(tmp_path / "in" / "a", 4)
    save_images(tmp_path / "out", 1)
    (tmp_path / "in" / "a" / "same.png").symlink_to(tmp_path / "in" / "a" / "000.png")
    settings = config.Data(path=str(tmp_path / "in"))
    assert len(data.load_training(settings, SHAPE).train) == 3
    for target, words in (
        (tmp_path / "out" / "000.png", "links that lead out of the folder are refused; copy /"),
        (tmp_path / "out", "links that lead out of the folder are refused"),
        (tmp_path / "in" / "a", "links to folders are not followed"),
        (tmp_path / "in", "links to folders are not followed"),
        (Path("link.png"), "a link that leads nowhere"),  # to itself
        (tmp_path / "in" / "none", "a link that leads nowhere"),
    ):
        for link in (tmp_path / "in" / "link.png", tmp_path / "in" / "a" / "link.png"):
            link.symlink_to(target)
            assert_has(refusal(tmp_path / "in"), "link.png: is not an image", words)
            link.unlink()
    (tmp_path / "in" / "a").rename(tmp_path / "in" / "train")
    (tmp_path / "in" / "train" / "same.png").unlink()
    (tmp_path / "in" / "test").symlink_to(tmp_path / "out")
    assert_has(refusal(tmp_path / "in"), "test: is not an image", "links to folders")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_pipes_sockets_and_unreadable_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_images(tmp_path / "a", 4)
    save_images(tmp_path / "b", 4)
    os.mkfifo(tmp_path / "a" / "pipe.png")
    assert "a/pipe.png: is not an image (a pipe, socket or device)" in refusal(tmp_path)
    (tmp_path / "a" / "pipe.png").unlink()
    scandir = os.scandir

    def refuse(path: Any) -> Any:  # root may read all: permissions alone do not show it
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert_has(refusal(tmp_path), "/b: is not an image (it cannot be read: Permission denied)")
    assert "cannot be read" in refusal(tmp_path / "b")
