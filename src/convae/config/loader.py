"""Load a config: a YAML file over its `base:` files, overrides, and the check of all of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from convae.config.renamed import translate
from convae.config.schema import Config
from convae.config.validation import validate
from convae.config.yaml_tree import YamlTree, parse, read
from convae.errors import ConfigError


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Return the config of a YAML file, or a shipped config.

    Args:
        path: the file, or the name of a shipped config, such as mnist, where there is no such
            file. Its key `base:` may name another one, over which it is merged.
        overrides: `key.sub=value` texts, which replace keys of the file; numbers are places in a
            list.

    Raises:
        ConfigError: with every error of the config at once, each with file and line.

    Examples:
        >>> import convae
        >>> config = convae.load_config("mnist", ["training.epochs=1"])
        >>> config.training.epochs, config.model_summary.parameters
        (1, 12785)
    """
    yaml = read(Path(path))
    # A file's name may hold characters that a folder of runs should not.
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(path).stem).lstrip("_.-")
    yaml.keys.setdefault("name", name[:64] or "config")
    return _check(yaml, overrides)


def parse_config(text: str, source: str, overrides: Sequence[str] = ()) -> Config:
    """Return the config of a run from the YAML `text` that `Config.to_yaml` gave.

    Keys of earlier versions are translated. `source` names the text in errors.

    Raises:
        ConfigError: with every error of the config at once.
    """
    yaml = parse(text, source)
    translate(yaml.keys)
    return _check(yaml, overrides)


def _check(yaml: YamlTree, overrides: Sequence[str]) -> Config:
    for override in overrides:
        yaml.override(override)
    config = validate(Config, yaml)
    if problem := config.model_summary.find_problem():
        index, text = problem
        encoder = len(config.model.encoder)
        where = ("encoder", index) if index < encoder else ("decoder", index - encoder)
        place = yaml.place_of(("model", *where))
        raise ConfigError(f"{yaml.source}: the layers do not fit together\n  {place}{text}")
    return config
