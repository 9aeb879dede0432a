"""A short run of the stress suite; `make stress` runs all of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_nothing_is_lost(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.stress.stress", "--quick"]
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
