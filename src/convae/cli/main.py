"""The commands. Heavy packages are imported by the commands that need them: help is instant.

Results go to stdout, all else to stderr (console.py). Exit codes: 0 done; 2 the user's mistake,
with one message on stderr; 1 anything else.
"""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from convae import __version__
from convae.cli.cache import cache_app
from convae.cli.configs import config, configs, init
from convae.cli.explain import explain_app
from convae.cli.help import Commands
from convae.cli.inspect import inspect, size
from convae.cli.options import (
    ConfigPath,
    Json,
    OutputDir,
    Overrides,
    RunName,
    RunsDir,
    complete_config,
    complete_run,
    read_names,
    split_overrides,
)
from convae.cli.pretrained import pretrained
from convae.cli.sample import sample
from convae.cli.streams import check_output, open_streams
from convae.cli.train import evaluate, train
from convae.console import logger, print_error, printable, set_level, suggest
from convae.errors import ConfigError, ConvaeError, FileError

app = typer.Typer(
    cls=Commands,
    name="convae",
    help="Train, understand and use a convolutional autoencoder.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # errors are plain
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"convae {__version__}")
        raise typer.Exit


@app.callback()
def convae(
    _: Annotated[
        bool,
        Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print only results and errors.")] = False,
    verbose: Annotated[
        bool, Option("--verbose", "-v", help="Also print decisions with their reasons.")
    ] = False,
) -> None:
    """Train, understand and use a convolutional autoencoder."""
    if quiet and verbose:
        raise ConfigError("--quiet and --verbose exclude each other")
    set_level("quiet" if quiet else "verbose" if verbose else "normal")
    try:
        Path.cwd()
    except FileNotFoundError:
        raise FileError("the current folder does not exist any more: change to another") from None


app.command()(train)
app.command("eval")(evaluate)
app.command()(inspect)
app.command()(size)
app.add_typer(explain_app, name="explain")


@app.command()
def predict(
    run: Annotated[
        str, Argument(metavar="RUN", help="A run, or pretrained:NAME.", autocompletion=complete_run)
    ],
    files: Annotated[
        list[str],
        Argument(metavar="FILES", help="Images, folders, patterns; - reads names on stdin."),
    ],
    output_dir: OutputDir = None,
    as_digit: Annotated[
        bool, Option("--as-digit", help="Invert, crop and center photographs as in MNIST.")
    ] = False,
    runs_dir: RunsDir = "outputs",
    as_json: Json = False,
) -> None:
    """Run a trained model on image files.

    By the task of its config it reconstructs, denoises, upscales, segments or scores them.
    """
    from convae.runs.run import Run

    found = Run.find(run, runs_dir)
    from convae.inference import predict as prediction

    folder = Path(output_dir) if output_dir else found.path / "predictions"
    made = prediction.predict(found, read_names(files), folder, as_digit=as_digit)
    rows = [prediction.describe(one) for one in made]
    print(json.dumps(rows, indent=2) if as_json else prediction.format_predictions(made, folder))
    suggest(f"look at {shlex.quote(printable(folder / 'overview.png'))}", silent=as_json)


app.command()(sample)


@app.command()
def export(
    run: RunName = None,
    formats: Annotated[
        list[str] | None,
        Option("--format", help="onnx, litert, saved_model, weights or all; repeatable."),
    ] = None,
    output_dir: OutputDir = None,
    runs_dir: RunsDir = "outputs",
    as_json: Json = False,
) -> None:
    """Write a run's model for other runtimes.

    Each file is compared with Keras.
    """
    from convae.inference import export as exporting
    from convae.runs.run import Run

    exporting.check_formats(formats or [])
    result = exporting.export(Run.find(run, runs_dir), formats or [], output_dir)
    print(json.dumps(result, indent=2) if as_json else exporting.format_export(result))
    suggest(f"look at the files in {shlex.quote(str(result['folder']))}", silent=as_json)


@app.command()
def compare(
    runs: Annotated[
        list[str],
        Argument(metavar="RUN", help="Runs' folders, ids or names.", autocompletion=complete_run),
    ],
    output_dir: Annotated[
        str | None, Option(metavar="FOLDER", help="Where to write; by default RUNS_DIR/compare.")
    ] = None,
    runs_dir: RunsDir = "outputs",
    as_json: Json = False,
) -> None:
    """Compare the configs and results of runs.

    Runs without metrics are evaluated.
    """
    from convae.evaluation import compare as comparison
    from convae.runs.run import Run

    found = comparison.distinct([Run.find(name, runs_dir) for name in runs])
    result = comparison.compare(found, Path(output_dir or Path(runs_dir) / "compare"))
    print(json.dumps(result, indent=2) if as_json else comparison.format_result(result))
    suggest(f"open {shlex.quote(result['files']['page'])} in a browser", silent=as_json)


@app.command()
def sweep(
    config: ConfigPath,
    ranges: Annotated[
        str,
        Argument(metavar="SWEEP", help="A YAML file of ranges.", autocompletion=complete_config),
    ],
    overrides: Overrides = None,
    trials: Annotated[
        int | None, Option(help="Trials of the study, finished ones included.")
    ] = None,
    workers: Annotated[int | None, Option(help="Trials that run side by side.")] = None,
    storage: Annotated[
        str | None, Option(metavar="URL", help="An Optuna storage that machines share.")
    ] = None,
    name: Annotated[
        str | None, Option(metavar="STUDY", help="By default CONFIG's name and SWEEP's.")
    ] = None,
    timeout: Annotated[
        float | None, Option(metavar="SECONDS", help="When to stop; run again to resume.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Search for good values of config keys with many trainings."""
    from convae.sweep.results import format_results
    from convae.sweep.study import sweep as search

    results = search(
        config, ranges, overrides or [], trials=trials, workers=workers, storage=storage,
        name=name, timeout=timeout,
    )  # fmt: skip
    print(json.dumps(results.record()) if as_json else format_results(results))
    if results.stopped:
        logger.info(f"{results.stopped}; the same command resumes {results.study}")
    elif results.best:
        best = str(results.folder / "best.yaml")
        suggest(shlex.join(["convae", "train", best]), silent=as_json)
    if results.stopped or not results.best:
        raise SystemExit(1)


@app.command(context_settings={"ignore_unknown_options": True})
def launch(
    command: Annotated[
        list[str], Argument(metavar="-- train CONFIG ...", help="The command of each worker.")
    ],
    count: Annotated[int, Option("-n", metavar="N", help="Workers on this machine.")] = 2,
    rendezvous_timeout: Annotated[
        float, Option(metavar="SECONDS", help="Time for all workers to start training.")
    ] = 120.0,
) -> None:
    """Train with several workers on this machine."""
    from convae.runtime import launch as launcher

    commands = launcher.worker_commands(count, command)
    raise SystemExit(launcher.launch(commands, rendezvous_timeout))


@app.command()
def demo(
    runs: Annotated[
        list[str] | None,
        Argument(
            metavar="RUN",
            help="Runs' folders, ids or names, or pretrained:NAME; by default all.",
            autocompletion=complete_run,
        ),
    ] = None,
    port: Annotated[int, Option(min=1, max=65535, help="The port, or the next free one.")] = 7860,
    show: Annotated[bool, Option("--open", help="Open the page in the browser.")] = False,
    runs_dir: RunsDir = "outputs",
) -> None:
    """Serve a page to draw digits on.

    It shows the output of the model while one draws. Only this machine can open it.
    """
    from convae.demo.server import listen, serve
    from convae.demo.session import choices

    serve(listen(choices(runs or [], runs_dir), port), show=show)


@app.command()
def doctor(
    config: Annotated[
        str | None,
        Argument(
            metavar="CONFIG",
            help="A YAML file or a shipped config to show decisions for.",
            autocompletion=complete_config,
        ),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Print versions, devices and data, and how to fix problems."""
    from convae.cli.doctor import report

    name, words = split_overrides(config, overrides)
    print(report(name, words))
    suggest(shlex.join(["convae", "train", name or "mnist", *words]))


@app.command()
def report(run: RunName = None, runs_dir: RunsDir = "outputs") -> None:
    """Write a run's report.html again, from the files in its folder."""
    from convae.evaluation import report as page
    from convae.runs.run import Run

    path = page.write(Run.find(run, runs_dir))
    print(path)
    suggest(f"open {shlex.quote(str(path))} in a browser")


@app.command()
def runs(runs_dir: RunsDir = "outputs", as_json: Json = False) -> None:
    """List the runs with their status and metrics, the newest last."""
    from convae.cli.runs import describe_runs, format_runs, next_command

    rows = describe_runs(runs_dir)
    print(json.dumps(rows, indent=2) if as_json else format_runs(rows, runs_dir))
    suggest(next_command(rows, runs_dir), silent=as_json)


app.command()(config)
app.command()(configs)
app.command()(init)
app.command()(pretrained)
app.add_typer(cache_app, name="cache")


def main() -> None:
    """Run the command line; the only place that turns errors into exit codes."""
    open_streams()
    os.environ["MPLBACKEND"] = "agg"  # figures are files; another one may need a display
    try:
        app()
    except ConvaeError as error:
        print_error(str(error))
        code: Any = 2
    except SystemExit as end:
        code = end.code
    raise SystemExit(check_output(code))
