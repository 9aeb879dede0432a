"""Shipped configs are found by name, listed, and copied to start from."""

import json
import logging
from pathlib import Path

import pytest

from convae import __version__
from convae.config import shipped
from convae.config.loader import load_config
from convae.errors import ConfigError, FileError
from tests.conftest import Command


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_name_is_a_shipped_config_where_there_is_no_such_file(tmp_path: Path) -> None:
    assert load_config("mnist").name == "mnist"
    Path("mnist").mkdir()  # a folder, such as that of runs, is no config
    assert load_config("mnist").training.epochs == 25
    Path("mnist").rmdir()
    Path("mnist").write_text("base: fast\nname: mine\n")
    assert load_config("mnist").name == "mine"
    other = tmp_path / "folder"
    other.mkdir()
    (other / "mine.yaml").write_text("base: fast\nseed: 3\n")
    config = load_config("folder/mine.yaml")
    assert (config.seed, config.training.batch_size, config.name) == (3, 8, "mine")


def test_a_base_beside_the_file_comes_before_a_shipped_one() -> None:
    Path("here").mkdir()
    Path("here/fast").write_text("base: best\nseed: 7\n")
    Path("here/mine.yaml").write_text("base: fast\n")
    assert load_config("here/mine.yaml").seed == 7


def test_a_file_that_a_name_does_not_mean_is_named(caplog: pytest.LogCaptureFixture) -> None:
    Path("fast.yaml").write_text("base: fast\nseed: 3\n")
    with caplog.at_level(logging.WARNING, "convae"):
        assert load_config("fast.yaml").seed == 3
        caplog.clear()
        assert load_config("fast").seed == 0
    assert caplog.messages == ["fast: this is the shipped config; the file here is fast.yaml"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mnits", "mnits: no such file. Shipped configs: mnist"),
        ("configs/mnist.yaml", "configs/mnist.yaml: no such file. Shipped configs: mnist"),
        ("zzz", "anomaly, best, bottleneck, denoise, fashion, fast, generate, images"),
        ("folder/mnist", "folder/mnist: no such file. Shipped configs: mnist"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(name)
    assert hint in str(error.value)


def test_an_unknown_base_names_the_file_and_line() -> None:
    Path("mine.yaml").write_text("seed: 1\nbase: mnits\n")
    with pytest.raises(ConfigError, match="mine.yaml, line 2: base: mnits: no such file.*mnist"):
        load_config("mine.yaml")


def test_commands_take_names(convae: Command) -> None:
    assert "12,785" in convae("inspect", "mnist", code=0).stdout
    listed = json.loads(convae("configs", "--json", code=0).stdout)
    assert [row["name"] for row in listed] == shipped.names()
    table = convae("configs", code=0)
    assert "Remove Gaussian noise of half the gray scale from a digit." in table.stdout
    assert table.stderr.startswith("next: convae")
    assert json.loads(convae("config", "--schema", code=0).stdout)["version"] == __version__
    assert "which config?" in convae("config", code=2).stderr
    assert "Shipped configs: mnist" in convae("train", "mnits", code=2).stderr


@pytest.mark.parametrize("name", [name for name in shipped.names() if name != "sweep"])
def test_a_copy_stands_alone(name: str) -> None:
    path, schema = shipped.copy(name, "new folder")
    assert (path, schema) == (Path(f"new folder/{name}.yaml"), Path("new folder", shipped.SCHEMA))
    assert load_config(path) == load_config(name)
    assert f"convae train 'new folder/{name}.yaml'" in path.read_text()


def test_init(convae: Command) -> None:
    done = convae("init", code=0)
    assert done.stdout == "images.yaml\n"
    assert "next: convae train images.yaml data.path=FOLDER" in done.stderr
    Path("images.yaml").write_text("mine")
    again = convae("init", "images", ".", code=2)
    assert again.stderr == "convae: images.yaml: exists already, and is not replaced\n"
    assert Path("images.yaml").read_text() == "mine"
    assert "there are: mnist" in convae("init", "mnits", code=2).stderr
    assert "images.yaml/mnist.yaml: cannot be written" in convae(
        "init", "mnist", "images.yaml", code=2
    ).stderr  # fmt: skip
    assert "convae sweep mnist sweep.yaml" in convae("init", "sweep", code=0).stderr
    assert "#   convae sweep mnist sweep.yaml data.subset" in Path("sweep.yaml").read_text()


def test_the_schema_of_another_version_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    (path, schema) = shipped.copy("fast", "")
    with caplog.at_level(logging.WARNING, "convae"):
        load_config(path)
        assert not caplog.messages
        shipped._check_schema.cache_clear()
        schema.write_text(shipped.schema().replace(f'"{__version__}"', '"0.0.1"', 1))
        load_config(path)
        load_config(path)
    (message,) = caplog.messages
    assert f"{path}, line 1: {schema} is not the schema of convae {__version__}" in message
    assert "(but of 0.0.1)" in message
    assert f"convae config --schema > {schema}" in message


@pytest.mark.parametrize("text", ["no JSON", "[]", "{}"])
def test_an_unknown_schema_is_left_to_the_editor(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    Path("s.json").write_text(text)
    Path("mine.yaml").write_text("# yaml-language-server: $schema=s.json\nbase: mnist\n")
    with caplog.at_level(logging.WARNING, "convae"):
        load_config("mine.yaml")
    assert not caplog.messages


def test_a_failed_write_is_one_message(tmp_path: Path) -> None:
    Path("file").touch()
    with pytest.raises(FileError, match="cannot be written"):
        shipped.copy("mnist", "file/below")
