import os
import subprocess
import sys
from pathlib import Path

import pytest

from convae.errors import FileError
from convae.files import aside, check_folder, remove_leftovers


def test_leftovers_of_the_dead_go_and_of_the_living_stay(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead = tmp_path / f".best.{gone.pid}.partial.keras"
    ours = aside(tmp_path / "manifest.json")  # of a process that had our number before us
    living = tmp_path / f".metrics.{os.getppid()}.partial.json"
    others = [tmp_path / name for name in ("best.keras", ".hidden", ".a.partial.json")]
    for path in (dead, ours, living, *others):
        path.touch()
    remove_leftovers(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in (living, *others)}


def test_a_folder_is_checked_and_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (Path(), Path("a/b"), tmp_path / "a"):
        check_folder(folder)
    assert not list(tmp_path.iterdir())
    Path("file").touch()
    for folder, reason in {
        Path("file"): "file is not a folder",
        Path("file/a"): f"{tmp_path / 'file'} is not a folder",
    }.items():
        with pytest.raises(FileError) as caught:
            check_folder(folder)
        assert str(caught.value) == f"{folder}: cannot be written: {reason}"
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(FileError) as caught:
        check_folder(Path("a"))
    assert str(caught.value) == f"a: cannot be written: no permission in {tmp_path}"
