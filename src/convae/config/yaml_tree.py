"""YAML text to a tree of plain values that knows the file and line of every key.

Reads a file over its `base:`, and sets `key.sub=value` overrides. What the keys mean is told by
config.py.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from convae.errors import ConfigError, ConvaeError

# A config is written by hand; anything beyond these is a mistake or an attack. PyYAML reads about
# 4,000 nodes a second.
MAX_CHARACTERS = 200_000
MAX_NODES = 10_000  # keys, values and lists
MAX_SCALAR = 10_000  # characters of one key or value
MAX_DEPTH = 20  # of lists in mappings in lists, of `base:` below `base:`, of key.sub.sub

KeyPath = tuple[str | int, ...]  # the way to a key: ("model", "encoder", 0, "filters")


class _Loader(yaml.SafeLoader):
    """SafeLoader that also takes YAML 1.2's floats: PyYAML reads 1e-3 as text."""


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in _Loader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read(path: Path, above: tuple[Path, ...]) -> tuple[dict[str, Any], dict[KeyPath, str]]:
    """A YAML file over its `base:`, and for each key the file and line that it came from."""
    try:
        resolved = path.resolve()
        if resolved in above:
            chain = " -> ".join(p.name for p in (*above, resolved))
            raise ConfigError(f"{path}: `base:` leads back to the file itself: {chain}")
        if len(above) >= MAX_DEPTH:
            raise ConfigError(f"{path}: the last of more than {MAX_DEPTH} files joined by `base:`")
        if above and path.exists() and not path.is_file():  # a pipe or device may never end
            raise ConfigError(f"{path}: is no file")
        text = read_text(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file.{_near_files(path)}") from None
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a circle
        raise ConfigError(f"{path}: cannot be read as a text file: {error}") from None
    tree, places = parse(text, str(path))
    base = tree.pop("base", None)
    if base is None:
        return tree, places
    if not isinstance(base, str):
        raise ConfigError(
            f"{place_of(places, ('base',))}base: must name a YAML file. Received: {base}"
        )
    try:
        below, below_places = read(path.parent / base, (*above, resolved))
    except ConvaeError as error:
        raise ConfigError(f"{place_of(places, ('base',))}base: {error}") from None
    below.pop("name", None)  # a config is named by its own file
    merged = merge(below, tree)
    kept = {key: place for key, place in below_places.items() if _holds(merged, below, key)}
    return merged, kept | places


def read_text(path: Path) -> str:
    """The text of a config file, which may be a pipe. Raises ConfigError if it is too long."""
    with path.open(encoding="utf-8") as file:
        text = file.read(MAX_CHARACTERS + 1)
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"{path}: a config of more than {MAX_CHARACTERS:,} characters is refused")
    return text


def _holds(merged: Any, below: Any, path: KeyPath) -> bool:
    """Whether what stands at `path` after the merge is still what stood there before."""
    for part in path:
        if isinstance(merged, dict) and isinstance(below, dict):
            if part not in merged:
                return False
        elif merged is not below:  # a list or a value is replaced whole
            return False
        merged, below = merged[part], below[part]
    return True


def _near_files(path: Path) -> str:
    there = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, there, 3, 0.5) or there[:8]
    return f" In {path.parent}: {', '.join(near)}" if near else ""


def parse(text: str, source: str) -> tuple[dict[str, Any], dict[KeyPath, str]]:
    """The tree in a YAML text, and for each key the place where it stands in `source`.

    Raises ConfigError for what is not YAML, not a mapping, or what `refuse_traps` refuses.
    """
    places: dict[KeyPath, str] = {}

    def value(node: yaml.Node, path: KeyPath) -> Any:
        line = node.start_mark.line + 1
        places.setdefault(path, f"{source}, line {line}")
        if isinstance(node, yaml.SequenceNode):
            return [value(item, (*path, i)) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            result: dict[str, Any] = {}
            for key_node, item in node.value:
                at = f"{source}, line {key_node.start_mark.line + 1}"
                if not isinstance(key_node, yaml.ScalarNode):
                    raise ConfigError(f"{at}: a key must be a word")
                key = str(key_node.value)
                if key in result:
                    raise ConfigError(f"{at}: {key} stands here for the second time")
                places[(*path, key)] = at
                result[key] = value(item, (*path, key))
            return result
        scalar = loader.construct_object(node)
        if isinstance(scalar, int) and abs(scalar) >= 2**63:
            raise ConfigError(f"{places[path]}: a whole number of more than 64 bits is refused")
        return scalar

    try:
        refuse_traps(text, source)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            tree = {} if node is None else value(node, ())
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{source}{at}: not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ArithmeticError, ValueError) as error:
        raise ConfigError(f"{source}: not YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{source}: must be a mapping of keys to values. Received: {tree!r:.80}")
    return tree, places


def refuse_traps(text: str, source: str) -> None:
    """Stop at the first thing that no config needs and that may cost much, or build an object.

    An alias or a deep nesting can make a small file a huge tree; a tag chooses the constructor.
    """
    depth = nodes = 0
    for event in yaml.parse(text, Loader=_Loader):
        place = f"{source}, line {event.start_mark.line + 1}" if event.start_mark else source
        if isinstance(event, yaml.NodeEvent):
            nodes += 1
            if nodes > MAX_NODES:
                raise ConfigError(f"{place}: more than {MAX_NODES:,} keys and values")
            if tag := getattr(event, "tag", None):
                raise ConfigError(f"{place}: YAML tags (!name) are refused. Received: {tag!r:.80}")
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > MAX_SCALAR:
            raise ConfigError(f"{place}: a key or value of more than {MAX_SCALAR:,} characters")
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(f"{place}: YAML aliases (*name) are refused; `base:` shares settings")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ConfigError(f"{place}: nested more than {MAX_DEPTH} deep")


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Mappings merge key by key, all else is replaced, and so is a mapping of another `type`."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            same = value.get("type", old.get("type")) == old.get("type")
            merged[key] = merge(old, value) if same else value
        else:
            merged[key] = value
    return merged


def override(tree: dict[str, Any], places: dict[KeyPath, str], text: str) -> None:
    """Set one `key.sub=value`; numbers name places in a list. Raises ConfigError."""
    key, equals, raw = text.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise ConfigError(
            f"override {text!r:.80}: must read key=value or key.sub=value, such as "
            "training.epochs=5"
        )
    source = f"override {text:.80}"
    parsed, inside = parse(f"value: {raw}", source)
    value, node = parsed["value"], cast(Any, tree)
    path: KeyPath = ()
    *parents, last = key.split(".")
    if len(parents) >= MAX_DEPTH:
        raise ConfigError(f"{source}: nested more than {MAX_DEPTH} deep")
    for part in parents:
        node, path = _step(node, path, part, places, source)
    if isinstance(node, list):
        index = _index(node, last, source)
        path = (*path, index)
        node[index] = value
    else:
        path = (*path, last)
        node[last] = merge({last: node.get(last)}, {last: value})[last]
    if not isinstance(value, dict):
        for old in [place for place in places if place[: len(path)] == path]:
            del places[old]
    places |= {(*path, *place[1:]): source for place in inside if place}


def _step(
    node: Any, path: KeyPath, part: str, places: dict[KeyPath, str], source: str
) -> tuple[Any, KeyPath]:
    """The container below `node` at `part`; a missing section is made."""
    if isinstance(node, list):
        index = _index(node, part, source)
        path, below = (*path, index), node[index]
    else:
        path = (*path, part)
        if node.get(part) is None:
            node[part] = {}
            places[path] = source
        below = node[part]
    if not isinstance(below, dict | list):
        raise ConfigError(f"{source}: {'.'.join(map(str, path))} holds no keys")
    return below, path


def _index(node: list[Any], part: str, source: str) -> int:
    # As many digits as an int may have are more than a list can have places.
    if not part.isdecimal() or len(part) > 9 or int(part) >= len(node):
        raise ConfigError(f"{source}: {part:.20} is no place in a list of {len(node)}")
    return int(part)


def place_of(places: Mapping[KeyPath, str], path: KeyPath) -> str:
    """Where the key stands, or the nearest key above it that stands anywhere."""
    while path and path not in places:
        path = path[:-1]
    return f"{places[path]}: " if path else ""
