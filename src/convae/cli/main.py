"""The commands. Nothing heavy is imported before a command needs it: help and errors are instant.

Results go to stdout, all else to stderr (console.py). Exit codes: 0 done; 2 the user's mistake,
with one message on stderr; 1 anything else.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from convae import __version__
from convae.cli import inspect as laboratory
from convae.cli.options import (
    ConfigPath,
    Json,
    Overrides,
    RunName,
    RunsDir,
    complete_config,
    complete_run,
    global_first,
    named,
    split,
    with_run,
)
from convae.console import logger, print_error, set_level, suggest
from convae.errors import ConfigError, ConvaeError

app = typer.Typer(
    name="convae",
    help="Train, understand and use a convolutional autoencoder.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"convae {__version__}")
        raise typer.Exit


@app.callback()
def convae(
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Only results and errors; anywhere on the line.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Decisions with their reasons, too; likewise.")
    ] = False,
) -> None:
    """Train, understand and use a convolutional autoencoder."""
    if quiet and verbose:
        raise ConfigError("--quiet and --verbose exclude each other")
    set_level("quiet" if quiet else "verbose" if verbose else "normal")


@app.command()
def train(
    config: Annotated[
        str | None,
        typer.Argument(
            metavar="CONFIG", help="A YAML file; not with --resume.", autocompletion=complete_config
        ),
    ] = None,
    overrides: Overrides = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="[RUN]",
            help="Go on with this run (the newest): its folder, id or name. KEY=VALUE may change "
            "training.epochs (not with one_cycle), training.checkpoint_interval, runtime, output, "
            "data.path, data.download and data.allow_sample.",
            autocompletion=complete_run,
        ),
    ] = None,
    runs_dir: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Where runs are kept: output.folder of the config."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a model; a run's folder holds all that comes of it."""
    from convae.config.loader import load_config
    from convae.data.loading import named_path
    from convae.runs.run import Run

    if resume is not None:
        config, words = split(config, overrides)
        if config is not None:
            raise ConfigError(f"--resume takes the run's own config. Received: CONFIG {config}")
        run = Run.find(resume, runs_dir or "outputs")
        settings = run.config_with(words)
    elif config is None:
        raise ConfigError("which config? For example: convae train configs/mnist.yaml")
    else:
        kept = [f"output.folder={json.dumps(runs_dir)}"] if runs_dir else []
        run, settings = None, load_config(config, [*(overrides or []), *kept])
    named_path(settings.data)  # told at once, if it is wrong: TensorFlow takes seconds
    from convae.training.trainer import Interrupted
    from convae.training.trainer import train as start
    from convae.training.workers import PeerLost

    try:
        run = start(settings, resume=run)
    except Interrupted as stopped:
        logger.info(str(stopped))
        suggest(shlex.join(["convae", "train", "--resume", str(stopped.run.path)]))
        raise SystemExit(1) from None
    except PeerLost as lost:
        print_error(str(lost))
        raise SystemExit(1) from None
    if as_json and not run.read_only:
        print(json.dumps({"run": str(run.path), **run.history[-1]}))
    logger.info(f"done: {run.path}")
    suggest(shlex.join(["convae", "eval", str(run.path)]), silent=as_json)


@app.command("eval")
def evaluate(
    run: RunName = None,
    overrides: Overrides = None,
    umap: Annotated[
        bool, typer.Option("--umap", help="Map the codes by UMAP too; needs convae[umap].")
    ] = False,
    runs_dir: RunsDir = "outputs",
    as_json: Json = False,
) -> None:
    """Measure a run on the test split, draw its pictures, and write its report."""
    from convae.runs.run import Run

    run, words = split(run, overrides)
    found = Run.find(run, runs_dir)
    from convae.evaluation.evaluate import evaluate as measure
    from convae.evaluation.evaluate import format_result

    result = measure(found, words, umap)
    print(json.dumps(result, indent=2) if as_json else format_result(found, result))
    suggest(f"open {found.path / 'report.html'} in a browser", silent=as_json)


@app.command()
def report(run: RunName = None, runs_dir: RunsDir = "outputs") -> None:
    """Write a run's report.html again, from the files in its folder."""
    from convae.evaluation import report as page
    from convae.runs.run import Run

    path = page.write(Run.find(run, runs_dir))
    print(path)
    suggest(f"open {path} in a browser")


@app.command()
def runs(runs_dir: RunsDir = "outputs", as_json: Json = False) -> None:
    """List the runs, the newest last: how far they came, what they reached."""
    from convae.cli import runs as listing

    found = listing.rows(runs_dir)
    print(json.dumps(found, indent=2) if as_json else listing.table(found, runs_dir))
    suggest(listing.next_command(found), silent=as_json)


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="Two or more runs' folders, ids or names.",
            autocompletion=complete_run,
        ),
    ],
    output_dir: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Where pictures and page go: RUNS_DIR/compare."),
    ] = None,
    runs_dir: RunsDir = "outputs",
    as_json: Json = False,
) -> None:
    """Compare runs: what differs in their configs, and what came of it. Measures where needed."""
    from convae.evaluation import compare as comparison
    from convae.runs.run import Run

    found = comparison.distinct([Run.find(name, runs_dir) for name in runs])
    result = comparison.compare(found, Path(output_dir or Path(runs_dir) / "compare"))
    print(json.dumps(result, indent=2) if as_json else comparison.format_result(result))
    suggest(f"open {result['files']['page']} in a browser", silent=as_json)


@app.command()
def predict(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="A run, or pretrained:NAME.", autocompletion=complete_run
        ),
    ],
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILES", help="Images, folders, patterns; - reads names on stdin."),
    ],
    output_dir: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Where to write; the run's predictions/.")
    ] = None,
    as_digit: Annotated[
        bool,
        typer.Option(
            "--as-digit", help="Invert, cut and center photographs as MNIST's digits are."
        ),
    ] = False,
    runs_dir: RunsDir = "outputs",
    as_json: Json = False,
) -> None:
    """Send image files through a model: reconstructed, denoised, upscaled, segmented or scored."""
    from convae.runs.run import Run

    found = Run.find(run, runs_dir)
    from convae.inference import predict as prediction

    folder = Path(output_dir) if output_dir else found.path / "predictions"
    made = prediction.predict(found, named(files), folder, as_digit=as_digit)
    rows = [vars(one) for one in made]
    print(json.dumps(rows, indent=2) if as_json else prediction.told(made, folder))
    suggest(f"look at {folder / 'overview.png'}", silent=as_json)


@app.command()
def export(
    run: RunName = None,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="onnx, litert, saved_model, weights or all; repeatable."),
    ] = None,
    output_dir: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Where to write; the run's export/.")
    ] = None,
    runs_dir: RunsDir = "outputs",
    as_json: Json = False,
) -> None:
    """Write a run's model for other runtimes, each file compared with Keras."""
    from convae.inference import export as exporting
    from convae.runs.run import Run

    exporting.check(formats or [])
    result = exporting.export(Run.find(run, runs_dir), formats or [], output_dir)
    print(json.dumps(result, indent=2) if as_json else exporting.summary(result))
    suggest(f"look at the files in {result['folder']}", silent=as_json)


@app.command()
def demo(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN ...]",
            help="Runs' folders, ids or names, pretrained:NAME; all of them.",
            autocompletion=complete_run,
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="If it is in use, the next free one.")
    ] = 7860,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    runs_dir: RunsDir = "outputs",
) -> None:
    """Serve a page to draw on, for this machine alone: what a model makes of a digit, live."""
    from convae.demo import server as page
    from convae.demo import session as viewer

    page.serve(page.listen(viewer.choices(runs or [], runs_dir), port), show=show)


@app.command()
def config(config: ConfigPath, overrides: Overrides = None) -> None:
    """Print a config as it is understood: `base:` and overrides applied, defaults written out."""
    from convae.config.loader import load_config

    print(load_config(config, overrides or []).to_yaml(), end="")
    suggest(shlex.join(["convae", "inspect", config, *(overrides or [])]))


@app.command()
def pack(
    source: Annotated[
        str | None,
        typer.Argument(metavar="[FOLDER or CONFIG]", help="Images, or the YAML that names them."),
    ] = None,
    overrides: Overrides = None,
    config: Annotated[
        str, typer.Option(metavar="CONFIG", help="The YAML to pack FOLDER for.")
    ] = "configs/images.yaml",
    verify: Annotated[bool, typer.Option(help="Read every byte of what is packed.")] = False,
    listing: Annotated[bool, typer.Option("--list", help="Show what is packed.")] = False,
    clear: Annotated[
        bool, typer.Option("--clear", help="Remove what is packed, of FOLDER or all.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Decode a folder of images once, into the cache that training reads from."""
    from convae.cli import cache as packs

    source, words = split(source, overrides)
    rows = packs.command(source, words, config, verify=verify, listing=listing, clear=clear)
    if clear:
        logger.info(f"removed {len(rows):,} packs")
    print(json.dumps(rows, indent=2) if as_json else packs.table(rows))
    suggest("convae train CONFIG, with data.path: the folder", silent=as_json)


app.command()(laboratory.inspect)
app.command()(laboratory.size)
app.add_typer(laboratory.explain_app, name="explain")


@app.command()
def sweep(
    config: ConfigPath,
    ranges: Annotated[
        str,
        typer.Argument(
            metavar="SWEEP", help="A YAML file of ranges.", autocompletion=complete_config
        ),
    ],
    overrides: Overrides = None,
    trials: Annotated[int | None, typer.Option(help="Of the study, old ones included.")] = None,
    workers: Annotated[int | None, typer.Option(help="Trials side by side.")] = None,
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="An Optuna storage that machines share.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="STUDY", help="CONFIG's name and SWEEP's file name.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Stop then; the same command goes on.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Search for good values of config keys: many trainings, each in a process of its own."""
    from convae.sweep import study as sweeping
    from convae.sweep.results import table

    found = sweeping.sweep(
        config, ranges, overrides or [], trials=trials, workers=workers, storage=storage,
        name=name, timeout=timeout,
    )  # fmt: skip
    print(json.dumps(found.record()) if as_json else table(found))
    if found.stopped:
        logger.info(f"{found.stopped}; the same command goes on with {found.study}")
    elif found.best:
        best = str(found.folder / "best.yaml")
        suggest(shlex.join(["convae", "train", best]), silent=as_json)
    if found.stopped or not found.best:
        raise SystemExit(1)


@app.command(context_settings={"ignore_unknown_options": True})
def launch(
    words: Annotated[
        list[str], typer.Argument(metavar="-- train CONFIG ...", help="What each worker runs.")
    ],
    count: Annotated[int, typer.Option("-n", metavar="N", help="Workers on this machine.")] = 2,
    rendezvous_timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Until all have found each other.")
    ] = 120.0,
) -> None:
    """Train with several workers on this machine, started and ended together."""
    from convae.runtime.launch import launch as launch_workers
    from convae.runtime.launch import worker_commands

    raise SystemExit(launch_workers(worker_commands(count, words), rendezvous_timeout))


@app.command()
def doctor(
    config: Annotated[
        str | None, typer.Argument(metavar="[CONFIG]", help="Whose decisions to show.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Print versions, devices, processor features, data found, and what to do about the rest."""
    from convae.cli.doctor import report

    config, words = split(config, overrides)
    print(report(config, words))
    suggest(shlex.join(["convae", "train", config or "configs/mnist.yaml", *words]))


def main() -> None:
    """Run the command line; the only place that turns errors into exit codes."""
    try:
        app(args=with_run(global_first(sys.argv[1:])))
    except ConvaeError as error:
        print_error(str(error))
        raise SystemExit(2) from None
    except BrokenPipeError:  # `convae ... | head` has seen enough
        sys.stderr.close()
        raise SystemExit(0) from None
