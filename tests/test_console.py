"""How the commands behave: streams, levels, colors, completion."""

import os
import pty
import re
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest

from convae import __version__
from tests.cli.test_runs import made
from tests.conftest import ROOT, Command

MNIST = str(ROOT / "configs/mnist.yaml")


def test_version(convae: Command) -> None:
    done = convae("--version", code=0)
    assert (done.stdout, done.stderr) == (f"convae {__version__}\n", "")


@pytest.mark.parametrize("words", [["--quiet", "config", MNIST], ["config", MNIST, "-q"]])
def test_quiet_anywhere_leaves_the_result(convae: Command, words: list[str]) -> None:
    done = convae(*words, code=0)
    assert done.stderr == ""
    assert done.stdout.startswith("name: mnist")


def test_each_command_suggests_the_next(convae: Command, tmp_path: Path) -> None:
    (tmp_path / "my config.yaml").write_text(f"base: {MNIST}\nname: my\n")
    for words, part in [
        (["config", "my config.yaml"], "convae inspect 'my config.yaml'"),
        (["inspect", MNIST, "seed=3"], f"convae train {MNIST} seed=3"),
        (["size", "--from", "13", "--to", "25"], "convae inspect"),
        (["explain"], "convae explain --example 2"),
        (["runs"], "convae train mnist"),
    ]:
        done = convae(*words)
        assert done.stderr.startswith("next: "), words
        assert part in done.stderr
        assert "next:" not in done.stdout
    assert "next:" not in convae("inspect", MNIST, "--json").stderr


def test_an_error_is_printed_though_quiet(convae: Command) -> None:
    done = convae("-q", "inspect", "nothing.yaml", code=2)
    assert done.stderr.startswith("convae: nothing.yaml: no such file")
    assert "exclude each other" in convae("runs", "-q", "-v").stderr


@pytest.mark.parametrize(("no_color", "colored"), [("", True), ("1", False)])
def test_colors_only_on_a_terminal(tmp_path: Path, no_color: str, colored: bool) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "NO_COLOR": no_color, "TERM": "xterm"}
    done = subprocess.run(
        [sys.executable, "-m", "convae", "runs"], stdout=subprocess.PIPE, stderr=theirs,
        env=environment, cwd=tmp_path, timeout=60, check=True,
    )  # fmt: skip
    os.close(theirs)
    assert (b"\033[" in os.read(ours, 10_000)) is colored
    os.close(ours)
    assert b"\033[" not in done.stdout


def on_terminal(code: str, stream: str, folder: Path, columns: int = 60, **environment: str) -> str:
    """What a program writes to "stdout" or "stderr" if that is a terminal."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: theirs}
    variables = {**os.environ, "TERM": "xterm", "NO_COLOR": "", **environment}
    variables.pop("COLUMNS", None)
    subprocess.run(
        [sys.executable, "-c", code], stdout=streams["stdout"], stderr=streams["stderr"],
        env=variables, cwd=folder, timeout=60, check=True,
    )  # fmt: skip
    os.close(theirs)
    written = b""
    with suppress(OSError):  # at the end
        while part := os.read(ours, 10_000):
            written += part
    os.close(ours)
    return written.decode()


BAR = """
from time import sleep
from convae.console import logger, progress_bar, set_level
set_level({level!r})
for number in progress_bar(range(3), desc="working", delay=0, mininterval=0):
    logger.info(f"message {{number}}")
    sleep(0.02)
"""


def test_a_bar_with_the_time_left_for_a_terminal(tmp_path: Path) -> None:
    written = on_terminal(BAR.format(level="normal"), "stderr", tmp_path)
    assert re.search(r"working:  33%.*1/3 \[00:0\d<00:0\d", written)
    assert re.findall(r"message (\d)\r\n", written) == ["0", "1", "2"]  # each on its own line
    assert on_terminal(BAR.format(level="quiet"), "stderr", tmp_path) == ""
    done = subprocess.run(
        [sys.executable, "-c", BAR.format(level="normal")], capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    assert done.stderr == "message 0\nmessage 1\nmessage 2\n"


def test_a_table_fits_the_terminal_and_is_plain_elsewhere(tmp_path: Path, convae: Command) -> None:
    run = made(tmp_path / "outputs", "mine")
    code = "from convae.cli.main import app; app(['runs'])"
    written = on_terminal(code, "stdout", tmp_path, 100)
    assert "\033[1m" in written
    assert "───" in written
    assert run.path.name in written
    narrow = on_terminal(code, "stdout", tmp_path, NO_COLOR="1")
    assert "\033[3" not in narrow
    assert max(map(len, re.sub(r"\033\[\d*m", "", narrow).split("\r\n"))) <= 60
    plain = convae("runs", code=0).stdout
    assert plain.isascii()
    assert plain.splitlines()[1] == "-" * len(plain.splitlines()[1])


def test_the_shell_completes_configs_and_runs(convae: Command, tmp_path: Path) -> None:
    run = made(tmp_path / "outputs", "mine")
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "other.txt").touch()

    def ask(*words: str) -> list[str]:
        count = str(len(words))
        line = " ".join(["convae", *words])
        # The names are those that typer's script for bash sets.
        done = subprocess.run(
            [sys.executable, "-c", "import sys; sys.argv = ['convae']; "
             "from convae.cli.main import main; main()"],
            env={**os.environ, "_CONVAE_COMPLETE": "complete_bash", "COMP_WORDS": line,
                 "COMP_CWORD": count},
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.stdout.split()

    assert ask("train", "m") == ["mnist", "mine.yaml"]
    assert ask("train", "--resume", "m") == ["mine"]
    assert ask("eval", "") == ["latest", "mine", run.path.name]
    assert ask("compare", "mine", "l") == ["latest"]
    assert ask("comp") == ["compare"]
