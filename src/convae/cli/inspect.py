"""The commands `inspect` and `size`: the arithmetic of layers, without TensorFlow."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from convae.cli.options import ConfigPath, Json, Overrides
from convae.console import suggest
from convae.errors import ConfigError


def size(
    overrides: Annotated[
        list[str] | None, Argument(metavar="KEY=VALUE", help="Overrides of the --through config.")
    ] = None,
    start: Annotated[int | None, Option("--from", metavar="A", help="Input size.")] = None,
    end: Annotated[int | None, Option("--to", metavar="B", help="Output size.")] = None,
    max_kernel: Annotated[int, Option(min=1, max=64, help="The largest kernel tried.")] = 15,
    max_stride: Annotated[int, Option(min=1, max=32, help="The largest stride tried.")] = 8,
    max_dilation: Annotated[int, Option(min=1, max=16, help="The largest dilation tried.")] = 4,
    through: Annotated[
        str | None,
        Option(metavar="CONFIG", help="List the input sizes that this decoder restores."),
    ] = None,
    sizes: Annotated[str, Option(metavar="A-B", help="The sizes for --through.")] = "20-40",
    show_all: Annotated[bool, Option("--all", help="Print every setting.")] = False,
    as_json: Json = False,
) -> None:
    """Find settings that lead from one size to another.

    With --through, list the input sizes that the decoder of a config restores.
    """
    from convae.config.loader import load_config
    from convae.layers import search

    if through is not None:
        loaded = load_config(through, overrides or [])
        found = search.restored_sizes(loaded.model, loaded.output_shape, sizes)
        print(json.dumps(found) if as_json else search.format_restored_sizes(through, found))
        suggest(shlex.join(["convae", "inspect", through]), silent=as_json)
        return
    if overrides:
        raise ConfigError(f"overrides belong to --through CONFIG. Received: {' '.join(overrides)}")
    if start is None or end is None:
        raise ConfigError("which sizes? For example: convae size --from 13 --to 25")
    settings = search.find_settings(start, end, max_kernel, max_stride, max_dilation)
    if as_json:
        print(json.dumps([asdict(setting) for setting in settings]))
    else:
        limits = f"kernels up to {max_kernel}, strides up to {max_stride}, "
        limits += f"dilation up to {max_dilation}"
        print(search.settings_table(start, end, settings, limits, None if show_all else 12))
    suggest("write a setting into a layer of your YAML, then: convae inspect", silent=as_json)


def inspect(config: ConfigPath, overrides: Overrides = None, as_json: Json = False) -> None:
    """Print a model's shapes, parameters, costs and warnings.

    Also what each layer cuts off, how its kernel copies overlap, and fixes of warnings.
    """
    from convae.config.loader import load_config

    summary = load_config(config, overrides or []).model_summary
    print(json.dumps(summary.to_dict()) if as_json else f"{Path(config).name}\n\n{summary}")
    suggest(shlex.join(["convae", "train", config, *(overrides or [])]), silent=as_json)
