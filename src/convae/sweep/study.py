"""A study of many trainings that searches for good values of config keys.

Each trial is a normal run, made by `convae train` in a process and a folder of its own. Optuna
chooses its values and ends it early if its validation loss is poor. The storage holds the state of
a study, so a killed sweep resumes, and several machines can share one.

    outputs/<study>/sweep.db                SQLite, unless another storage is named
    outputs/<study>/trial-0003/             a run's folder, and train.log
    outputs/<study>/best.yaml, sweep.png    see results.py
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convae.config.diff import differences
from convae.config.loader import load_config
from convae.config.schema import Config
from convae.config.validation import validate
from convae.config.yaml_tree import read
from convae.data.loading import find_path
from convae.errors import ConfigError, ConvaeError, FileError, UnsupportedError
from convae.runtime import processes
from convae.sweep.results import Results, collect
from convae.sweep.space import Parameter, Sweep

if TYPE_CHECKING:
    import optuna

RESERVED_KEYS = ("name", "output.folder")  # set by the sweep
LOCK_SECONDS = 60  # to wait while other processes write to the SQLite file


def sweep(
    config_path: str,
    sweep_path: str,
    overrides: Sequence[str] = (),
    *,
    trials: int | None = None,
    workers: int | None = None,
    storage: str | None = None,
    name: str | None = None,
    timeout: float | None = None,
) -> Results:
    """Run a study to its number of trials, a timeout or a Ctrl-C, and return its results.

    Args:
        config_path: The config that all trials share, with `overrides`.
        sweep_path: The sweep.yaml; `trials` and `workers` replace its own.
        storage: URL of an Optuna storage; None for a SQLite file in the study's folder.
        name: The study's name; None for one made of the names of both files.
        timeout: Seconds, above 0.

    Raises:
        ConvaeError: Before the first trial, for all mistakes that can be found without one.
    """
    # Checks come before the first folder is made.
    yaml = read(Path(sweep_path))
    for key, value in {"trials": trials, "workers": workers}.items():
        if value is not None:
            yaml.override(f"{key}={value}")
    settings = validate(Sweep, yaml)
    config = load_config(config_path, overrides)
    find_path(config.data)
    for key, parameter in settings.parameters.items():
        place = yaml.place_of(("parameters", key))
        check_parameter(config_path, overrides, key, parameter, place)
    if timeout is not None and not timeout > 0:
        raise ConfigError(f"--timeout: must be above 0 seconds. Received: {timeout:g}")
    name = name or f"{config.name}-{Path(sweep_path).stem}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", name):
        raise ConfigError(f"--name: must be letters, digits, - _ and dots. Received: {name!r:.80}")
    folder = Path(config.output.folder) / name
    study = _open_study(settings, config, name, storage, folder)
    from convae.sweep.runner import Sweeper

    words = [config_path, *overrides]
    deadline = time.monotonic() + timeout if timeout else math.inf
    with _readable_errors(name), processes.catch_stop_signals() as received:
        stopped = Sweeper(study, settings, words, config, folder).run(deadline, received)
    return collect(study, settings, words, folder, stopped)


def check_parameter(
    config_path: str, overrides: Sequence[str], key: str, parameter: Parameter, place: str
) -> None:
    """Raise ConfigError unless the config loads with each extreme of `parameter` at `key`."""
    if key in RESERVED_KEYS:
        raise ConfigError(f"{place}parameters.{key}: is set by the sweep itself")
    for value in parameter.extremes:
        try:
            load_config(config_path, [*overrides, f"{key}={value}"])
        except ConvaeError as error:
            raise ConfigError(
                f"{place}parameters.{key}: no trial is possible with {value}\n{error}"
            ) from None


def _open_study(
    settings: Sweep, config: Config, name: str, storage: str | None, folder: Path
) -> optuna.Study:
    """Return the new or existing study; ConfigError if it exists with other settings."""
    try:
        import optuna
    except ImportError:
        raise UnsupportedError("convae sweep needs Optuna: pip install 'convae[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    engine: dict[str, Any] = {}
    if storage is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"{folder}: the study's folder cannot be made: {error}") from None
        storage = f"sqlite:///{(folder.resolve() / 'sweep.db').as_posix()}"
        engine = {"connect_args": {"timeout": LOCK_SECONDS}}
    with _readable_errors(name):
        study = _create_study(name, storage, engine)
    # Each machine has its own paths.
    tree = config.model_dump(mode="json", exclude={"output": True, "data": {"path"}})
    ours = {"config": tree} | settings.model_dump(mode="json", include={"parameters", "metric"})
    theirs = study.user_attrs.get("settings")
    if theirs is None:
        study.set_user_attr("settings", ours)
    elif theirs != ours:
        keys = ", ".join(list(differences(theirs, ours))[:5])
        raise ConfigError(
            f"the study {name} has other settings: {keys}. Its trials cannot be compared with new "
            "ones: choose another --name, or restore those settings"
        )
    return study


def _create_study(name: str, url: str, engine: dict[str, Any]) -> optuna.Study:
    import optuna
    from sqlalchemy.exc import IntegrityError, OperationalError

    def create() -> optuna.Study:
        try:
            storage = optuna.storages.RDBStorage(url, engine_kwargs=engine)
        except RuntimeError as error:  # its tables are of another version of Optuna
            raise FileError(f"the storage of the study {name} cannot be used: {error}") from None
        return optuna.create_study(study_name=name, storage=storage, load_if_exists=True)

    for _ in range(4):  # other processes may make the tables at the same time
        with suppress(IntegrityError, OperationalError, optuna.exceptions.StorageInternalError):
            return create()
        time.sleep(0.5)
    return create()


@contextmanager
def _readable_errors(name: str) -> Iterator[None]:
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError, ImportError) as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        raise FileError(
            f"the storage of the study {name} cannot be used: {cause:.300}. Without --storage, it "
            "is a file in the study's folder"
        ) from None
