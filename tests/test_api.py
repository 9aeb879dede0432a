"""The names that `import convae` offers, and every example in docs/api.md and the docstrings."""

import doctest
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import convae
from tests.conftest import ROOT

NAMES = [
    "Autoencoder", "CheckpointError", "ConfigError", "ConvAutoencoder", "ConvaeError", "DataError",
    "FileError", "Run", "RunError", "UnsupportedError", "evaluate", "load", "load_config", "train",
]  # fmt: skip
EXAMPLES = [
    "config.loader", "console", "inference.autoencoder", "inference.sklearn", "runs.run",
    "training.trainer",
]  # fmt: skip
PAGE = ROOT / "docs/api.md"


def test_the_names_are_few_and_each_is_on_the_page() -> None:
    assert sorted(convae.__all__) == NAMES
    text = PAGE.read_text(encoding="utf-8")
    for name in NAMES:
        assert f"| `{name}" in text
        assert name in dir(convae)
    assert not hasattr(convae, "tensorflow")


def test_import_is_quick_and_brings_no_tensorflow() -> None:
    script = (
        "import sys, time; began = time.perf_counter(); import convae\n"
        "passed = time.perf_counter() - began\n"
        "assert not {'tensorflow', 'keras', 'numpy', 'sklearn'} & set(sys.modules)\n"
        "assert callable(convae.load_config) and 'tensorflow' not in sys.modules\n"
        "print(passed)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert float(done.stdout) < 0.5  # 0.05 s on an idle machine


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like the repository's root, with an untrained run called mnist."""
    from convae.config.loader import load_config
    from convae.models.builder import build_model, save_plain
    from convae.runs.run import Run

    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    config = load_config("mnist")
    run = Run.create(config)
    run.save_model("best.keras", lambda path: save_plain(build_model(config), path))
    return tmp_path


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_of_the_docstrings(name: str) -> None:
    if name == "inference.sklearn":
        pytest.importorskip("sklearn")
    results = doctest.testmod(import_module(f"convae.{name}"), optionflags=doctest.ELLIPSIS)
    assert results.attempted >= 3
    assert results.failed == 0


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_examples_of_the_page() -> None:
    pytest.importorskip("sklearn")
    results = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert results.attempted > 20
    assert results.failed == 0
