"""Read a YAML file, its `base:` files and overrides, and check all of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from convae.config import yaml_tree as yamltree
from convae.config.renamed import translate
from convae.config.schema import Config
from convae.config.validation import validated
from convae.errors import ConfigError


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read the YAML at `path`, its `base:` files below it and `key.sub=value` overrides above it.

    Raises ConfigError with every error of the config at once, each with file and line.
    """
    tree, places = yamltree.read(Path(path), ())
    # A file's name may hold what a folder of runs should not.
    tree.setdefault("name", re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(path).stem).lstrip("_.-"))
    for override in overrides:
        yamltree.override(tree, places, override)
    return _check(tree, places, str(path))


def parse_config(text: str, source: str, overrides: Sequence[str] = ()) -> Config:
    """Return the config of a run from the YAML `text` that `Config.to_yaml` gave.

    Keys of earlier versions are translated. Raises ConfigError, like `load_config`.
    """
    tree, places = yamltree.parse(text, source)
    translate(tree)
    for override in overrides:
        yamltree.override(tree, places, override)
    return _check(tree, places, source)


def _check(tree: dict[str, Any], places: Mapping[yamltree.KeyPath, str], source: str) -> Config:
    config = validated(Config, tree, places, source)
    if problem := config.model_summary.find_problem():
        index, text = problem
        encoder = len(config.model.encoder)
        where = ("encoder", index) if index < encoder else ("decoder", index - encoder)
        place = yamltree.place_of(places, ("model", *where))
        raise ConfigError(f"{source}: the layers do not fit together\n  {place}{text}")
    return config
