"""Train in child processes, and check their run folders after a fault."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import resource
import sys
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from signal import SIGKILL, Signals
from typing import Any

import numpy as np

from convae.data.datasets import SAMPLE_PATH
from convae.runs.run import Run
from tests.forked import Convae
from tests.stress import faults
from tests.stress.faults import PATIENCE

EPOCHS = 4  # of 40 steps
# Two layers, so that a start costs seconds less; everything else is as in any training.
CONFIG = """
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
runtime: {precision: float32, threads: 2, steps_per_execution: 1}
"""

Fault = Callable[[], None]


class Lost(Exception):  # noqa: N818 - it is the result that the suite looks for
    """Something was lost, or ended in a wrong way."""


class Child(Convae):
    """A process of the command line that can be disturbed."""

    @property
    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in (self._out, self._err))

    def lost(self, what: str) -> Lost:
        """An exception with the end of its log."""
        return Lost(f"{what}: {self.log[-1000:]}")

    def wait(self, seconds: float = PATIENCE) -> int:
        """Return the exit code, negative for a signal. Kill it if it takes longer: it is lost."""
        self.pause(seconds)
        if self._process.exitcode is None:
            self.signal(SIGKILL)
            raise self.lost(f"still runs after {seconds:.0f} s")
        return self._process.exitcode

    def pause(self, seconds: float) -> None:
        self._process.join(seconds)

    def wait_for_text(self, text: str) -> None:
        """Wait until it has printed `text`, or has ended."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.log and self._process.is_alive():
            if time.monotonic() > deadline:
                raise self.lost(f"never printed {text!r}")
            time.sleep(0.01)

    def signal(self, number: Signals) -> None:
        """Send a signal, if it still runs."""
        if self._process.is_alive():
            os.kill(self.pid, number)

    def limit_file_size(self, size: int) -> None:
        """Let none of its files grow beyond `size` bytes from now on."""
        with suppress(ProcessLookupError):
            resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size, size))

    def expect(self, code: int) -> None:
        """Wait for it; it must end with `code` and without a traceback."""
        if self.wait() != code or "Traceback" in self.log:
            raise self.lost(f"exit code {self._process.exitcode} instead of {code}")


@dataclass
class Sandbox:
    """A folder to train in, with the result of a training that nothing disturbs."""

    folder: Path
    data: Path
    seed: int
    count: int  # repetitions of the scenario
    reference: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0  # of the undisturbed training, from its folder to its end
    epochs: dict[Path, int] = field(default_factory=dict)  # finished ones by run
    note: str = ""  # for the table

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.folder.mkdir()

    @classmethod
    def prepare(cls, folder: Path) -> None:
        """Write the data and the config, and train once without a fault."""
        with np.load(SAMPLE_PATH) as file:
            arrays = {k: file[k][: 250 if k.endswith("train") else 60] for k in file.files}
        np.savez(folder / "data.npz", **arrays)
        (folder / "config.yaml").write_text(CONFIG)
        sandbox = cls(folder / "reference", folder / "data.npz", 0, 1)
        child = sandbox.train()
        child.wait_for_text("run: ")
        began = time.monotonic()
        child.expect(0)
        kept = {"seconds": time.monotonic() - began, "reference": result(sandbox.run())}
        (folder / "reference.json").write_text(json.dumps(kept))

    @classmethod
    def create(cls, folder: Path, name: str, seed: int, count: int) -> Sandbox:
        """Return a new one beside the reference that `prepare` made in `folder`."""
        kept = json.loads((folder / "reference.json").read_text())
        return cls(folder / f"{name}-{seed}", folder / "data.npz", seed, count, **kept)

    def train(self, *overrides: str, fault: Fault | None = None) -> Child:
        return Child(self.folder, *self._command(*overrides), before=fault)

    def resume(self, run: Path, *overrides: str, fault: Fault | None = None) -> Child:
        return Child(self.folder, "train", "--resume", str(run), *overrides, before=fault)

    def spawn(self, *overrides: str, run: Path | None = None) -> Child:
        """Start a training, or resume `run`, as a process that imports everything itself."""
        command = ["train", "--resume", str(run)] if run else self._command(*overrides)
        words = [sys.executable, "-m", "convae", *command]
        return Child(self.folder, before=partial(os.execv, sys.executable, words))

    def _command(self, *overrides: str) -> list[str]:
        own = [f"data.path={self.data}", "name=run", f"output.folder={self.folder / 'outputs'}"]
        return ["train", str(self.data.with_name("config.yaml")), *own, *overrides]

    def killed(self, step: int, *overrides: str) -> Path:
        """Return a run that was killed after `step` steps."""
        self.train(*overrides, fault=partial(faults.kill_at, "step", step)).wait()
        return self.run()

    def finish(self, run: Path) -> None:
        """Check `run`, and resume it to its end, whose result must be the undisturbed one's."""
        self.check_complete(run)
        self.resume(run).expect(0)
        self.check_same(run)

    def hold(self, *overrides: str) -> Child:
        child = self.train(*overrides, fault=faults.hold)
        child.wait_for_text("holding")
        return child

    def release(self, child: Child, code: int) -> None:
        """Let a child that is held continue, and expect its end."""
        (self.folder / "go").touch()
        try:
            child.expect(code)
        finally:
            (self.folder / "go").unlink()

    def newest(self, outputs: Path | None = None) -> Path | None:
        runs = sorted((outputs or self.folder / "outputs").glob("*/*-*/config.yaml"))
        return runs[-1].parent if runs else None

    def run(self, outputs: Path | None = None) -> Path:
        """Return the newest run's folder, which must exist."""
        if run := self.newest(outputs):
            return run
        raise Lost("no run was started")

    def check_complete(self, run: Path) -> None:
        """After a fault: every file is readable, no finished epoch is lost, nor the best model."""
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
                weights(run / "best.keras")
        elif rows:
            raise Lost(f"{run}: {rows} epochs and no checkpoint")

    def check_same(self, run: Path) -> None:
        self.check_complete(run)
        if result(run) != self.reference:
            raise Lost(f"{run}: {result(run)} instead of {self.reference}")


def result(run: Path) -> dict[str, Any]:
    """Return what must be equal in two runs: weights, best weights, metrics of every epoch."""
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
    """Return the hash of a `.keras` file's weights; the file itself holds the time of day."""
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
