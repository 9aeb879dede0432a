"""The faults of torture.py, and the processes that meet them.

A child is forked with TensorFlow imported and runs `convae.cli.main()` as a shell would start it. A
fault is a function that the child calls first: it changes what the child's own `os`, `pathlib` or
engine do. The code of the package knows nothing of it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM
from typing import Any

import numpy as np

from convae.data import SAMPLE_PATH
from convae.run import Run

__all__ = ["SIGINT", "SIGKILL", "SIGTERM"]

ROOT = Path(__file__).parents[1]
EPOCHS = 4  # of 40 steps
# Two layers, so that a start costs seconds less; everything else is as in any training.
SETTINGS = """
data: {download: false}
model:
  encoder: [{type: conv, filters: 4, kernel_size: 3, strides: 2, padding: same, activation: relu}]
  decoder:
    - {type: conv_transpose, filters: 1, kernel_size: 4, strides: 2, padding: same, activation: sigmoid}
training:
  epochs: 4
  batch_size: 5
  learning_rate: 0.02
  checkpoint_every: {steps: 13}
  schedule: {type: reduce_on_plateau, patience: 1}
runtime: {precision: float32, strands: 2}
"""
PATIENCE = 300.0  # seconds until a process counts as hung

Fault = Callable[[], None]


class Lost(Exception):  # noqa: N818 - what the whole is about
    """What went wrong, for the table."""


def import_heavy() -> None:
    """Import what every child needs, but run nothing: TensorFlow starts threads when it does."""
    import convae.evaluate
    import convae.train  # noqa: F401


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
        run = arena.newest("reference")
        assert run is not None
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

    def start(self, *words: str, command: str = "train", before: Fault | None = None) -> Child:
        """`convae COMMAND WORDS` in a forked process, with a fault."""

        def run() -> None:
            from convae.cli import main

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
        run = self.newest(name)
        assert run is not None
        return str(Run(run).manifest["weights_sha256"])


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


def kill_at(kind: str, count: int) -> Fault:
    """SIGKILL after `count` steps, or at the `count`-th point before, inside and after a write."""
    left = [count]

    def point() -> None:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), SIGKILL)

    def install() -> None:
        if kind == "step":
            _after_steps(point)
            return
        real_fsync, real_replace = os.fsync, os.replace

        def fsync(handle: int) -> None:
            point()
            real_fsync(handle)
            point()

        def replace(*paths: Any) -> None:
            point()
            real_replace(*paths)
            point()

        def write_bytes(path: Path, data: bytes) -> None:
            with path.open("wb") as file:
                point()
                file.write(data[: len(data) // 2])
                file.flush()
                point()
                file.write(data[len(data) // 2 :])

        os.fsync, os.replace = fsync, replace  # type: ignore[assignment]
        Path.write_bytes = write_bytes  # type: ignore[method-assign,assignment]

    return install


def _after_steps(action: Callable[[], None]) -> None:
    """Call `action` after each step of the training."""
    from convae.engine import Engine

    step = Engine.train_step

    def train_step(*arguments: Any) -> Any:
        loss = step(*arguments)
        action()
        return loss

    Engine.train_step = train_step


def hold() -> None:
    """Stop in the 60th step, in the second epoch, until a file `go` is there."""
    steps = [0]

    def wait() -> None:
        steps[0] += 1
        if steps[0] == 60:
            print("holding", flush=True)
            deadline = time.monotonic() + PATIENCE
            while not Path("go").exists() and time.monotonic() < deadline:
                time.sleep(0.05)

    _after_steps(wait)


def no_space(name: str, nth: int) -> Fault:
    """The `nth` write of the file `name` meets a full disk, half-way."""
    stem, _, ending = name.rpartition(".")
    seen = [0]

    def fails(path: str) -> bool:
        base = os.path.basename(path)  # noqa: PTH119 - of a link's text
        hit = base.startswith(f".{stem}.") and base.endswith(f".{ending}")
        seen[0] += hit
        return hit and seen[0] == nth

    def install() -> None:
        real_write, real_fsync = Path.write_bytes, os.fsync

        def write_bytes(path: Path, data: bytes) -> int:
            if ending != "keras" and fails(str(path)):
                real_write(path, data[: len(data) // 2])
                raise OSError(28, "No space left on device")
            return real_write(path, data)

        def fsync(handle: int) -> None:
            if ending == "keras" and fails(os.readlink(f"/proc/self/fd/{handle}")):  # noqa: PTH115
                raise OSError(28, "No space left on device")
            real_fsync(handle)

        Path.write_bytes, os.fsync = write_bytes, fsync  # type: ignore[method-assign,assignment]

    return install


def less_memory(mebibytes: int) -> Fault:
    """Only so much more address space than the process has now."""

    def install() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        size = pages * resource.getpagesize() + mebibytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (size, size))

    return install


def clock_back() -> None:
    """The clock goes back an hour at each look, and begins an hour earlier with each run."""
    from convae import run

    hours = [len(list(Path("outputs/clock").glob("*-*")))]
    real = time.time()

    def now() -> float:
        hours[0] += 1
        return real - 3600 * hours[0]

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Clock:
            return cls.fromtimestamp(now(), tz)

        def __add__(self, other: timedelta) -> Clock:
            return Clock.fromtimestamp(self.timestamp() + other.total_seconds())

    strftime = time.strftime
    run.datetime = Clock  # type: ignore[misc]
    time.time = now
    time.strftime = lambda form, at=None: strftime(form, at or time.localtime(now()))  # type: ignore[assignment,misc]


def timed_saves() -> None:
    """Print after each save how many seconds all of them have taken."""
    total = [0.0]

    def timed(function: Callable[..., None]) -> Callable[..., None]:
        def wrapper(*arguments: Any, **options: Any) -> None:
            began = time.perf_counter()
            function(*arguments, **options)
            total[0] += time.perf_counter() - began
            print(f"seconds in saves: {total[0]:.4f}", flush=True)

        return wrapper

    for name in ("save_checkpoint", "save_model", "write_history"):
        setattr(Run, name, timed(getattr(Run, name)))


def flip(data: bytes, chance: random.Random) -> bytes:
    """One bit, anywhere, is another."""
    changed = bytearray(data)
    changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def cut(data: bytes, chance: random.Random) -> bytes:
    """The end is missing."""
    return data[: chance.randrange(len(data))]


def flip_pixel(data: bytes, chance: random.Random) -> bytes:
    """One bit of the training images is another."""
    size = len(data)
    changed = bytearray(data)
    changed[chance.randrange(size // 10, size // 2)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def other(data: bytes, _: random.Random) -> bytes:
    """Whole data, but of other images."""
    with np.load(io.BytesIO(data)) as file:
        parts = {k: file[k][::-1] for k in file.files}
    changed = io.BytesIO()
    np.savez(changed, **parts)
    return changed.getvalue()


DAMAGES = (cut, flip_pixel, other)


@contextmanager
def tmpfs(folder: Path) -> Iterator[Path | None]:
    """A disk of 2 MiB, or None where it cannot be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(disk: Path) -> None:
    """Leave no byte of the disk free."""
    with suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """The disk cannot be written, though files that are open already can."""
    for words in (["--bind", str(disk), str(disk)], ["-o", "remount,bind,ro", str(disk)]):
        subprocess.run(["mount", *words], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(disk)], check=True)
