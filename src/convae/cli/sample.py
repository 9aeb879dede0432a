"""The command `sample`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from typer import Option

from convae.cli.options import Json, OutputDir, RunName, RunsDir
from convae.console import suggest


def sample(
    run: RunName = None,
    count: Annotated[int, Option("-n", metavar="N", help="How many images.")] = 64,
    seed: Annotated[int, Option(help="The same seed gives the same images.")] = 0,
    output_dir: OutputDir = None,
    runs_dir: RunsDir = "outputs",
    as_json: Json = False,
) -> None:
    """Make new images with a run that generates them."""
    from convae.runs.run import Run

    found = Run.find(run, runs_dir)
    from convae.inference import sample as sampling

    made = sampling.sample(found, count, seed, Path(output_dir) if output_dir else None)
    print(json.dumps(vars(made), indent=2) if as_json else sampling.format_samples(made))
    suggest(f"look at {made.grid}", silent=as_json)
