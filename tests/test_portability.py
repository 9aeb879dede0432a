"""convae without what only POSIX has: a stand-in for Windows, which the tests cannot have here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from convae.runs.run import Run
from tests.conftest import ROOT, SAMPLE, tiny


def photographs(folder: Path) -> Path:
    """A folder of 80 digits in two classes."""
    with np.load(SAMPLE) as file:
        for i, image in enumerate(file["x_train"][:80]):
            path = folder / f"class {i % 2}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return folder


def test_trains_resumes_evaluates_and_caches(digits: Path, tmp_path: Path) -> None:
    mnist, runs = str(ROOT / "configs/mnist.yaml"), tmp_path / "outputs"
    folder = photographs(tmp_path / "photographs")
    names = [str(path) for path in sorted(folder.rglob("*.png"))[:3]]
    commands = [
        ["train", mnist, *tiny(digits, runs)],
        ["train", "--resume", str(runs / "mnist/latest"), "training.epochs=3"],
        ["eval", "mnist"],
        ["predict", "mnist", *names],
        ["cache", "build", str(folder), "--config", mnist],
        ["train", mnist, *tiny(folder, runs), "name=photographs", "training.batch_size=20"],
        ["cache", "verify"],
        ["cache", "clear"],
        ["runs", "--json"],
        ["doctor", mnist, f"data.path={digits}"],
    ]
    path = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.without_posix", json.dumps(commands)],
        cwd=tmp_path, capture_output=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONIOENCODING": "cp1252"},
    )  # fmt: skip
    printed, log = done.stdout.decode("cp1252"), done.stderr.decode("cp1252")
    assert done.returncode == 0, log
    run = Run.find("mnist", str(runs))
    assert [row["epoch"] for row in run.history] == [1, 2, 3]
    assert run.metrics["test"]["mse"] > 0
    assert not (run.path.parent / "latest").exists()
    assert "caching 80 images" in log
    assert printed.count('"status": "finished"') == 2
