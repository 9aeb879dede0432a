"""The cache of decoded images: built once, found, rebuilt and removed; and mapped arrays."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from convae.cli.cache import build_entries
from convae.config import schema as config
from convae.data import cache as image_cache
from convae.data import loading as data
from convae.data import readers, transforms
from convae.data.image_file import ImageReader
from convae.data.image_folder import list_folder
from convae.data.memmap import Mapped
from convae.errors import ConvaeError
from tests.conftest import ROOT, Command
from tests.data.conftest import make_images, npy_header

SHAPE = (6, 5, 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty images in two classes."""
    for i, x in enumerate(make_images(20, SHAPE)):
        name = tmp_path / "photos" / ("cat" if i % 2 else "dog") / f"{i}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x).save(name)
    return tmp_path / "photos"


def cache() -> Path:
    return image_cache.cache_folder(config.Data())


def read(folder: Path, **settings: Any) -> NDArray[np.uint8]:
    return image_cache.read_folder(folder, "train", SHAPE, config.Data(**settings)).images


def files() -> list[str]:
    return sorted(path.name for path in cache().iterdir() if not path.name.startswith("."))


def test_an_entry_holds_the_images_and_is_built_once(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = image_cache.read_folder(folder, "train", SHAPE, config.Data())
    listing = list_folder(folder, "train")
    reader = ImageReader(config.Data(), SHAPE)
    decoded = [reader.decode(folder / name) for name in listing.names]
    np.testing.assert_array_equal(first.images, decoded)
    assert first.classes == ("cat", "dog")
    assert first.labels is not None
    np.testing.assert_array_equal(first.labels, listing.labels)
    assert first.digests == readers.digests(replace(first, digests=None))
    (path,) = cache().glob("*.npy")
    np.testing.assert_array_equal(np.load(path, mmap_mode="r"), decoded)  # a plain .npy
    assert "caching 20 images" in caplog.text

    def fail(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(ImageReader, "decode", fail)
    np.testing.assert_array_equal(read(folder), decoded)
    test = image_cache.read_folder(folder, "test", SHAPE, config.Data())  # the same entry
    np.testing.assert_array_equal(test.images, decoded)
    assert set(test.splits) == {"train"}
    assert len(caplog.records) == 1


def test_other_images_are_another_entry_and_the_old_one_is_removed(folder: Path) -> None:
    read(folder)
    before = files()
    os.utime(folder / "cat" / "1.png", (1, 1))  # touched, not changed
    read(folder)
    assert files() == before
    read(folder, resize=(6, 5))  # another use of the same folder
    assert len(files()) == 4
    Image.fromarray(make_images(1, SHAPE, 9)[0]).save(folder / "cat" / "1.png")
    assert (read(folder) == make_images(1, SHAPE, 9)[0]).all(axis=(1, 2, 3)).any()
    assert len(files()) == 4
    assert len(set(files()) - set(before)) == 4
    (folder / "cat" / "1.png").rename(folder / "dog" / "1.png")
    read(folder)
    labels = image_cache.read_folder(folder, "train", SHAPE, config.Data()).labels
    assert np.sum(np.asarray(labels)) == 11
    assert len(files()) == 4


def test_another_background_is_another_entry(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("RGBA", (5, 6)).save(folder / "cat" / "clear.png")
    for level, count in ((255, 2), (9, 4)):
        images = read(folder, background=(level, 0, 9))
        assert np.all(images == (level, 0, 9), axis=(1, 2, 3)).sum() == 1
        assert len(files()) == count
        text = "1 of 21 images have transparent pixels: they are drawn on data.background"
        assert f"{text}, [{level}, 0, 9]" in caplog.text
        caplog.clear()
        read(folder, background=(level, 0, 9))  # cached
        assert caplog.text == ""


def test_a_class_of_another_split_numbers_those_of_this_one_anew(folder: Path) -> None:
    for name in ("dog", "owl"):
        (folder / "train" / name).mkdir(parents=True)
        Image.new("RGB", (5, 6)).save(folder / "train" / name / "1.png")
    shutil.rmtree(folder / "cat")
    shutil.rmtree(folder / "dog")
    read(folder)
    for name in ("cat", "dog"):
        (folder / "test" / name).mkdir(parents=True)
        Image.new("RGB", (5, 6)).save(folder / "test" / name / "1.png")
    found = image_cache.read_folder(folder, "train", SHAPE, config.Data())
    assert found.classes == ("cat", "dog", "owl")
    assert sorted(np.asarray(found.labels)) == [1, 2]


def test_the_key_depends_on_the_content_not_on_the_folder(folder: Path, tmp_path: Path) -> None:
    read(folder)
    before = files()
    shutil.copytree(folder, tmp_path / "copy")
    read(tmp_path / "copy")
    assert files() == before


@pytest.mark.parametrize("damage", ["cut", "gone", "header", "text", "no text"])
def test_a_damaged_entry_is_built_again(
    folder: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = np.array(read(folder))
    path, text = (next(cache().glob(kind)) for kind in ("*.npy", "*.json"))
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-1])
    elif damage == "gone":
        path.unlink()
    elif damage == "header":
        path.write_bytes(content.replace(b"(20, 6, 5, 3)", b"(20, 5, 6, 3)"))
    elif damage == "text":
        text.write_bytes(text.read_bytes()[:-5])
    else:
        text.unlink()
    np.testing.assert_array_equal(read(folder), whole)
    assert "damaged or not complete; building it again" in caplog.text
    assert path.read_bytes() == content
    assert files() == [text.name, path.name]


def test_an_error_leaves_no_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "cat" / "1.png").write_bytes(b"not an image")
    with pytest.raises(ConvaeError, match=r"cat/1.png: is not an image"):
        read(folder)
    assert files() == []
    (folder / "cat" / "1.png").unlink()
    monkeypatch.setattr(image_cache, "SPARE", 1 << 60)
    with pytest.raises(ConvaeError, match=r"data.cache: .* do not fit on the disk"):
        read(folder)
    monkeypatch.setattr(image_cache, "SPARE", 0)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConvaeError, match=r"^data.cache: .*file.*: cannot be written"):
        data.load_training(config.Data(path=str(folder), cache=str(tmp_path / "file")), SHAPE)
    with pytest.raises(ConvaeError, match=r"cannot be in the folder of images"):
        read(folder, cache=str(folder / "cache"))
    decode = ImageReader.decode

    def change(*arguments: Any) -> NDArray[np.uint8]:
        (folder / "cat" / "new.png").write_bytes((folder / "cat" / "3.png").read_bytes())
        return decode(*arguments)

    monkeypatch.setattr(ImageReader, "decode", change)
    with pytest.raises(ConvaeError, match="the files changed while they were read: run again"):
        read(folder)
    assert files() == []


def _read_in_process(folder: Path, results: Any) -> None:
    results.put(readers.images_digest(read(folder)).hexdigest())


def test_processes_that_build_together_get_the_same(folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_read_in_process, args=(folder, results)) for _ in range(3)]
    for process in processes:
        process.start()
    found = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert found == {readers.images_digest(read(folder)).hexdigest()}
    assert len(files()) == 2


def test_leftovers_of_a_killed_process_are_removed(folder: Path) -> None:
    read(folder)
    (text,) = cache().glob("*.json")
    left = cache() / f".{text.stem}.1.partial.npy"
    left.write_bytes(b"half")
    text.with_suffix(".npy").unlink()
    read(folder)
    assert not left.exists()


def test_command(folder: Path, convae: Command) -> None:
    words = [str(folder), f"--config={ROOT / 'configs/images.yaml'}", "data.resize=[72,72]",
             "data.crop=random"]  # fmt: skip
    done = convae("cache", "build", *words, "--json", code=0)
    (row,) = json.loads(done.stdout)
    assert (row["images"], row["shape"], row["classes"]) == (20, [72, 72, 3], 2)
    assert "20 images of 72x72x3, 2 classes" in convae("cache", "list").stdout
    path = Path(row["path"])
    assert row["bytes"] == path.stat().st_size
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # the size is right, the bytes are not
    path.write_bytes(content)
    damaged = convae("cache", "verify", "--json", code=1)
    assert json.loads(damaged.stdout) == [{**row, "ok": False}]
    assert files() == []
    assert row["sha256"] in convae("cache", "build", *words).stdout
    assert convae("cache", "verify").returncode == 0
    assert "nothing is cached" in convae("cache", "list", str(folder.parent / "other")).stderr
    words = [str(folder), f"--cache-dir={cache()}", "--json"]
    assert json.loads(convae("cache", "clear", *words).stdout) == [row]
    assert files() == []


def test_an_entry_of_another_version_is_listed_and_cleared_and_not_used(
    folder: Path, convae: Command
) -> None:
    read(folder)
    (text,) = cache().glob("*.json")
    content = json.loads(text.read_text())
    outdated = {**content, "version": 1, "key": "0" * 32}
    text.with_name(f"{'0' * 32}.json").write_text(json.dumps(outdated))
    text.with_suffix(".npy").rename(cache() / f"{'0' * 32}.npy")
    text.unlink()
    (cache() / "foreign.json").write_text(json.dumps(outdated))  # its key is not its name
    (cache() / "foreign.npy").write_bytes(b"")
    listed = convae("cache", "list", code=0).stdout.splitlines()
    assert listed[0] == f"{folder}: of another version of convae, not used"
    assert len(listed) == 4
    read(folder)  # which builds an entry of this version in its place
    assert files() == [text.name, f"{text.stem}.npy", "foreign.json", "foreign.npy"]
    text.write_text(json.dumps({**content, "version": 1}))
    (row,) = json.loads(convae("cache", "clear", "--json", code=0).stdout)
    assert (row["outdated"], row["sha256"]) == (True, content["images_sha256"])
    assert files() == ["foreign.json", "foreign.npy"]


@pytest.mark.parametrize(
    ("config", "overrides", "message"),
    [
        ("no.yaml", ["data.path=."], "no.yaml: no such file"),
        ("mnist.yaml", [], "must be a folder of images. Received: None"),
        ("images.yaml", ["data.path=nowhere"], "Received: nowhere"),
    ],
)
def test_build_refuses_what_is_not_a_folder_of_images(
    config: str, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConvaeError, match=message):
        build_entries(str(ROOT / "configs" / config), overrides)


def test_each_step_has_other_crops_and_the_same_ones_again(folder: Path) -> None:
    from convae.config.loader import load_config
    from convae.tasks import build_task
    from convae.tasks.task import example_generator

    words = [f"data.path={folder}", "data.resize=[72,80]", "data.crop=random"]
    settings = load_config(ROOT / "configs/images.yaml", words)
    task = build_task(settings)
    loaded = data.load_training(settings.data, task.image_shape)
    assert loaded.train.images.shape == (14, 72, 80, 3)
    chosen = np.array([3, 1, 2])

    def crops(epoch: int, step: int) -> NDArray[np.uint8]:
        batch = task.examples(loaded.train, chosen, example_generator(0, epoch, step))
        assert batch.targets.shape == (3, 64, 64, 3)
        return batch.targets

    np.testing.assert_array_equal(crops(2, 5), crops(2, 5))
    assert not np.array_equal(crops(2, 5), crops(2, 6))
    assert not np.array_equal(crops(2, 5), crops(3, 5))
    held_out = task.evaluation_examples(loaded.validation)
    middle = transforms.crop_center(loaded.validation.images, (64, 64))
    np.testing.assert_array_equal(held_out.targets, middle)
    assert all(np.isfinite(task.reference_losses(loaded.train, held_out)))
    assert "mean_image" in task.baselines(loaded)


def test_arrays_are_mapped(tmp_path: Path) -> None:
    x = make_images(20, SHAPE)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "x_labels.npy", np.arange(20) % 3)
    settings = config.Data(path=str(tmp_path / "x.npy"))
    training = data.load_training(settings, SHAPE)
    assert isinstance(training.train.images, Mapped)
    np.testing.assert_array_equal(training.train.images, x[:14])
    np.testing.assert_array_equal(data.load_test(settings, SHAPE).test.images, x[18:])
    assert training.classes == ("0", "1", "2")
    np.savez(tmp_path / "x.npz", x_train=x, y_train=np.arange(20) % 3)
    other = data.load_training(config.Data(path=str(tmp_path / "x.npz")), SHAPE)
    assert training.sha256 == other.sha256
    gray = tmp_path / "gray.npy"
    np.save(gray, x[..., 0])
    assert data.load_training(config.Data(path=str(gray)), (6, 5, 1)).train.labels is None


def test_a_choice_of_mapped_images_is_that_of_an_array(tmp_path: Path) -> None:
    x = make_images(20, SHAPE)
    np.save(tmp_path / "x.npy", x)
    mapped = readers.map_npy(tmp_path / "x.npy")
    center = transforms.crop_center
    views = [(mapped, x), (mapped[3:17], x[3:17]), (mapped[::-2], x[::-2]),
             (center(mapped, (3, 2)), center(x, (3, 2)))]  # fmt: skip
    for view, plain in views:
        odd = np.arange(len(plain)) % 2 == 1
        for key in ([5, 0, 5, -1], np.array([2], np.uint8), [], odd, np.array([[1, 2]]), slice(2)):
            np.testing.assert_array_equal(view[key], plain[key])
        for wrong in ([len(plain)], [-len(plain) - 1]):
            with pytest.raises(IndexError):
                view[wrong]


def test_what_is_computed_from_mapped_images_is_no_map(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", make_images(20, SHAPE))
    mapped = readers.map_npy(tmp_path / "x.npy")
    assert isinstance(mapped[3:], Mapped)
    for copied in (mapped[[3, 1]], mapped[mapped[:, 0, 0, 0] > 9], mapped / np.float32(255)):
        assert type(copied) is np.ndarray
    assert isinstance(mapped[0, 0, 0, 0], np.uint8)
    assert not mapped.flags.writeable


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (np.zeros((5, 6, 5, 3)), "dtype uint8"),
        (np.asfortranarray(make_images(5, SHAPE)), "Fortran order"),
        (np.array([{}], object), "pickled"),
        (np.zeros((5, 30), np.uint8), r"\(5, 30\)"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, content: NDArray[Any], words: str) -> None:
    np.save(tmp_path / "x.npy", content)
    with pytest.raises(ConvaeError, match=rf"data.path: .*x\.npy: .*{words}"):
        data.load_training(config.Data(path=str(tmp_path / "x.npy")), SHAPE)


def test_damaged_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, make_images(5, SHAPE))
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole + b"x", whole[:20], b""):
        path.write_bytes(damaged)
        with pytest.raises(ConvaeError, match=r"x\.npy: (damaged or cut|not a complete)"):
            readers.map_npy(path)
    path.write_bytes(whole)
    (tmp_path / "x_labels.npy").write_bytes(b"no array")
    with pytest.raises(ConvaeError, match=r"x_labels\.npy: not a complete"):
        readers.read(path, "train")
    np.save(tmp_path / "x_labels.npy", np.zeros(5))
    with pytest.raises(ConvaeError, match="must be integers"):
        readers.read(path, "train")


PROBE = """
import resource, sys
import numpy as np
from pathlib import Path
from convae.data import readers
from convae.tasks import metrics
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
images = readers.map_npy(Path(sys.argv[1]))
order = np.random.default_rng(0).permutation(len(images))
readers.images_digest(images)
metrics.mean_image(images[:])
for start in range(0, len(images), 64):
    images[order[start : start + 64]].sum()
for start in range(0, len(images), 1000):
    images[1:][start : start + 1000].sum()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="KiB, and pages that are given back")
def test_a_pass_over_a_file_leaves_memory_flat(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    with path.open("wb") as file:  # 469 MiB; written, so that the system may map it in large pieces
        file.write(npy_header((40_000, 64, 64, 3)))
        for _ in range(40):
            file.write(bytes(1000 * 64 * 64 * 3))
    done = subprocess.check_output([sys.executable, "-c", PROBE, str(path)], text=True)
    assert float(done) < 150


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a file with a hole, and KiB")
def test_training_on_more_than_memory_should_hold(convae: Command, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    shape = (100_000, 64, 64, 3)  # 1.14 GiB, of which the disk holds the first bytes
    with path.open("wb") as file:
        file.write(npy_header(shape) + make_images(100, SHAPE).tobytes())
        file.truncate(128 + int(np.prod(shape)))
    done = convae(
        "train", str(ROOT / "configs/images.yaml"), f"data.path={path}", "training.epochs=1",
        "data.validation_split=0.02", "training.samples_per_epoch=2400",
        f"--runs-dir={tmp_path / 'outputs'}", timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "outputs/images/latest/manifest.json").read_text())
    assert manifest["data"]["train_images"] == 88_200
    assert manifest["peak_memory_mib"] < 1536
