"""A run: the folder of one training, how it is found, and how its files are written.

    outputs/<name>/<time>-<id>/     outputs/<name>/latest points to the newest
        config.yaml                 resolved: every default is written out
        manifest.json               versions, device, data, seed, command, times, hashes
        history.csv                 one row per epoch
        checkpoint/latest.npz       everything to resume from; previous.npz is the one before
        lock                        held by the process that trains
        best.keras, model.keras     plain Keras layers: of the best epoch, and of the last
        metrics.json, figures/, report.html     written by `convae eval`
        tensorboard/                event files, if output.tensorboard is true

A run whose manifest, metrics or history are missing or damaged can be used: what they hold is then
not known. Without a config.yaml its config is that of the checkpoint.

Every file is written under a temporary name and then renamed, so that a reader gets the old file or
the new one, and a crash loses neither.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from convae import files
from convae.config import yaml_tree
from convae.config.loader import parse_config
from convae.config.schema import Config
from convae.console import logger
from convae.errors import ConvaeError, FileError, RunError
from convae.runs import checkpoint, json_files, notebook, pretrained

TIME_FORMAT = "%Y%m%d-%H%M%S"
HISTORY = (  # the columns; further ones are the terms of a loss, such as kl and val_kl
    "epoch", "loss", "val_loss", "val_excess", "learning_rate", "seconds", "images_per_second",
)  # fmt: skip
# Each of them shows that a folder is a run's.
RUN_FILES = ("config.yaml", "manifest.json", "history.csv", "best.keras")


@dataclass(frozen=True)
class Run:
    """One training: the folder `path`, and the methods that read and write its files.

    Examples:
        >>> import convae
        >>> run = convae.Run.find("mnist")
        >>> run.config.training.epochs
        25
        >>> run.best.name
        'best.keras'
        >>> [row["val_loss"] for row in run.history]
        []
    """

    path: Path
    read_only = False

    # Create and find

    @classmethod
    def create(cls, config: Config) -> Run:
        """Create the folder of a new run, with its config, and let `latest` point to it.

        Raises:
            FileError: The folder cannot be made in `output.folder`.
        """
        parent = Path(config.output.folder) / config.name
        path = None
        try:
            parent.mkdir(parents=True, exist_ok=True)
            path = _make_folder(parent)
            (path / "checkpoint").mkdir()
            files.write_atomic(path / "config.yaml", config.to_yaml().encode())
        except OSError as error:
            if path:
                shutil.rmtree(path, ignore_errors=True)
            raise FileError(
                f"{path or parent}: the run's folder cannot be made: {error}. Runs are kept in "
                "output.folder"
            ) from None
        latest = parent / "latest"
        if latest.is_dir() and not latest.is_symlink():
            logger.warning(f"{latest} is a folder and no link, so it does not lead to the new run")
        # `find` needs no link: Windows allows users none, nor do some file systems.
        elif sys.platform != "win32":
            with suppress(OSError), files.whole(latest) as link:
                files.remove_leftovers(parent)
                link.symlink_to(path.name)
        return cls(path)

    @classmethod
    def all(cls, folder: str = "outputs") -> list[Run]:
        """Return every run in `folder`, the newest last, without shipped weights."""
        paths = [path for path in Path(folder).glob("*/*") if _is_run(path)]
        others = {"latest", pretrained.UNPACKED}
        return [cls(p) for p in sorted(paths, key=lambda p: p.name) if p.name not in others]

    @classmethod
    def find(cls, text: str | None, folder: str = "outputs") -> Run:
        """Return the newest run that fits `text`.

        Args:
            text: A run's folder, its id or a part of it, or the name of its config; "latest" or
                None for the newest of all; "pretrained:NAME" for shipped weights, which are
                unpacked into `folder`.
            folder: The folder of all runs.

        Raises:
            RunError: There is none. The message has the nearest names.
        """
        if text and text.startswith(pretrained.PREFIX):
            return cls(pretrained.unpack(text.removeprefix(pretrained.PREFIX), folder))
        text = given = text or "latest"
        with suppress(OSError):  # a text may be longer than any path
            if text != "latest" and _is_run(Path(text)):
                return cls(Path(text).resolve() if Path(text).is_symlink() else Path(text))
        if Path(text).name == "latest" and Path(text).parent.name:  # where there are no links
            text, folder = Path(text).parent.name, str(Path(text).parent.parent)
        runs = [run.path for run in cls.all(folder)]
        named = runs if text == "latest" else [path for path in runs if path.parent.name == text]
        if matches := named or [path for path in runs if text in path.name]:
            return cls(matches[-1])
        names = list(dict.fromkeys(n for p in reversed(runs) for n in (p.parent.name, p.name)))
        near = difflib.get_close_matches(text, names, 3, 0.4) or names[:4]
        start = f"there is no run in {folder}/ yet; convae train mnist makes one"
        hint = f"nearest: {', '.join(near)}" if near else start
        raise RunError(f"{_describe_path(given)}no run called {text!r:.80} in {folder}/; {hint}")

    # Read

    @property
    def config(self) -> Config:
        """The resolved config of the run."""
        return self.config_with(())

    def config_with(self, overrides: Sequence[str]) -> Config:
        """Return the run's config with `key.sub=value` overrides. Raises ConfigError, RunError."""
        path = self.path / "config.yaml"
        try:
            return parse_config(self._config_text(path), str(path), overrides)
        except ConvaeError:  # a ValueError too, but its message is complete
            raise
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: cannot be read: {error}") from None

    def _config_text(self, path: Path) -> str:
        with suppress(FileNotFoundError):
            if (text := yaml_tree.read_text(path)).strip():
                return text
        if not self.has_checkpoint:
            raise RunError(f"{path}: is missing or empty, and without it the run cannot be used")
        _warn(f"{path}: is missing or empty; the config in the checkpoint is used")
        return str(self.load_checkpoint()[0].get("config", ""))

    @property
    def best(self) -> Path:
        """The `.keras` file of the epoch with the lowest validation loss. Raises RunError."""
        path = self.path / "best.keras"
        if not path.exists():
            raise RunError(f"{self.path}: has no best.keras yet; the first epoch writes it")
        return path

    @property
    def manifest(self) -> dict[str, Any]:
        """The fields that `update_manifest` has set; without those that are not known."""
        return self._read_json("manifest.json")

    @property
    def metrics(self) -> dict[str, Any]:
        """The result of `convae eval`; empty before it."""
        return self._read_json("metrics.json")

    @property
    def known_metrics(self) -> dict[str, Any]:
        """The result of `convae eval`, or the card of shipped weights; empty without either."""
        shipped = self.path.name == pretrained.UNPACKED
        return self.metrics or (pretrained.card(self.path.parent.name) if shipped else {})

    @property
    def history(self) -> list[dict[str, float]]:
        """The rows of history.csv, one per complete epoch; none if it is missing or damaged."""
        path = self.path / "history.csv"
        if not path.exists():
            return []
        try:
            with path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                rows = [{k: float(v) for k, v in row.items()} for row in reader]
            if rows and (reader.fieldnames or [])[: len(HISTORY)] != list(HISTORY):
                raise ValueError(f"its columns must be {', '.join(HISTORY)}")
            return [{**row, "epoch": int(row["epoch"])} for row in rows]
        except (OSError, ArithmeticError, ValueError, TypeError, KeyError, csv.Error) as error:
            _warn(f"{path}: is no history of a run: {error}. The epochs are not known")
            return []

    @property
    def figures(self) -> dict[str, notebook.Figure]:
        """The figures that `convae eval` drew, by name; a notebook shows them."""
        paths = sorted((self.path / "figures").glob("*.png"))
        return {path.stem: notebook.Figure(path) for path in paths}

    def _repr_html_(self) -> str:
        return notebook.describe(self.path, self.manifest, self.history, self.metrics)

    @property
    def has_checkpoint(self) -> bool:
        """Whether a checkpoint was written, complete or not."""
        return checkpoint.exists(self.path / "checkpoint")

    def load_checkpoint(self) -> tuple[dict[str, Any], list[NDArray[Any]], str | None]:
        """Return state, arrays and a notice: see `checkpoint.load`. Raises CheckpointError."""
        return checkpoint.load(self.path / "checkpoint")

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            return json_files.parse(name, path.read_bytes()) if path.exists() else {}
        except (OSError, ValueError) as error:
            _warn(f"{path}: is no {path.stem} of a run: {error}. What it held is not known")
            return {}

    # Write

    def write_config(self, config: Config) -> None:
        """Replace config.yaml by the config with which the run resumes."""
        self._write("config.yaml", config.to_yaml())

    def update_manifest(self, **fields: Any) -> None:
        """Set fields of manifest.json and keep the others, and a damaged file beside it."""
        known = self.manifest
        if not known and not self.read_only:
            with suppress(OSError):
                (self.path / "manifest.json").rename(self.path / "manifest.damaged.json")
        self.write_json("manifest.json", {**known, **fields})

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write one of the run's JSON files."""
        self._write(name, json.dumps(content, indent=2) + "\n")

    def write_history(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Write all rows of history.csv; a resumed run may have fewer than before."""
        text = io.StringIO()
        columns = dict.fromkeys((*HISTORY, *(key for row in rows for key in row)))
        writer = csv.DictWriter(text, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self._write("history.csv", text.getvalue())

    def save_model(self, name: str, save: Callable[[str], None]) -> None:
        """Call `save` with a temporary path, and rename that `.keras` file to `name`."""
        with self.writing(name), files.whole(self.path / name) as temporary:
            save(str(temporary))

    def save_checkpoint(self, state: Mapping[str, Any], arrays: Sequence[NDArray[Any]]) -> None:
        """Save `state` (JSON) and `arrays`; the checkpoint before stays until this is complete."""
        with self.writing("the checkpoint"):
            checkpoint.save(self.path / "checkpoint", state, arrays)

    def _write(self, name: str, text: str) -> None:
        with self.writing(name):
            files.write_atomic(self.path / name, text.encode())

    @contextmanager
    def writing(self, what: str) -> Iterator[None]:
        """Turn a full disk or a read-only folder into a FileError that names `what`."""
        try:
            yield
        except (OSError, RuntimeError) as error:  # RuntimeError: how h5py reports a full disk
            raise FileError(
                f"{self.path}: {what} cannot be written: {error}. What was saved before stays "
                "complete"
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let no other process train this run, and remove what a killed one left incomplete.

        Raises:
            RunError: Another process trains this run.
        """

        def refuse(holder: str) -> None:
            raise RunError(
                f"{self.path}: another process trains this run ({holder or 'it has just started'})."
                " Let it end or stop it first; convae eval can evaluate the run meanwhile"
            )

        with ExitStack() as stack:
            with self.writing("the lock"):
                stack.enter_context(files.locked(self.path / "lock", refuse))
            with suppress(OSError):
                for folder in (self.path, self.path / "checkpoint"):
                    files.remove_leftovers(folder)
            yield


class ReadOnlyRun(Run):
    """Worker 0's run on the other workers: they read it, and write nothing."""

    read_only = True

    def _skip(self, *_: Any, **__: Any) -> None:
        pass

    save_model = save_checkpoint = _write = _skip

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Take no lock: worker 0 has it."""
        yield


def _make_folder(parent: Path) -> Path:
    """Make and return a folder <time>-<id> in `parent`, whose name sorts after all other runs'.

    Two runs in one second, or a clock that was set back, must not change which one is the newest.
    """
    now = datetime.now()
    for path in parent.parent.glob("*/*-*-*"):
        with suppress(ValueError, OverflowError):
            other = datetime.strptime(path.name[:15], TIME_FORMAT)
            now = max(now, other + timedelta(seconds=1))
    while True:
        path = parent / f"{now.strftime(TIME_FORMAT)}-{secrets.token_hex(2)}"
        with suppress(FileExistsError):  # another process may make one in the same second
            path.mkdir()
            return path


def _is_run(path: Path) -> bool:
    return any((path / name).is_file() for name in RUN_FILES)


def _describe_path(text: str) -> str:
    """Return why the file or folder called `text` is no run, or "" if there is none."""
    path = Path(text)
    with suppress(OSError):
        if path.is_symlink() and not path.exists():
            return f"{path} is a link to {path.readlink()}, which does not exist; "
        if path.is_dir():
            return f"{path} holds none of {', '.join(RUN_FILES)}, so it is no run's folder; "
        if path.is_file():
            return f"{path} is a file, and a run is a folder; "
    return ""


@lru_cache
def _warn(text: str) -> None:
    """Log a warning once."""
    logger.warning(text)
