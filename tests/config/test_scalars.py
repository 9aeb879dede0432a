"""Values without quotes, in files and on the command line, as YAML 1.2's core schema reads them."""

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convae.config import scalars
from convae.config.loader import load_config, parse_config
from convae.config.yaml_tree import YamlTree, parse
from convae.errors import ConfigError
from tests.conftest import ROOT

MNIST = ROOT / "configs/mnist.yaml"
VALUES: dict[str, Any] = {
    "10": 10, "0": 0, "-7": -7, "+5": 5, "0x10": 16, "0o10": 8,
    "1e-3": 0.001, "12e03": 12000.0, "1E3": 1000.0, ".5": 0.5, "5.": 5.0, "0.10": 0.1,
    "00.5": 0.5, "+1.5e+2": 150.0, ".inf": math.inf, "-.INF": -math.inf,
    "true": True, "True": True, "FALSE": False, "null": None, "Null": None, "NULL": None,
    # YAML 1.1 reads these as booleans, numbers, dates and merges.
    "yes": "yes", "no": "no", "on": "on", "Off": "Off", "y": "y", "n": "n",
    "1_000": "1_000", "1:30": "1:30", "0b1": "0b1", "2024-01-01": "2024-01-01", "<<": "<<",
    "=": "=", "0x1G": "0x1G", "1e": "1e", "inf": "inf", "nan": "nan", "1,5": "1,5", "١": "١",
    "C:\\images": "C:\\images", "~/images": "~/images",
}  # fmt: skip


def overridden(value: str) -> Any:
    tree = YamlTree("c.yaml", {}, {})
    tree.override(f"key={value}")
    return tree.keys["key"]


@pytest.mark.parametrize("text", VALUES)
def test_values(text: str) -> None:
    for found in (parse(f"key: {text}\n", "c.yaml").keys["key"], overridden(text)):
        assert (found, type(found)) == (VALUES[text], type(VALUES[text]))


def test_not_a_number_and_nothing() -> None:
    assert math.isnan(parse("key: .nan", "c.yaml").keys["key"])
    assert parse("a:\nb: ~\n", "c.yaml").keys == {"a": None, "b": None}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("010", 'Write 10 for the number, or "010" in quotes (in a shell \'"010"\') for a text'),
        ("0100", "Write 100 for the number"),
        ("-08", "Write -8 for the number"),
        ("00", "Write 0 for the number"),
        ("9" * 5000, "more than 64 bits"),
        ("0" * 5000, "leading zeros"),
        (str(2**63), "more than 64 bits"),
        ("0x" + "f" * 5000, "more than 64 bits"),
    ],
)
def test_numbers_that_are_refused(text: str, part: str) -> None:
    with pytest.raises(ConfigError, match="line 2: key: ") as caught:
        parse(f"seed: 1\nkey: {text}\n", "c.yaml")
    assert part in str(caught.value)
    with pytest.raises(ConfigError, match="override key=") as caught:
        overridden(text)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["#1", "runs #2", "a: b", "*x", "&x", "!tag", "@x", "%x", "- x", "? x", "|", "> x", "=x", "a'b",
     " x", "x ", "x: ", "`x`", "a, b", "a]", "a}", "---", "...", "Straße 🙂", "a\\b"],
)  # fmt: skip
def test_an_override_without_quotes_is_literal(text: str) -> None:
    assert overridden(text) == text
    assert load_config(MNIST, [f"data.path={text}"]).data.path == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[28, 28, 1]", [28, 28, 1]),
        (" [1] ", [1]),
        ("{type: constant, 'a': \"b #c\"}", {"type": "constant", "a": "b #c"}),
        ("'it''s'", "it's"),
        ('"2024"', "2024"),
        ('"\\ud83d\\ude42 \\u00e9"', "🙂 é"),  # as JSON writes them
        ("''", ""),
    ],
)
def test_an_override_in_brackets_or_quotes_is_yaml(text: str, value: Any) -> None:
    assert overridden(text) == value


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "has no value. Write null for none"),
        ("  ", "has no value"),
        ("~", "has no value"),
        ("{", "not YAML"),
        ("'x", "not YAML"),
        ("[1] # a comment", "not YAML"),
        ("'x' #1", "not YAML"),
        ("'a' b", "not YAML"),
        ("[1], [2]", "a key must be a word"),
        ("[1], b: 2", "must be one value"),
        ("[010]", 'Write 10 for the number, or "010" in quotes'),
        ("[*x]", "aliases"),
        ("[!tag x]", "tags"),
        ('"C:\\images"', "Write paths in 'single quotes' or with /"),
    ],
)
def test_an_override_that_is_refused(text: str, part: str) -> None:
    with pytest.raises(ConfigError, match="override key=") as caught:
        overridden(text)
    assert part in str(caught.value)
    assert ", line" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("training.epochs=1_000", "Received: '1_000': write 1000"),
        ("training.epochs=1e3", "Received: 1000.0: write 1000"),
        ("data.path=''", "must not be empty. Received: ''"),
        ("training.epochs=1:30", "Received: '1:30': write 90, if that is meant"),
        ("training.epochs=0b11", "write 3"),
        ("training.epochs='5'", "Received: '5'"),
        ("training.learning_rate=0,001", "write 0.001 with a point"),
        ("training.learning_rate='1e-3'", "write 1e-3"),
        ("output.tensorboard=yes", "Received: 'yes': write true"),
        ("output.tensorboard=Off", "write false"),
        ("runtime.jit_compile=on", "write true"),
        ("output.mlflow=no", "mlflow must be true, a folder or sqlite:///FILE. Received: no"),
        ("name=2024", 'Received: 2024: write "2024" in quotes'),
        ("data.path=true", 'write "true" in quotes'),
        ('data.path="C:\\new"', "control characters are refused. In double quotes"),
        ('data.path="D:\\Neu"', "control characters are refused. In double quotes"),
    ],
)
def test_a_value_of_another_type_is_answered_with_the_likely_one(override: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(MNIST, [override])
    assert part in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ('  path: "C:\\images"', "line 3, column 13: not YAML: found unknown escape character 'i'"),
        ('  path: "C:\\Users\\x"', "Write paths in 'single quotes' or with /"),
        ("\tpath: x", "line 3, column 1: not YAML: a tab: indent with spaces"),
        ("  path: @x", "Write the text in quotes"),
    ],
)
def test_a_file_that_is_not_yaml(tmp_path: Path, line: str, part: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"base: {MNIST}\ndata:\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert part in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(tmp_path: Path, encoding: str, newline: str) -> None:
    path = tmp_path / "c.yaml"
    text = newline.join([f"base: {MNIST}", "data:", "  path: Größe", "seed: 3", ""])
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    path.write_bytes((mark + text).encode(encoding))
    config = load_config(path)
    assert (config.seed, config.data.path) == (3, "Größe")


def test_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes("seed: 1\ndata: {path: Größe}\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="line 2: must be UTF-8 text"):
        load_config(path)


TEXTS = st.one_of(
    st.sampled_from([*VALUES, "010", "~", "", "12e03", "0o17", " x", "#1", "a: b", "D:\\_"]),
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.from_regex(r"[-+0-9.:_eExobYyNnOo~]{1,8}", fullmatch=True),
)


@given(TEXTS)
def test_every_text_survives_its_yaml(text: str) -> None:
    assert parse(scalars.dump({"key": text, "list": [text]}), "c.yaml").keys == {
        "key": text, "list": [text]
    }  # fmt: skip


@pytest.mark.parametrize("name", ["12e03", "0o17", "1e3", "2024-01-01", "010", "no", "0x1F"])
def test_a_name_that_looks_like_a_number_survives_in_a_run(name: str) -> None:
    config = load_config(MNIST, [f'name="{name}"'])
    assert parse_config(config.to_yaml(), "again") == config
