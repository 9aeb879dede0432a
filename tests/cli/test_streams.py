"""Streams that are closed, full, of few characters, or that nobody reads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Command, tiny

MNIST = str(ROOT / "configs/mnist.yaml")
CONVAE = f"{sys.executable} -m convae"


def shell(folder: Path, command: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command.replace("convae", CONVAE)], cwd=folder, timeout=60, check=False,
        capture_output=True, text=True, env={**os.environ, **env},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("command", "code", "out", "err"),
    [
        ("convae size --from 3 --to 5 >&-", 0, "", "next:"),
        ("convae size --from 3 --to 5 >/dev/full", 1, "", "cannot be written to stdout: No space"),
        ("convae size --from 3 --to 5 2>&-", 0, "kernel", ""),
        ("convae size --from 3 --to 5 2>/dev/full", 0, "kernel", ""),
        ("convae size --from 3 --to 5 <&- >&- 2>&-", 0, "", ""),
        ("convae size --from 3 --all | head -1; exit ${PIPESTATUS[0]}", 2, "", "which sizes?"),
        ("convae config MNIST | head -1; exit ${PIPESTATUS[0]}", 0, "name: mnist", "next:"),
        ("convae config nothing.yaml 2>&-", 2, "", ""),
        ("convae config nothing.yaml 2>/dev/full", 2, "", ""),
        ("convae --help >/dev/full", 1, "", "No space left"),
        ("mkdir gone; cd gone; rmdir ../gone; convae runs", 2, "", "does not exist any more"),
    ],
)
def test_streams_that_cannot_be_used(
    tmp_path: Path, command: str, code: int, out: str, err: str
) -> None:
    done = shell(tmp_path, command.replace("MNIST", MNIST))
    assert done.returncode == code, done.stderr
    assert out in done.stdout
    assert bool(out) == bool(done.stdout)
    assert err in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_an_encoding_with_few_characters_gets_plain_ones(tmp_path: Path) -> None:
    done = shell(tmp_path, "convae explain --example 1", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "floor((6 + 2 - 2) / 2) + 1 = 4" in done.stdout
    assert done.stdout.isascii()
    words = "convae config 'größe–1.yaml'"
    done = shell(tmp_path, words, PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert r"gr\xf6\xdfe-1.yaml: no such file" in done.stderr


def test_a_files_name_that_is_not_utf_8_is_printed_with_an_escape() -> None:
    code = (
        "import sys; from convae.cli.streams import open_streams; open_streams();"
        "print(sys.argv[1], '\\u2212')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, os.fsdecode(b"a\xff")], capture_output=True, check=True,
        timeout=60,
    )  # fmt: skip
    assert done.stdout.decode() == "a\\xff \u2212\n"


@pytest.mark.parametrize("name", ["TkAgg", "nonsense"])
def test_a_backend_of_matplotlib_that_needs_a_display(tmp_path: Path, name: str) -> None:
    done = shell(tmp_path, "convae explain --example 1 --out steps.png", MPLBACKEND=name)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "steps.png").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", ">&- 2>&- <&-"])
def test_a_training_goes_on_without_its_messages(
    tmp_path: Path, digits: Path, convae: Command, streams: str
) -> None:
    words = " ".join(f"'{word}'" for word in tiny(digits, tmp_path / "outputs"))
    done = shell(tmp_path, f"convae train {MNIST} {words} {streams}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "finished" in convae("runs").stdout
