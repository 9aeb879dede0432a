"""A short run of the fuzz suite, and a test for each defect that was found."""

import io
import os
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convae import archive
from convae.config import schema as config
from convae.config.loader import load_config
from convae.data import loading as data
from convae.errors import ConvaeError
from convae.layers import summary
from convae.layers.fixes import smallest_fix
from convae.models import keras_file
from convae.runs.run import Run
from tests.conftest import ROOT, Command
from tests.fuzz import inputs as fuzz_inputs
from tests.fuzz import models as fuzz_models

MNIST = ROOT / "configs/mnist.yaml"


def refused(*overrides: str) -> str:
    with pytest.raises(ConvaeError) as caught:
        load_config(MNIST, overrides)
    return str(caught.value)


@pytest.mark.slow
def test_a_thousand_inputs_give_success_or_a_message(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.fuzz", "--inputs", "1000", "--seed", "1"],
        capture_output=True,
        text=True,
        timeout=900,
        cwd=here,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\n| ") >= 11
    left = {path.name for path in here.iterdir()} - {".hypothesis"}  # hypothesis' cache
    assert not left


@pytest.mark.parametrize("maker", [fuzz_inputs.npz, fuzz_inputs.idx, fuzz_models.run_files])
def test_the_same_seed_gives_the_same_inputs(maker: Any) -> None:
    first = list(fuzz_inputs.each(maker, 3, 4))
    time.sleep(2.1)  # zip and gzip would write the time, in steps of two seconds
    assert list(fuzz_inputs.each(maker, 3, 4)) == first


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("seed=[!!int '']", "tags (!name) are refused"),  # was an IndexError
        ("seed=[!!bool x]", "tags (!name) are refused"),  # was a KeyError
        ("seed=[!!timestamp x]", "tags (!name) are refused"),  # was an AttributeError
        ("seed=0x" + "f" * 5000, "more than 64 bits"),  # was a ValueError in repr()
        ("seed=" + "9" * 20, "more than 64 bits"),
        ("seed=1" + ":1" * 9000, "more than"),
        ("a" + ".a" * 3000 + "=1", "nested more than 20 deep"),  # was a RecursionError
        ("model.encoder." + "9" * 5000 + ".filters=1", "is no place in a list"),  # was a ValueError
        ("seed=[" + "1," * 10_000 + "]", "more than 10,000 keys and values"),
        ("data.path='" + "x" * 10_001 + "'", "more than 10,000 characters"),
        ('data.path="a\\0b"', "data.path: "),  # was a ValueError in mkdir
        ('output.folder="a\\0b"', "output.folder: "),
        ("model.encoder.0.filters=1000000000000", "less than or equal to 1048576"),
        ("model.input_shape=[1000000000, 1000000000, 1]", "less than or equal to 16384"),
        ("model.decoder.0.strides=1000000000000000000", "less than or equal to 255"),  # hung
        ("model.encoder.0.kernel_size=1000000000", "less than or equal to 255"),  # hung
        ("model.decoder.0={type: conv_transpose, filters: 1048576, kernel_size: 255}", "GiB"),
    ],
)
def test_bad_overrides_are_one_message(override: str, part: str) -> None:
    text = refused(override)
    assert part in text
    assert len(text) < 12_000


def test_many_layers_are_refused_in_time() -> None:
    layer = (
        "{type: conv_transpose, filters: 2, kernel_size: 3, strides: 3, padding: same, "
        "activation: sigmoid}"
    )
    began = time.process_time()
    assert "at most 100 items" in refused(f"model.decoder=[{','.join([layer] * 101)}]")
    assert "pixels are most" in refused(f"model.decoder=[{','.join([layer] * 30)}]")
    flat = layer.replace("strides: 3", "strides: 255, output_padding: 254")
    refused("model.input_shape=[1, 1, 1]", f"model.decoder=[{','.join([flat] * 99)}]")
    assert time.process_time() - began < 30


def test_the_search_for_a_fix_ends() -> None:
    model = load_config(MNIST).model
    wide = model.decoder[0].model_copy(update={"strides": (255, 255), "kernel_size": (255, 255)})
    began = time.process_time()
    model = model.model_copy(update={"decoder": (wide,) * 60})
    smallest_fix(model, ["x"] * 63, model.input_shape)
    assert time.process_time() - began < 30


def test_a_model_larger_than_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "memory", lambda: 100_000)
    text = refused()
    assert "conv2d_transpose_3: too large for this machine: training needs at least" in text
    assert "Fewer filters" in text


def test_base_reads_only_files_and_at_most_20(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("base: /dev/zero\n")
    with pytest.raises(ConvaeError, match="is no file"):
        load_config(path)
    path.write_text("#" * 200_001)
    with pytest.raises(ConvaeError, match="200,000 characters"):
        load_config(path)
    for i in range(25):
        (tmp_path / f"{i}.yaml").write_text(f"base: {i + 1}.yaml\n")
    with pytest.raises(ConvaeError, match="more than 20 files"):
        load_config(tmp_path / "0.yaml")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    path.write_text("base: loop.yaml\n")
    with pytest.raises(ConvaeError, match=r"cannot be read|no such file"):
        load_config(path)


def load(path: Path) -> str:
    with pytest.raises(ConvaeError) as caught:
        data.load_training(config.Data(path=str(path)), (28, 28, 1))
    return str(caught.value)


def test_a_small_npz_cannot_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(fuzz_inputs.packed_zeros(300))
    assert "more than 100 times its size" in load(path)
    images = fuzz_inputs.packed_zeros(1)
    path.write_bytes(images)
    data.load_training(config.Data(path=str(path)), (28, 28, 1))


def test_a_small_gzipped_idx_cannot_fill_the_memory(tmp_path: Path) -> None:
    import gzip

    # gzip can hold what the header claims: it must be refused before anything is unpacked.
    noise = np.random.default_rng(0).bytes(350_000)
    file = fuzz_inputs.idx_file(3, (300 * 2**20 // 784, 28, 28), noise)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(gzip.compress(file, 1))
    assert "more than 100 times its size" in load(tmp_path)


def test_paths_of_archive_members_have_no_effect(tmp_path: Path) -> None:
    images = np.zeros((20, 28, 28), np.uint8)
    parts = {name: io.BytesIO() for name in ("x_train.npy", "../../evil.npy", "/tmp/evil.npy")}
    for file in parts.values():
        np.save(file, images)
    path = tmp_path / "a" / "b" / "x.npz"
    path.parent.mkdir(parents=True)
    path.write_bytes(fuzz_inputs.zipped({n: f.getvalue() for n, f in parts.items()}))
    data.load_training(config.Data(path=str(path)), (28, 28, 1))
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["x.npz"]


def test_a_jpeg_with_too_many_scans_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convae.data import image_file

    folder = tmp_path / "images"
    folder.mkdir()
    for i, picture in enumerate(fuzz_inputs.pictures()):
        (folder / f"{i}.jpg").write_bytes(picture)
    settings = config.Data(path=str(folder), cache=str(tmp_path / "cache"))
    data.load_training(settings, (28, 28, 1))
    monkeypatch.setattr(image_file, "MAX_WORK", 3 * 784)
    settings = config.Data(path=str(folder), cache=str(tmp_path / "other"))
    with pytest.raises(ConvaeError, match="scans of 28 x 28 pixels"):
        data.load_training(settings, (28, 28, 1))


def test_what_is_damaged_in_a_run_is_not_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(tmp_path)
    for text in ("5", "[[1, 2]]", "[" * 100_000, "null"):  # the first was a TypeError
        (tmp_path / "manifest.json").write_text(text)
        assert run.manifest == {}
    assert caplog.text.count("is no manifest of a run") == 4
    head = "epoch,loss,val_loss,val_excess,learning_rate,seconds,images_per_second\n"
    for text in (head + "inf,1,1,1,1,1,1\n", head + f'"{"1" * 200_000}"', "epoch,loss\n1,2\n"):
        (tmp_path / "history.csv").write_text(text)
        assert run.history == []
    assert caplog.text.count("is no history of a run") == 3
    (tmp_path / "config.yaml").write_bytes(b"\xff\xff")
    with pytest.raises(ConvaeError, match="must be UTF-8"):
        _ = run.config


def npy(shape: str, descr: str = "<f4", rest: bytes = b"") -> bytes:
    head = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + rest


@pytest.mark.parametrize(
    "member",
    [npy("(1000000000000,)"), npy("(-1,)"), npy("(2,)", "|O", bytes(16)), npy("(" * 300), b""],
)
def test_checkpoints_with_wrong_headers_are_damaged(tmp_path: Path, member: bytes) -> None:
    (tmp_path / "checkpoint").mkdir()
    path = tmp_path / "checkpoint/latest.npz"
    state = npy("(2,)", "|u1", b"{}")
    parts = {"arr_0.npy": state, "arr_1.npy": member}
    path.write_bytes(fuzz_models.with_hash(fuzz_inputs.zipped(parts)))
    with pytest.raises(ConvaeError, match="is damaged"):
        Run(tmp_path).load_checkpoint()
    packed = fuzz_inputs.zipped({"arr_0.npy": state}, zipfile.ZIP_DEFLATED)
    path.write_bytes(fuzz_models.with_hash(packed))
    with pytest.raises(ConvaeError, match="stored, not compressed"):
        Run(tmp_path).load_checkpoint()


def refusal(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    with pytest.raises(ConvaeError) as caught:
        keras_file.check(path)
    return str(caught.value)


def test_a_plain_keras_file_passes(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(fuzz_models.keras_file())
    keras_file.check(path)


@pytest.mark.parametrize("trap", fuzz_models.TRAPS)
def test_weights_outside_the_file_are_refused(tmp_path: Path, trap: str) -> None:
    text = refusal(tmp_path, fuzz_models.keras_file(h5=fuzz_models.weights(trap)))
    assert "model.weights.h5: " in text


@pytest.mark.parametrize("evil", fuzz_models.EVIL)
def test_other_classes_than_plain_layers_are_refused(tmp_path: Path, evil: dict[str, Any]) -> None:
    tree = fuzz_models.architecture()
    plain = evil.get("class_name") in keras_file.LAYERS - keras_file.KERNELS
    tree["config"]["layers"][1]["config"]["layers"].append(evil)
    if plain:  # only Keras can refuse its sizes
        return
    assert "cannot be loaded as a model of plain layers" in refusal(
        tmp_path, fuzz_models.keras_file(tree)
    )


def layer_of(tree: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = tree["config"]["layers"][1]["config"]["layers"][1]
    return found


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"filters": 10**9}, "more than model.weights.h5 has bytes for"),
        ({"filters": -1}, "lacks its sizes"),
        ({"kernel_size": 3}, "lacks its sizes"),
        ({"data_format": None}, "lacks its sizes"),
        ({"lora_rank": 10**9}, "'lora_rank', which no plain layer has"),
        ({"kernel_regularizer": "l2"}, "'kernel_regularizer'"),
        ({"dtype": "float64"}, "plain layers are float32"),
        ({"dtype": fuzz_models.POLICY | {"config": {}, "registered_name": {}}}, "plain layers"),
        ({"dtype": fuzz_models.POLICY | {"config": {"name": {}}}}, "plain layers"),
    ],
)
def test_options_that_are_not_plain_are_refused(
    tmp_path: Path, change: dict[str, Any], part: str
) -> None:
    tree = fuzz_models.architecture()
    layer_of(tree)["config"].update(change)
    assert part in refusal(tmp_path, fuzz_models.keras_file(tree))


def test_registered_names_and_compiled_sub_models_are_refused(tmp_path: Path) -> None:
    tree = fuzz_models.architecture()
    layer_of(tree)["registered_name"] = "my>Layer"
    assert "none of the plain layers" in refusal(tmp_path, fuzz_models.keras_file(tree))
    tree = fuzz_models.architecture()
    tree["config"]["layers"][1]["compile_config"] = {"optimizer": "adam"}
    assert "not described" in refusal(tmp_path, fuzz_models.keras_file(tree))
    tree = fuzz_models.architecture()
    tree["compile_config"] = {"optimizer": {"module": "os", "class_name": "x"}}  # is not built
    path = tmp_path / "compiled.keras"
    path.write_bytes(fuzz_models.keras_file(tree))
    keras_file.check(path)


def test_the_message_for_another_projects_keras_file_lists_what_is_missing(tmp_path: Path) -> None:
    tree = fuzz_models.architecture()
    del tree["config"]["layers"][1:]
    text = refusal(tmp_path, fuzz_models.keras_file(tree))
    assert "lacks the sub-model encoder and the sub-model decoder" in text
    assert "Its layers: image" in text
    assert "lacks config.json" in refusal(tmp_path, fuzz_inputs.zipped({"model.weights.h5": b""}))
    assert "not a complete archive" in refusal(tmp_path, b"")
    with pytest.raises(ConvaeError, match="no such file"):
        keras_file.check(tmp_path / "nothing.keras")


def test_compressed_members_and_long_json_are_refused() -> None:
    with pytest.raises(ValueError, match="stored"):
        archive.members(fuzz_inputs.zipped({"a": bytes(1000)}, zipfile.ZIP_DEFLATED))
    with pytest.raises(ValueError, match="longer"):
        archive.mapping(b" " * (archive.MAX_JSON + 1))


def test_messages_escape_control_characters(convae: Command) -> None:
    done = convae("config", str(MNIST), '"\x1b[31mred"=1', code=2)
    assert "\x1b" not in done.stderr
    assert "\\x1b[31mred" in done.stderr


@pytest.mark.slow
def test_plain_files_load_and_huge_layers_do_not(tmp_path: Path) -> None:
    from convae.models.builder import read_model

    path = tmp_path / "model.keras"
    path.write_bytes(fuzz_models.keras_file())
    assert read_model(path).output_shape == (None, 28, 28, 1)
    tree = fuzz_models.architecture()
    for layer in (tree["config"]["layers"][0], tree["config"]["layers"][1]["config"]["layers"][0]):
        layer["config"]["batch_shape"] = [None, 10**5, 10**5, 1]
    path.write_bytes(fuzz_models.keras_file(tree))
    with pytest.raises(ConvaeError, match="cannot be loaded"):
        read_model(path)
