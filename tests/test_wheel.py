"""The wheel, installed into an environment of its own, does its work outside the repository."""

import json
import signal
import site
import subprocess
import sys
import threading
import venv
from pathlib import Path
from urllib.request import urlopen

import pytest
from PIL import Image

from tests.conftest import ROOT, tiny


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The `convae` of a new environment, which has its own convae and the packages of this one."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    built, environment = tmp_path / "built", tmp_path / "venv"
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={built}", str(ROOT)]
    subprocess.run(wheel, check=True, timeout=120)
    venv.create(environment, symlinks=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "this.pth").write_text("\n".join(site.getsitepackages()))
    python = ["--python", str(environment / "bin/python")]
    install = ["install", "--no-deps", "--no-index", *map(str, built.glob("*.whl"))]
    subprocess.run([*pip, *python, *install], check=True, timeout=120)
    return environment / "bin/convae"


@pytest.mark.slow
def test_the_wheel_works_outside_the_repository(
    installed: Path, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    folder = tmp_path / "user"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def convae(*words: object) -> str:
        done = subprocess.run(
            [installed, *map(str, words)], capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = json.loads(convae("configs", "--json"))
    assert {"mnist", "images", "sweep"} < {row["name"] for row in listed}
    trained = json.loads(convae("train", "mnist", *tiny(digits, Path("outputs")), "--json"))
    imported = next(iter(tmp_path.glob("venv/lib/python*/site-packages/convae/__init__.py")))
    where = [str(installed.with_name("python")), "-c", "import convae; print(convae.__file__)"]
    assert subprocess.check_output(where, text=True, timeout=60).strip() == str(imported)
    assert json.loads(convae("eval", "--json"))["test"]["mse"] < 0.2
    assert Path(trained["run"], "report.html").is_file()
    convae("init", "mnist")
    assert "12,785" in convae("inspect", "mnist.yaml")
    Image.new("L", (28, 28), 200).save("gray.png")
    (row,) = json.loads(convae("predict", "pretrained:mnist", "gray.png", "--json"))
    assert Path(row["output"]).is_file()
    assert "36" in convae("explain", "--example", "2")
    assert page_of_demo(installed).startswith("<!doctype html>")


def page_of_demo(convae: Path) -> str:
    """Start the demo, read its page in lower case, and stop it with Ctrl-C."""
    with subprocess.Popen(
        [convae, "demo", "pretrained:mnist"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        deadline = threading.Timer(120, process.kill)
        deadline.start()
        try:
            with urlopen(process.stdout.readline().strip(), timeout=60) as answer:
                return str(answer.read().decode().lower())
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
            deadline.cancel()
