"""Where torture.py lets trainings meet their faults: processes, and what must be true after each.

A child is forked with TensorFlow imported and runs `convae.cli.main()` as a shell would start it. A
fault is a function that the child calls first.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import resource
import signal
import sys
import time
import traceback
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM
from typing import Any

import numpy as np

from convae.data.loading import SAMPLE_PATH
from convae.runs.run import Run

EPOCHS = 4  # of 40 steps
# Two layers, so that a start costs seconds less; everything else is as in any training.
SETTINGS = """
data: {download: false}
model:
  encoder: [{type: conv, filters: 4, kernel_size: 3, strides: 2, padding: same, activation: relu}]
  decoder:
    - {type: conv_transpose, filters: 1, kernel_size: 4, strides: 2, padding: same,
       activation: sigmoid}
training:
  epochs: 4
  batch_size: 5
  learning_rate: 0.02
  checkpoint_interval: {steps: 13}
  schedule: {type: reduce_on_plateau, patience: 1}
runtime: {precision: float32, threads: 2}
"""
PATIENCE = 900.0  # seconds until a process counts as hung

Fault = Callable[[], None]


class Lost(Exception):  # noqa: N818 - what the whole is about
    """What went wrong, for the table."""


def import_heavy() -> None:
    """Import what every child needs, but run nothing: TensorFlow starts threads when it does."""
    import convae.evaluation.evaluate
    import convae.training.trainer  # noqa: F401


@dataclass
class Child:
    """A process, and what it prints."""

    pid: int
    output: Path
    code: int | None = None

    @property
    def log(self) -> str:
        """All that it printed so far."""
        return self.output.read_text(errors="replace")

    @property
    def tail(self) -> str:
        """The end of it."""
        return self.log[-1000:]

    def poll(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait_at_most(self, seconds: float) -> None:
        """Wait until it ends or so many seconds have passed."""
        deadline = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)

    def wait(self) -> int:
        """The exit code; a process that hangs is killed and counts as lost."""
        self.wait_at_most(PATIENCE)
        if self.poll() is None:
            self.signal(SIGKILL)
            raise Lost(f"hung: {self.tail}")
        assert self.code is not None
        return self.code

    def wait_for(self, text: str) -> None:
        """Wait until it has printed `text`, or has ended."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.log and self.poll() is None:
            if time.monotonic() > deadline:
                raise Lost(f"never printed {text!r}: {self.tail}")
            time.sleep(0.01)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def limit_file_size(self, size: int) -> None:
        """From now on none of its files may become larger."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size, size))


@dataclass
class Arena:
    """A folder to train in, and what an undisturbed training came to."""

    folder: Path
    data: Path
    reference: dict[str, Any]
    seconds: float  # of the undisturbed training, from its folder to its end
    epochs: dict[Path, int] = field(default_factory=dict)  # finished, as far as seen
    started: int = 0

    @classmethod
    def prepare(cls, folder: Path) -> None:
        """Make the data, and train once without any fault."""
        with np.load(SAMPLE_PATH) as file:
            parts = {k: file[k][: 250 if k.endswith("train") else 60] for k in file.files}
        np.savez(folder / "data.npz", **parts)
        (folder / "config.yaml").write_text(SETTINGS)
        arena = cls(folder, folder / "data.npz", {}, 0.0)
        child = arena.start(*arena.new("reference"))
        child.wait_for("run: ")
        began = time.monotonic()
        arena.expect(child, 0)
        run = arena.begun("reference")
        kept = {"seconds": time.monotonic() - began, "result": result(run)}
        (folder / "reference.json").write_text(json.dumps(kept))

    @classmethod
    def of(cls, folder: Path, name: str) -> Arena:
        """A new one beside the reference that `prepare` made."""
        kept = json.loads((folder / "reference.json").read_text())
        (folder / name).mkdir()
        return cls(folder / name, folder / "data.npz", kept["result"], kept["seconds"])

    def new(self, name: str, disk: Path | None = None) -> list[str]:
        """The words that train anew."""
        place = [f"name={name}", f"output.folder={disk or self.folder / 'outputs'}"]
        return [str(self.data.with_name("config.yaml")), f"data.path={self.data}", *place]

    def newest(self, name: str, disk: Path | None = None) -> Path | None:
        """The run that was begun last."""
        runs = sorted((disk or self.folder / "outputs").glob(f"{name}/*-*/config.yaml"))
        return runs[-1].parent if runs else None

    def begun(self, name: str, disk: Path | None = None) -> Path:
        """The run that was begun last, which must be there."""
        run = self.newest(name, disk)
        if run is None:
            raise Lost(f"no run called {name} was begun")
        return run

    def start(self, *words: str, command: str = "train", before: Fault | None = None) -> Child:
        """`convae COMMAND WORDS` in a forked process, with a fault."""

        def run() -> None:
            from convae.cli.main import main

            sys.argv = ["convae", command, *words]
            if before:
                before()
            main()

        return self._fork(run)

    def spawn(self, *words: str) -> Child:
        """`convae train WORDS` as a whole process, from its first instruction on."""
        command = [sys.executable, "-m", "convae", "train", *words]
        return self._fork(lambda: os.execv(sys.executable, command))

    def _fork(self, run: Callable[[], Any]) -> Child:
        self.started += 1
        output = self.folder / f"log-{self.started}"
        output.touch()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            return Child(pid, output)
        code = 1
        try:
            log = os.open(output, os.O_WRONLY)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.chdir(self.folder)
            signal.signal(SIGINT, signal.default_int_handler)
            signal.signal(SIGTERM, signal.SIG_DFL)
            sys.stdout = os.fdopen(1, "w", closefd=False)
            sys.stderr = os.fdopen(2, "w", closefd=False)
            run()
            code = 0
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def expect(self, child: Child, code: int) -> None:
        """Wait for the child; it must end with `code` and without a traceback."""
        if child.wait() != code or "Traceback" in child.log:
            raise Lost(f"exit code {child.code} instead of {code}: {child.tail}")

    def let_go(self, child: Child, code: int) -> None:
        """Let a child that is held go on, and expect its end."""
        (self.folder / "go").touch()
        try:
            self.expect(child, code)
        finally:
            (self.folder / "go").unlink()

    def resume(self, run: Path) -> Child:
        """Go on with `run` to its end, which must be the undisturbed one's."""
        child = self.start("--resume", str(run))
        self.expect(child, 0)
        self.check_same(run)
        return child

    def check_whole(self, run: Path) -> None:
        """After a fault: everything can be read, no finished epoch is gone, nor the best model."""
        opened = Run(run)
        _ = opened.config, opened.manifest
        rows = len(opened.history)
        if opened.has_checkpoint:
            state, _, notice = opened.load_checkpoint()
            if notice:
                raise Lost(f"a damaged checkpoint: {notice}")
            finished = len(state["history"])
            if finished < max(rows, self.epochs.get(run, 0)):
                raise Lost(f"{run}: {finished} epochs are left")
            self.epochs[run] = finished
            if finished:
                self.check_best(run)
        elif rows:
            raise Lost(f"{run}: {rows} epochs and no checkpoint")

    def check_best(self, run: Path) -> None:
        """best.keras is there and whole."""
        weights(run / "best.keras")

    def check_same(self, run: Path) -> None:
        """A finished run has the bits of the undisturbed one."""
        self.check_whole(run)
        if result(run) != self.reference:
            raise Lost(f"{run}: {result(run)} instead of {self.reference}")

    def weights(self, name: str) -> str:
        """The hash of the newest run's weights."""
        return str(Run(self.begun(name)).manifest["weights_sha256"])


def result(run: Path) -> dict[str, Any]:
    """What must be the same of two runs: weights, best weights, the figures of every epoch."""
    opened = Run(run)
    timed = {"seconds", "images_per_second"}
    return {
        "status": opened.manifest["status"],
        "weights_sha256": opened.manifest["weights_sha256"],
        "model.keras": weights(run / "model.keras"),
        "best.keras": weights(run / "best.keras"),
        "history": [{k: v for k, v in row.items() if k not in timed} for row in opened.history],
    }


def weights(path: Path) -> str:
    """The hash of a `.keras` file's weights: the file itself holds the time of day."""
    import h5py

    digest = hashlib.sha256()

    def add(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            digest.update(name.encode() + np.asarray(node).tobytes())

    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise Lost(f"{path}: {damaged} is damaged")
        with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
            file.visititems(add)
    return digest.hexdigest()
