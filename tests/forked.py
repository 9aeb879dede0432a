"""The command line in processes that need not import TensorFlow: it takes most of their time.

They are forked from a server that has imported it and not used it, one for each process of pytest.
What a fresh process does otherwise, `conftest.convae` shows when it is given variables.
"""

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

if sys.platform == "win32":  # which cannot fork
    FORKED = multiprocessing.get_context("spawn")
else:
    FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    ["convae.cli.main", "convae.training.trainer", "convae.evaluation.evaluate"]
)


class Convae:
    """`convae WORDS` in `folder`, started; `before` is a picklable function that it calls first."""

    def __init__(self, folder: Path, *words: str, before: Callable[[], object] | None = None):
        self._words = words
        streams = folder.parent / f"{folder.name}-streams"
        streams.mkdir(exist_ok=True)
        number = len(list(streams.iterdir())) // 2
        self._out, self._err = (streams / f"{number}.{name}" for name in ("out", "err"))
        for path in (self._out, self._err):
            path.touch()  # now, so that the next process takes other names
        self._process = FORKED.Process(
            target=_run, args=(words, folder, dict(os.environ), self._out, self._err, before)
        )
        self._process.start()
        self.pid = self._process.pid or 0

    def wait_for(self, path: Path, seconds: float = 60) -> Path:
        """The path, once it is there."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if path.exists():
                return path
            assert self._process.is_alive(), self._err.read_text()
            time.sleep(0.01)
        raise AssertionError(f"{path} did not appear")

    def done(self, seconds: float) -> subprocess.CompletedProcess[str]:
        """Its exit code and words, once it has ended. Raises TimeoutExpired if it does not."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
            raise subprocess.TimeoutExpired(self._words, seconds, stderr=self._err.read_bytes())
        code = self._process.exitcode
        self._process.close()
        words = (self._out.read_text(), self._err.read_text())
        return subprocess.CompletedProcess(self._words, code, *words)


def _run(
    words: tuple[str, ...], folder: Path, environment: Mapping[str, str], out: Path, err: Path,
    before: Callable[[], object] | None,
) -> None:  # fmt: skip
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in ((1, out), (2, err)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), number)
    sys.argv = ["convae", *words]
    from convae.cli.main import main  # there already

    if before:
        before()
    main()
