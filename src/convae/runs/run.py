"""A run's folder: what is in it, how it is found, and how it is written so that nothing is lost.

    outputs/<name>/<time>-<id>/     outputs/<name>/latest points to the newest
        config.yaml                 resolved: every default written out
        manifest.json               versions, device, data, seed, command, times, fingerprints
        history.csv                 a row an epoch
        checkpoint/latest.npz       everything to go on from; previous.npz is the one before
        lock                        held by the process that trains, and by it alone
        best.keras, model.keras     plain Keras layers: of the best epoch, and of the last
        metrics.json, figures/, report.html     written by `convae eval`
        tensorboard/                event files, if output.tensorboard asks for them

Every file is written under a temporary name and renamed, so that a reader sees the old or the new.
"""

from __future__ import annotations

import csv
import difflib
import fcntl
import io
import json
import os
import platform
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from convae import archive
from convae import files as atomic
from convae.config import yaml_tree as yamltree
from convae.config.loader import parse_config
from convae.config.schema import Config
from convae.errors import RunError
from convae.runs import checkpoint, pretrained

# In the order in which to try them. A kill may come before new.npz, read back whole, was renamed.
CHECKPOINTS = ("new.npz", "latest.npz", "previous.npz")
STAMP = "%Y%m%d-%H%M%S"
HISTORY = (
    "epoch",
    "loss",
    "val_loss",
    "val_excess",
    "learning_rate",
    "seconds",
    "images_per_second",
)


@dataclass(frozen=True)
class Run:
    """One training: its folder, and the ways to read and write what is in it."""

    path: Path
    is_mine = True  # whether this process writes it

    @classmethod
    def create(cls, config: Config) -> Run:
        """A new folder that holds the resolved config. Raises RunError if it cannot be made."""
        parent = Path(config.output.folder) / config.name
        try:
            parent.mkdir(parents=True, exist_ok=True)
            run = cls(make_folder(parent))
        except OSError as error:
            raise cannot_be_made(parent, error) from None
        try:
            (run.path / "checkpoint").mkdir()
            atomic.write_atomic(run.path / "config.yaml", config.to_yaml().encode())
        except OSError as error:
            shutil.rmtree(run.path, ignore_errors=True)
            raise cannot_be_made(run.path, error) from None
        link = atomic.aside(parent / "latest")
        with suppress(OSError):  # a convenience: where links cannot be, runs are found without
            atomic.remove_leftovers(parent)
            link.symlink_to(run.path.name)
            link.replace(parent / "latest")
        link.unlink(missing_ok=True)
        return run

    @classmethod
    def all(cls, folder: str = "outputs") -> list[Run]:
        """Every run in `folder` but shipped weights, the newest last."""
        paths = [p.parent for p in Path(folder).glob("*/*/config.yaml")]
        return [
            cls(p)
            for p in sorted(paths, key=lambda p: p.name)
            if p.name not in {"latest", pretrained.UNPACKED}
        ]

    @classmethod
    def find(cls, text: str | None, folder: str = "outputs") -> Run:
        """The run called `text`: its folder, its id or a part of it, or the name of its config.

        `pretrained:NAME` is what comes with the package, unpacked into the same folder. Without
        `text`, or with "latest", the newest. Raises RunError, with the nearest names, if there is
        none.
        """
        if text and text.startswith(pretrained.PREFIX):
            return cls(pretrained.unpack(text.removeprefix(pretrained.PREFIX), folder))
        runs = [run.path for run in cls.all(folder)]
        if text is None or text == "latest":
            if runs:
                return cls(runs[-1])
            raise RunError(
                f"there is no run in {folder}/ yet; convae train configs/mnist.yaml makes one"
            )
        with suppress(OSError):  # a text may be longer than any path
            if (Path(text) / "config.yaml").is_file():
                return cls(Path(text).resolve() if Path(text).is_symlink() else Path(text))
        matches = [p for p in runs if p.parent.name == text] or [p for p in runs if text in p.name]
        if matches:
            return cls(matches[-1])
        names = list(dict.fromkeys(n for p in reversed(runs) for n in (p.parent.name, p.name)))
        near = difflib.get_close_matches(text, names, 3, 0.4) or names[:4]
        hint = f"nearest: {', '.join(near)}" if near else f"there is no run in {folder}/ yet"
        raise RunError(f"no run called {text!r:.80} in {folder}/; {hint}")

    @property
    def config(self) -> Config:
        """The resolved config that the run was made with."""
        return self.config_with(())

    def config_with(self, overrides: Sequence[str]) -> Config:
        """The run's config under `key.sub=value` overrides. Raises RunError."""
        path = self.path / "config.yaml"
        try:
            return parse_config(yamltree.read_text(path), str(path), overrides)
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: cannot be read: {error}") from None

    @property
    def best(self) -> Path:
        """The `.keras` file of the epoch with the lowest validation loss.

        Raises RunError if no epoch has come to its end yet.
        """
        path = self.path / "best.keras"
        if not path.exists():
            raise RunError(
                f"{self.path}: has no best.keras yet; it is written after the first epoch"
            )
        return path

    @property
    def manifest(self) -> dict[str, Any]:
        """What `update_manifest` has collected; empty before its first call."""
        return self._read_json("manifest.json", "manifest")

    @property
    def metrics(self) -> dict[str, Any]:
        """What `convae eval` measured; empty before."""
        return self._read_json("metrics.json", "metrics")

    @property
    def known_metrics(self) -> dict[str, Any]:
        """What `convae eval` measured; of shipped weights not measured here, what their card says.

        Empty if nothing is known.
        """
        shipped = self.path.name == pretrained.UNPACKED
        return self.metrics or (pretrained.card(self.path.parent.name) if shipped else {})

    def _read_json(self, name: str, what: str) -> dict[str, Any]:
        path = self.path / name
        try:
            return archive.mapping(path.read_bytes()) if path.exists() else {}
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: is no {what} of a run: {error}") from None

    def write_config(self, config: Config) -> None:
        """Let config.yaml say with what the run goes on."""
        with self.writing("config.yaml"):
            atomic.write_atomic(self.path / "config.yaml", config.to_yaml().encode())

    def update_manifest(self, **fields: Any) -> None:
        """Set fields of manifest.json and keep the others."""
        self.write_json("manifest.json", {**self.manifest, **fields})

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write one of the run's JSON files."""
        with self.writing(name):
            atomic.write_atomic(self.path / name, (json.dumps(content, indent=2) + "\n").encode())

    @property
    def history(self) -> list[dict[str, float]]:
        """The rows of history.csv, one per finished epoch."""
        path = self.path / "history.csv"
        try:
            with path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                rows = [{k: float(v) for k, v in row.items()} for row in reader]
            if rows and reader.fieldnames != list(HISTORY):
                raise ValueError(f"its columns must be {', '.join(HISTORY)}")
            return [{**row, "epoch": int(row["epoch"])} for row in rows]
        except FileNotFoundError:
            return []
        except (OSError, ArithmeticError, ValueError, TypeError, KeyError, csv.Error) as error:
            raise RunError(f"{path}: is no history of a run: {error}") from None

    def write_history(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Write history.csv whole: a run has few epochs, and a resumed one may drop a row."""
        text = io.StringIO()
        writer = csv.DictWriter(text, HISTORY, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        with self.writing("history.csv"):
            atomic.write_atomic(self.path / "history.csv", text.getvalue().encode())

    def save_model(self, name: str, save: Callable[[str], None]) -> None:
        """Let `save` write a `.keras` file under a temporary name, then give it its own."""
        with self.writing(name), atomic.whole(self.path / name) as temporary:
            save(str(temporary))

    def save_checkpoint(self, state: Mapping[str, Any], arrays: Sequence[NDArray[Any]]) -> None:
        """Keep `state` (JSON) and `arrays`; the checkpoint before stays until this one is whole."""
        folder = self.path / "checkpoint"
        with self.writing("the checkpoint"):
            data = checkpoint.pack(state, arrays)
            new, latest = folder / "new.npz", folder / "latest.npz"
            atomic.write_atomic(new, data)
            if new.read_bytes() != data:
                raise OSError(f"{new} reads back differently from what was written")
            if latest.exists():
                latest.replace(folder / "previous.npz")
            atomic.replace(new, latest)

    @property
    def has_checkpoint(self) -> bool:
        """Whether anything was saved, whole or not."""
        return any((self.path / "checkpoint" / name).exists() for name in CHECKPOINTS)

    def load_checkpoint(self) -> tuple[dict[str, Any], list[NDArray[Any]], str | None]:
        """The newest whole checkpoint, and a notice if a newer one was damaged.

        Raises RunError if there is none.
        """
        notice = None
        for name in CHECKPOINTS:
            path = self.path / "checkpoint" / name
            try:
                return *checkpoint.unpack(path.read_bytes()), notice
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                notice = f"{path} is damaged ({error}); going on from the checkpoint before it"
        reason = notice or "None was written yet"
        raise RunError(
            f"{self.path}: has no whole checkpoint to go on from. {reason}. "
            "What else is there stays: best.keras, if an epoch came to its end"
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only process that trains this run, and remove what a killed one left unfinished.

        The kernel gives the lock back when the process ends, however it ends. Reading, and
        `convae eval`, need no lock. Raises RunError if another process has it.
        """
        with self.writing("the lock"):
            handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(handle, 1000).decode(errors="replace") or "it has just begun"
                raise RunError(
                    f"{self.path}: another process trains this run ({holder}). Let it end or stop "
                    "it first; convae eval may look at the run meanwhile"
                ) from None
            except OSError:  # a network's file system without locks: better trained than not
                pass
            with suppress(OSError):  # who holds it is told for the reader alone
                os.ftruncate(handle, 0)
                since = time.strftime("%Y-%m-%d %H:%M:%S")
                os.write(handle, f"{os.getpid()} on {platform.node()} since {since}".encode())
            with suppress(OSError):
                for folder in (self.path, self.path / "checkpoint"):
                    atomic.remove_leftovers(folder)
            yield
        finally:
            os.close(handle)

    @contextmanager
    def writing(self, what: str) -> Iterator[None]:
        """Turn a full disk or a read-only folder into a message that says what is safe."""
        try:
            yield
        except (OSError, RuntimeError) as error:  # RuntimeError: how h5py reports a full disk
            raise RunError(
                f"{self.path}: {what} cannot be written: {error}. What was saved before stays whole"
            ) from error


class OthersRun(Run):
    """The chief's run, as the other workers have it: they read it, and write nothing."""

    is_mine = False

    def write_config(self, config: Config) -> None:
        """Nothing."""

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Nothing."""

    def write_history(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Nothing."""

    def save_model(self, name: str, save: Callable[[str], None]) -> None:
        """Nothing."""

    def save_checkpoint(self, state: Mapping[str, Any], arrays: Sequence[NDArray[Any]]) -> None:
        """Nothing."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No lock: the chief has it."""
        yield


def make_folder(parent: Path) -> Path:
    """A new folder <time>-<id> in `parent`, whose name comes after those of all runs beside it.

    The time is a second after the newest run's if the clock does not say later: two runs of one
    second, or a clock that was set back, must not change which run is the newest.
    """
    now = datetime.now()
    for path in parent.parent.glob("*/*-*-*"):
        with suppress(ValueError, OverflowError):
            now = max(now, datetime.strptime(path.name[:15], STAMP) + timedelta(seconds=1))
    while True:
        path = parent / f"{now.strftime(STAMP)}-{secrets.token_hex(2)}"
        with suppress(FileExistsError):  # another process may make one in the same second
            path.mkdir()
            return path


def cannot_be_made(path: Path, error: OSError) -> RunError:
    """Why there is no folder for a run."""
    return RunError(
        f"{path}: the run's folder cannot be made: {error}. Runs are kept in output.folder"
    )
