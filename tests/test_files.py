import os
import subprocess
import sys
from pathlib import Path

from convae.files import aside, remove_leftovers


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
