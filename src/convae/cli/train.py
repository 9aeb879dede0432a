"""The commands train and eval."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from convae.cli.options import (
    Json,
    Overrides,
    RunName,
    RunsDir,
    complete_config_or_run,
    split_overrides,
)
from convae.console import logger, print_error, suggest
from convae.errors import ConfigError
from convae.files import check_folder

if TYPE_CHECKING:
    from convae.config.schema import Config
    from convae.data.loading import TrainingData
    from convae.runs.run import Run


def train(
    config: Annotated[
        str | None,
        Argument(
            metavar="CONFIG|RUN",
            help="A YAML file or a shipped config; with --resume, a run's folder, id or name, or "
            "the newest run.",
            autocompletion=complete_config_or_run,
        ),
    ] = None,
    overrides: Overrides = None,
    resume: Annotated[
        bool,
        Option(
            "--resume",
            help="Resume RUN. KEY=VALUE may change training.epochs (not with one_cycle), "
            "training.checkpoint_interval, runtime, output, data.path, data.download and "
            "data.allow_sample.",
        ),
    ] = False,
    runs_dir: Annotated[
        str | None,
        Option(metavar="FOLDER", help="Where runs are kept: output.folder of the config."),
    ] = None,
    evaluate: Annotated[
        bool, Option("--eval", help="Then evaluate the run, as convae eval does, but sooner.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a model and keep all results in a run's folder."""
    from convae.runtime.cluster import find_cluster
    from convae.runtime.importing import backend_meanwhile
    from convae.training.preparation import prepare

    name, words = split_overrides(config, overrides)
    run, settings = _run_and_config(name, words, runs_dir, resume=resume)
    with backend_meanwhile():
        prepared = prepare(settings)
        if find_cluster() is None:  # else worker 0 measures for all
            _ = prepared.reference_losses
    from convae.training import trainer, workers

    try:
        run = trainer.train(settings, resume=run, prepared=prepared)
    except trainer.Interrupted as interrupted:
        logger.info(str(interrupted))
        suggest(shlex.join(["convae", "train", "--resume", str(interrupted.run.path)]))
        raise SystemExit(1) from None
    except workers.PeerLost as error:
        print_error(str(error))
        raise SystemExit(1) from None
    logger.info(f"done: {run.path}")
    if evaluate and not run.read_only:
        _evaluate(run, as_json=as_json, training=prepared.data)
        return
    if as_json and not run.read_only:
        print(json.dumps({"run": str(run.path), **run.history[-1]}))
    suggest(shlex.join(["convae", "eval", str(run.path)]), silent=as_json)


def _run_and_config(
    name: str | None, overrides: Sequence[str], runs_dir: str | None, *, resume: bool
) -> tuple[Run | None, Config]:
    """Return the run to resume, if one is, and the config to train, after a check of its paths.

    A wrong path is an error before TensorFlow's seconds of import.
    """
    from convae.config.loader import load_config
    from convae.data.loading import find_path
    from convae.runs.run import Run
    from convae.runtime.cluster import find_cluster

    if resume:
        if name and name.endswith((".yaml", ".yml")):
            raise ConfigError(f"--resume takes a run, which has its own config. Received: {name}")
        run = Run.find(name, runs_dir or "outputs")
        config = run.config_with(overrides)
    elif name is None:
        raise ConfigError("which config? For example: convae train mnist")
    else:
        run = None
        folder = [f"output.folder={json.dumps(runs_dir)}"] if runs_dir is not None else []
        config = load_config(name, [*overrides, *folder])
    find_path(config.data)
    if find_cluster() is None:  # else worker 0 writes for all
        check_folder(run.path if run else Path(config.output.folder))
    return run, config


def evaluate(
    run: RunName = None,
    overrides: Overrides = None,
    umap: Annotated[
        bool, Option("--umap", help="Also map the codes by UMAP; needs convae[umap].")
    ] = False,
    runs_dir: RunsDir = "outputs",
    as_json: Json = False,
) -> None:
    """Measure a run on the test split, and write its report."""
    from convae.data.loading import find_path
    from convae.runs.run import Run
    from convae.runtime.importing import import_backend

    name, words = split_overrides(run, overrides)
    found = Run.find(name, runs_dir)
    _ = found.best
    find_path(found.config_with(words).data)
    check_folder(found.path)
    import_backend()
    _evaluate(found, words, umap=umap, as_json=as_json)


def _evaluate(
    run: Run,
    overrides: Sequence[str] = (),
    *,
    umap: bool = False,
    as_json: bool,
    training: TrainingData | None = None,
) -> None:
    from convae.evaluation import evaluate as evaluation

    result = evaluation.evaluate(run, overrides, umap, training)
    print(json.dumps(result, indent=2) if as_json else evaluation.format_result(run, result))
    page = shlex.quote(str(run.path / "report.html"))
    suggest(f"open {page} in a browser", silent=as_json)
