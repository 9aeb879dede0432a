"""What the tests share: an isolated home, a few real digits, and the command line as a process."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from tests.forked import Convae

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "src/convae/data/mnist_sample.npz"
hypothesis.settings.register_profile("machine of any speed", deadline=None)
hypothesis.settings.load_profile("machine of any speed")
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def isolated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No test sees the user's caches or the caller's data, and none reaches the network."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras-home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("CONVAE_DATA", raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An npz of real digits: 250 for training (50 of them to validate), 60 for testing."""
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    with np.load(SAMPLE) as file:
        counts = {"x_train": 250, "y_train": 250, "x_test": 60, "y_test": 60}
        np.savez(path, **{name: file[name][:count] for name, count in counts.items()})
    return path


@pytest.fixture
def convae(tmp_path: Path) -> Command:
    """Run the command line in an empty folder, in a process of its own; with `env`, a fresh one.

    With `code`, check that the process ends with this exit code.
    """

    def run(
        *words: str, timeout: float = 120, code: int | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        if not env:
            done = Convae(tmp_path, *words).done(timeout)
        else:
            done = subprocess.run(
                [sys.executable, "-m", "convae", *words], capture_output=True, text=True,
                timeout=timeout, cwd=tmp_path, env={**os.environ, **env}, check=False,
            )  # fmt: skip
        assert code is None or done.returncode == code, done.stderr
        return done

    return run


@contextmanager
def served(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server of this machine alone, which ends with the block."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()


def tiny(digits: Path, outputs: Path, *more: str) -> list[str]:
    """Overrides that train configs/mnist.yaml within a second on `digits`."""
    layers = ("encoder.0", "encoder.1", "decoder.1", "decoder.2")
    filters = [f"model.{layer}.filters=4" for layer in layers]
    data = [f"data.path={digits}", f"output.folder={outputs}"]
    return [*data, "training.epochs=2", "training.batch_size=40", *filters, *more]
