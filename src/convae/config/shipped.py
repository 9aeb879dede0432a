"""The configs that come with the package, which every command takes by name."""

from __future__ import annotations

import difflib
import functools
import json
import re
import shlex
from pathlib import Path

from convae import __version__
from convae.console import logger
from convae.errors import ConfigError, FileError

_PACKAGE = Path(__file__).parents[1]
SCHEMA = "convae.schema.json"  # the JSON Schema of all YAML files, beside them
SCHEMA_LINE = re.compile(r"# yaml-language-server: \$schema=(\S+)\n?")  # editors search for it


def folder() -> Path:
    """Return the folder of the configs: in the package, or at the top of a checkout."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parents[1] / "configs"


def names() -> list[str]:
    """Return the names of all shipped configs."""
    return sorted(path.stem for path in folder().glob("*.yaml"))


def find(name: str | Path, parent: str | Path = "") -> Path:
    """Return the file `name` in the folder `parent`, or else the shipped config of this name."""
    path = Path(parent, name)
    if str(name) not in names() or path.is_file():
        return path
    shipped, here = folder() / f"{name}.yaml", path.with_suffix(".yaml")
    if here.is_file() and not here.samefile(shipped):
        logger.warning(f"{name}: this is the shipped config; the file here is {here}")
    return shipped


def near(path: Path) -> list[str]:
    """Return the shipped configs that a file which does not exist may stand for."""
    found = difflib.get_close_matches(path.stem, names(), 3, 0.5)
    return found or ([] if path.suffix else names())


def describe(name: str) -> str:
    """Return the first line of a shipped config, which says what it is for."""
    text = (folder() / f"{name}.yaml").read_text(encoding="utf-8")
    return SCHEMA_LINE.sub("", text, count=1).partition("\n")[0].removeprefix("# ")


def schema() -> str:
    """Return the JSON Schema of configs and sweeps, for editors."""
    return (folder() / SCHEMA).read_text(encoding="utf-8")


def copy(name: str, target: str | Path) -> list[Path]:
    """Write a shipped config and its JSON Schema into the folder `target`, to start from.

    Returns:
        The config, and the schema if it was not there yet.

    Raises:
        ConfigError: No shipped config has this name.
        FileError: The config exists already, or the folder cannot be written.
    """
    if name not in names():
        there = ", ".join(near(Path(name)) or names())
        raise ConfigError(f"no shipped config is called {name!r:.80}; there are: {there}")
    path = Path(target, f"{name}.yaml")
    text = (folder() / path.name).read_text(encoding="utf-8")
    command = rf"(convae train|convae sweep mnist) {name}\b"
    text = re.sub(command, lambda match: f"{match[1]} {shlex.quote(str(path))}", text)
    if path.exists():
        raise FileError(f"{path}: exists already, and is not replaced")
    contents = {path: text, path.with_name(SCHEMA): schema()}
    written = [file for file in contents if not file.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for file in written:
            with file.open("x", encoding="utf-8") as new:  # no file is replaced
                new.write(contents[file])
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from None
    return written


def check_schema(path: Path, text: str) -> None:
    """Warn if the first line of a config names a JSON Schema of another version of convae."""
    if (line := SCHEMA_LINE.match(text)) and "://" not in line[1]:
        _check_schema(path, path.parent / line[1])


@functools.cache  # a sweep reads its config many times
def _check_schema(path: Path, named: Path) -> None:
    try:
        theirs = named.read_text(encoding="utf-8")
        version = json.loads(theirs)["version"]
    except (OSError, ValueError, LookupError, TypeError):
        return  # the editor says what is wrong with it
    if theirs != schema():
        logger.warning(
            f"{path}, line 1: {named} is not the schema of convae {__version__} (but of {version}):"
            " an editor may mark the wrong keys. To write it again: convae config --schema > "
            + shlex.quote(str(named))
        )
