"""The commands. Nothing heavy is imported before a command needs it: help and errors are instant.

Exit codes: 0 done; 2 the user's mistake, with one message on stderr; 1 anything else.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from convae.errors import UserError
from convae.lab import commands as laboratory

app = typer.Typer(
    name="convae",
    help="Train, understand and use a convolutional autoencoder.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ConfigPath = Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE ...]", help="Overrides, such as training.epochs=5."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Folder = Annotated[str, typer.Option("--outputs", metavar="FOLDER", help="Where runs are kept.")]


@app.command()
def train(
    config: Annotated[
        str | None, typer.Argument(metavar="CONFIG", help="A YAML file; not with --resume.")
    ] = None,
    overrides: Overrides = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="[RUN]",
            help="Go on with this run (the newest): its folder, id or name. KEY=VALUE may change "
            "training.epochs (not with one_cycle), training.checkpoint_every, runtime, output, "
            "data.path, data.download and data.allow_sample.",
        ),
    ] = None,
    outputs: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Where runs are kept: output.folder of the config."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a model; a run's folder holds all that comes of it."""
    from convae.config import load_config
    from convae.run import Run

    if resume is not None:
        config, words = _split(config, overrides)
        if config is not None:
            raise UserError(f"--resume takes the run's own config. Received: CONFIG {config}")
        run = Run.find(resume, outputs or "outputs")
        settings = run.config_with(words)
    elif config is None:
        raise UserError("which config? For example: convae train configs/mnist.yaml")
    else:
        kept = [f"output.folder={json.dumps(outputs)}"] if outputs else []
        run, settings = None, load_config(config, [*(overrides or []), *kept])
    from convae import train as training

    try:
        run = training.train(settings, resume=run)
    except training.Interrupted as stopped:
        print(f"{stopped}\ngo on with: convae train --resume {stopped.run.path}", file=sys.stderr)
        raise SystemExit(1) from None
    if as_json:
        print(json.dumps({"run": str(run.path), **run.history[-1]}))
    print(f"done: {run.path}\nlook at it with: convae eval {run.path}", file=sys.stderr)


@app.command("eval")
def evaluate(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A run's folder, id or name; the newest.")
    ] = None,
    overrides: Overrides = None,
    outputs: Folder = "outputs",
    as_json: Json = False,
) -> None:
    """Measure a run on the test part and draw its pictures."""
    from convae.run import Run

    run, words = _split(run, overrides)
    found = Run.find(run, outputs)
    from convae import evaluate as evaluation

    result = evaluation.evaluate(found, words)
    print(json.dumps(result, indent=2) if as_json else evaluation.summary(found, result))


@app.command()
def config(config: ConfigPath, overrides: Overrides = None) -> None:
    """Print a config as it is understood: `base:` and overrides applied, defaults written out."""
    from convae.config import load_config

    print(load_config(config, overrides or []).to_yaml(), end="")


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
    from convae import pack as packs

    source, words = _split(source, overrides)
    rows = packs.command(source, words, config, verify=verify, listing=listing, clear=clear)
    if clear:
        print(f"removed {len(rows):,} packs", file=sys.stderr)
    print(json.dumps(rows, indent=2) if as_json else packs.table(rows))


app.command()(laboratory.inspect)
app.command()(laboratory.size)
app.add_typer(laboratory.explain_app, name="explain")


@app.command()
def doctor(
    config: Annotated[
        str | None, typer.Argument(metavar="[CONFIG]", help="Whose decisions to show.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Print versions, devices, processor features, data found, and what to do about the rest."""
    from convae.doctor import report

    print(report(*_split(config, overrides)))


def _split(first: str | None, overrides: list[str] | None) -> tuple[str | None, list[str]]:
    """RUN or CONFIG may be left away: then the first word is an override like the others."""
    words = list(overrides or [])
    return (None, [first, *words]) if first is not None and "=" in first else (first, words)


def _with_run(words: list[str]) -> list[str]:
    """`--resume` without a run means the newest."""
    if "--resume" in words:
        after = words.index("--resume") + 1
        if after == len(words) or words[after].startswith("-") or "=" in words[after]:
            return [*words[:after], "latest", *words[after:]]
    return words


def main() -> None:
    """Run the command line; the only place that turns errors into exit codes."""
    try:
        app(args=_with_run(sys.argv[1:]))
    except UserError as error:
        print(f"convae: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:  # `convae ... | head` has seen enough
        sys.stderr.close()
        raise SystemExit(0) from None
