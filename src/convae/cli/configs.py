"""The commands `config`, `configs` and `init`: YAML files to start from and to look at."""

from __future__ import annotations

import json
import shlex
from typing import Annotated

from typer import Argument, Option

from convae.cli.options import Json, Overrides, complete_config, complete_shipped, split_overrides
from convae.console import format_table, logger, suggest
from convae.errors import ConfigError


def config(
    config: Annotated[
        str | None,
        Argument(
            metavar="CONFIG",
            help="A YAML file or a shipped config.",
            autocompletion=complete_config,
        ),
    ] = None,
    overrides: Overrides = None,
    schema: Annotated[
        bool, Option("--schema", help="Print the JSON Schema of all configs, for editors.")
    ] = False,
) -> None:
    """Print a config with its `base:`, overrides and all defaults."""
    from convae.config import shipped
    from convae.config.loader import load_config

    config, words = split_overrides(config, overrides)
    if schema:
        print(shipped.schema(), end="")
        return
    if config is None:
        raise ConfigError("which config? For example: convae config mnist")
    print(load_config(config, words).to_yaml(), end="")
    suggest(shlex.join(["convae", "inspect", config, *words]))


def configs(as_json: Json = False) -> None:
    """List the configs that come with the package."""
    from convae.config import shipped

    rows = {name: shipped.describe(name) for name in shipped.names()}
    if as_json:
        print(json.dumps([{"name": name, "description": rows[name]} for name in rows], indent=2))
    else:
        print(format_table([("Name", "What it is for"), *rows.items()]))
    suggest("convae inspect mnist", silent=as_json)


def init(
    name: Annotated[
        str,
        Argument(
            metavar="NAME",
            help="A shipped config: `convae configs`.",
            autocompletion=complete_shipped,
        ),
    ] = "images",
    folder: Annotated[str, Argument(metavar="FOLDER", help="Where to write it.")] = ".",
) -> None:
    """Write a config with comments, to change for your own images."""
    from convae.config import shipped

    path, *schema = shipped.copy(name, folder)
    print(path)
    for file in schema:
        logger.info(f"{file} lets editors complete and check the keys")
    words = ["sweep", "mnist"] if name == "sweep" else ["train"]
    images = ["data.path=FOLDER"] if name == "images" else []
    suggest(shlex.join(["convae", *words, str(path), *images]))
