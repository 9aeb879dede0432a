"""The list of commands, and the example of each."""

import os
import pty
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from convae.cli.help import EXAMPLES
from convae.cli.main import app

ALL = {words: text for examples in EXAMPLES.values() for words, text in examples.items()}


def show(*words: str) -> str:
    result = CliRunner().invoke(app, [*words, "--help"], prog_name="convae", env={"COLUMNS": "80"})
    return result.output


@pytest.fixture(scope="module")
def commands() -> dict[str, Any]:
    """Every command by its words, such as "explain inverse"."""
    found: dict[str, Any] = {}
    for name, command in vars(get_command(app))["commands"].items():
        found[name] = command
        found |= {f"{name} {word}": one for word, one in getattr(command, "commands", {}).items()}
    return found


def test_every_command_has_a_group_and_an_example(commands: dict[str, Any]) -> None:
    assert set(commands) == set(ALL)
    assert {one.rich_help_panel for name, one in commands.items() if name in ALL} >= set(EXAMPLES)


@pytest.mark.parametrize("words", ALL)
def test_help_shows_an_example_that_can_be_run(words: str, commands: dict[str, Any]) -> None:
    program, *line = shlex.split(ALL[words])
    path = words.split()
    assert [program, *line[: len(path)]] == ["convae", *path]
    commands[words].make_context(words, line[len(path) :])  # raises for a wrong argument
    assert f"Example: {ALL[words]}" in " ".join(show(*path).split())


@pytest.mark.parametrize("words", [(), ("explain",), ("cache",)])
def test_no_summary_is_cut_off(words: tuple[str, ...]) -> None:
    text = show(*words).replace("[KEY=VALUE]...", "").replace("[ARGS]...", "")
    assert "..." not in text
    assert "╭" not in text  # plain, where it is piped
    if not words:
        assert [title for title in EXAMPLES if f"\n{title}:\n" in text] == list(EXAMPLES)


@pytest.mark.parametrize("words", [(), ("train",)])
def test_help_has_boxes_on_a_terminal(words: tuple[str, ...], tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "convae", *words, "--help"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(command, stdout=theirs, cwd=tmp_path, env=environment) as process:
        os.close(theirs)
        text = b""
        with suppress(OSError):  # the end, on Linux
            while part := os.read(ours, 1 << 16):
                text += part
    os.close(ours)
    assert process.returncode == 0
    assert "╭" in text.decode()
