"""A little of each of scripts/torture.py's faults; `make torture` is the whole."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.mark.slow
def test_nothing_is_lost(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts/torture.py"), "--quick"]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "result.json")],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "result.json").read_text())["rows"]
    assert len(rows) >= 8
    assert sum(row["times"] for row in rows) > 100
