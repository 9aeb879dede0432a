"""Many trainings that look for good values of config keys: `convae sweep CONFIG sweep.yaml`.

Each trial is a normal run, made by `convae train` in a process and a folder of its own; Optuna
chooses its values, and ends it early if its validation loss is poor. All that is known of a study
is in its storage, so that a killed sweep goes on, and several machines share one.

    outputs/<study>/sweep.db                SQLite, unless another storage is named
    outputs/<study>/trial-0003/             a run's folder, and train.log
    outputs/<study>/best.yaml, sweep.png    see sweep_results.py
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convae.config import yaml_tree as yamltree
from convae.config.diff import differences
from convae.config.loader import load_config
from convae.config.schema import Config
from convae.config.validation import validated
from convae.errors import ConfigError, ConvaeError
from convae.runtime import processes
from convae.sweep.results import Results, collect
from convae.sweep.runner import Sweeper
from convae.sweep.space import Parameter, Sweep

if TYPE_CHECKING:
    import optuna

KEPT_BACK = ("name", "output.folder")  # the sweep's own


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
    """Run the study to its `trials`, `timeout` seconds or a Ctrl-C, and collect what came of it.

    Options that are not None overrule those of the sweep's YAML. Progress goes to stderr.
    Raises ConfigError before the first trial for all that can be known to be wrong.
    """
    # Everything that can be refused is refused before a folder is made.
    tree, places = yamltree.read(Path(sweep_path), ())
    for key, value in {"trials": trials, "workers": workers}.items():
        if value is not None:
            yamltree.override(tree, places, f"{key}={value}")
    settings = validated(Sweep, tree, places, sweep_path)
    config = load_config(config_path, overrides)
    for key, parameter in settings.parameters.items():
        place = yamltree.place_of(places, ("parameters", key))
        check_parameter(config_path, overrides, key, parameter, place)
    if timeout is not None and not timeout > 0:
        raise ConfigError(f"--timeout: must be above 0 seconds. Received: {timeout:g}")
    name = name or f"{config.name}-{Path(sweep_path).stem}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", name):
        raise ConfigError(f"--name: must be letters, digits, - _ and dots. Received: {name!r:.80}")
    folder = Path(config.output.folder) / name
    study = open_study(settings, config, name, storage, folder)

    sweeper = Sweeper(study, settings, config_path, list(overrides), config, folder)
    deadline = time.monotonic() + timeout if timeout else math.inf
    with readable_errors(name), processes.catch_stop_signals() as received:
        stopped = sweeper.run(deadline, received)
    return collect(study, settings, config_path, overrides, folder, stopped)


def check_parameter(
    config_path: str, overrides: Sequence[str], key: str, parameter: Parameter, place: str
) -> None:
    """Raise ConfigError unless the config loads with each extreme of `parameter` at `key`."""
    if key in KEPT_BACK:
        raise ConfigError(f"{place}parameters.{key}: belongs to the sweep, which sets it itself")
    for value in parameter.extremes:
        try:
            load_config(config_path, [*overrides, f"{key}={value}"])
        except ConvaeError as error:
            raise ConfigError(
                f"{place}parameters.{key}: a trial with {value} cannot be\n{error}"
            ) from None


def open_study(
    settings: Sweep, config: Config, name: str, storage: str | None, folder: Path
) -> optuna.Study:
    """The study called `name`, begun now or before. Raises ConfigError if that was another one."""
    try:
        import optuna
    except ImportError:
        raise ConfigError("convae sweep needs Optuna: pip install 'convae[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with readable_errors(name):
        if storage is None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(f"{folder}: the study's folder cannot be made: {error}") from None
            patient = {"connect_args": {"timeout": 60}}  # while others write to the file
            url = f"sqlite:///{folder.resolve() / 'sweep.db'}"
        else:
            url, patient = storage, {}
        study = _created(name, url, patient)
    # The same config, but for what each machine has of its own.
    tree = config.model_dump(mode="json", exclude={"output": True, "data": {"path"}})
    wanted = settings.model_dump(mode="json", include={"parameters", "metric"})
    now = {"config": tree, **wanted}
    before = study.user_attrs.get("settings")
    if before is None:
        study.set_user_attr("settings", now)
    elif before != now:
        keys = ", ".join(list(differences(before, now))[:5])
        raise ConfigError(
            f"the study {name} was begun with other settings: {keys}. Trials of both cannot be "
            "compared: take another --name, or go back to those settings"
        )
    return study


def _created(name: str, url: str, engine: dict[str, Any]) -> optuna.Study:
    """The study in the storage at `url`; of two that make its tables at once, one tries again."""
    import optuna
    from sqlalchemy.exc import IntegrityError, OperationalError

    for left in range(4, -1, -1):
        try:
            storage = optuna.storages.RDBStorage(url, engine_kwargs=engine)
            return optuna.create_study(
                study_name=name, storage=storage, direction="minimize", load_if_exists=True
            )
        except (IntegrityError, OperationalError, optuna.exceptions.StorageInternalError):
            if not left:
                raise
            time.sleep(0.5)
    raise AssertionError  # the last try has returned or raised


@contextmanager
def readable_errors(name: str) -> Iterator[None]:
    """Turn what goes wrong with the storage into one message."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError, ImportError) as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        raise ConfigError(
            f"the storage of the study {name} cannot be used: {cause:.300}. Without --storage, it "
            "is a file in the study's folder"
        ) from None
