"""Read YAML into a tree of plain values with the file and line of every key.

A file is merged over its `base:`, and `key.sub=value` overrides are set. The meaning of the keys is
in schema.py, that of a value without quotes in scalars.py.
"""

from __future__ import annotations

import codecs
import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from convae.config import shipped
from convae.config.scalars import explain, resolve
from convae.errors import ConfigError

# A config is written by hand; anything beyond these is a mistake or an attack. PyYAML reads about
# 4,000 nodes a second.
MAX_CHARACTERS = 200_000
MAX_NODES = 10_000  # keys, values and lists
MAX_SCALAR = 10_000  # characters of one key or value
MAX_DEPTH = 20  # of lists in mappings in lists, of `base:` below `base:`, of key.sub.sub

KeyPath = tuple[str | int, ...]  # such as ("model", "encoder", 0, "filters")

# Keys of a section for which its type alone may stand: `optimizer: sgd` is {type: sgd}.
SHORT_FORMS: set[KeyPath] = {("training", "optimizer")}


@dataclass
class YamlTree:
    """The keys of a YAML file, and the file and line of each."""

    source: str  # the file, for messages
    keys: dict[str, Any]
    places: dict[KeyPath, str]

    def place_of(self, path: KeyPath) -> str:
        """Return the file and line of a key, or of the nearest key above it, for a message."""
        while path and path not in self.places:
            path = path[:-1]
        return f"{self.places[path]}: " if path else ""

    def override(self, text: str) -> None:
        """Set one `key.sub=value`; numbers are places in a list.

        Raises:
            ConfigError: It cannot be read or set, or it would undo an earlier override of a key
                inside its own.
        """
        key, equals, raw = text.partition("=")
        if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
            raise ConfigError(
                f"override {text!r:.80}: must read key=value or key.sub=value, such as "
                "training.epochs=5"
            )
        source = f"override {text:.80}"
        parsed = _parse_value(raw, source)
        value, node = parsed.keys["value"], cast(Any, self.keys)
        path: KeyPath = ()
        *parents, last = key.split(".")
        if len(parents) >= MAX_DEPTH:
            raise ConfigError(f"{source}: nested more than {MAX_DEPTH} deep")
        for part in parents:
            at = _key(node, part, source)
            path = (*path, at)
            if isinstance(node, dict) and node.get(at) is None:
                node[at] = {}
                self.places[path] = source
            node = node[at]
            if not isinstance(node, dict | list):
                raise ConfigError(f"{source}: {'.'.join(map(str, path))} holds no keys")
        at = _key(node, last, source)
        path = (*path, at)
        value = _in_full(value, path)
        before = node[at] if isinstance(node, list) else node.get(at)
        if isinstance(node, list):
            node[at] = value
        else:
            node.update(merge(node, {at: value}))
        self._forget(path, before, node[at], source)
        self.places |= {(*path, *place[1:]): source for place in parsed.places if place}

    def _forget(self, path: KeyPath, before: Any, after: Any, source: str) -> None:
        """Remove the places of keys that are lost where `after` takes the place of `before`."""
        start, inside = len(path), f"override {'.'.join(map(str, path))}."
        for key in [key for key in self.places if key[:start] == path]:
            if not _holds(after, before, key[start:]):
                place = self.places.pop(key)
                if place.startswith(inside):
                    raise ConfigError(
                        f"{source}: undoes {place}: write that after it, or leave it out"
                    )


def _parse_value(text: str, source: str) -> YamlTree:
    """Return the tree {value: VALUE} of an override.

    A list, a mapping or a text in quotes is YAML. All else is a single value, in which YAML's other
    characters (#, :, *, &, !, -) have no meaning: a path or a name is taken literally.
    """
    value = text.strip()
    if not value or value == "~":
        raise ConfigError(f"{source}: has no value. Write null for none")
    if value[0] in "[{'\"":
        # As a flow mapping, because a comment or a second value then leaves it without its end.
        tree = parse(f"{{value: {value}}}", source)
        if list(tree.keys) != ["value"]:
            raise ConfigError(f"{source}: must be one value. Write a text with commas in quotes")
        return tree
    if len(text) > MAX_SCALAR:
        raise ConfigError(f"{source}: a value of more than {MAX_SCALAR:,} characters")
    try:
        found = resolve(value)
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from None
    return YamlTree(source, {"value": text if found == value else found}, {("value",): source})


def _key(node: Any, part: str, source: str) -> Any:
    """Return the key of a mapping, or the index of a list, that a part of an override names."""
    if isinstance(node, dict):
        return part
    # An index of more than 9 digits is larger than any list.
    if not part.isdecimal() or len(part) > 9 or int(part) >= len(node):
        raise ConfigError(f"{source}: {part:.20} is no place in a list of {len(node)}")
    return int(part)


def read(path: Path, above: tuple[Path, ...] = ()) -> YamlTree:
    """Return the keys of a YAML file or a shipped config, merged over those of its `base:`.

    `above` are the files whose `base:` led here. Raises ConfigError.
    """
    found = shipped.find(path)
    try:
        resolved = found.resolve()
        if resolved in above:
            chain = " -> ".join(p.name for p in (*above, resolved))
            raise ConfigError(f"{path}: `base:` leads back to the file itself: {chain}")
        if len(above) >= MAX_DEPTH:
            raise ConfigError(f"{path}: the last of more than {MAX_DEPTH} files joined by `base:`")
        if above and path.exists() and not path.is_file():  # a pipe or device may never end
            raise ConfigError(f"{path}: is no file")
        text = read_text(found)
    except ConfigError:
        raise
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file.{_near_files(path)}") from None
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a circle
        raise ConfigError(f"{path}: cannot be read as a text file: {error}") from None
    if not above:
        shipped.check_schema(found, text)
    tree = parse(text, str(path))
    base = tree.keys.pop("base", None)
    if base is None:
        return tree
    try:
        if not isinstance(base, str):
            raise ConfigError(f"must name a YAML file or a shipped config. Received: {base}")
        below = read(shipped.find(base, found.parent), (*above, resolved))
    except ConfigError as error:
        raise ConfigError(f"{tree.place_of(('base',))}base: {error}") from None
    below.keys.pop("name", None)  # a config is named by its own file
    merged = merge(below.keys, tree.keys)
    kept = {k: place for k, place in below.places.items() if _holds(merged, below.keys, k)}
    return YamlTree(tree.source, merged, kept | tree.places)


def read_text(path: Path) -> str:
    """Return the text of a config file, which may be a pipe: UTF-8, or UTF-16 with its mark.

    Raises:
        ConfigError: It is too long, or in another encoding.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(4 * MAX_CHARACTERS + 1)
    utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as Windows writes it
    try:
        text = data.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        if len(data) <= 4 * MAX_CHARACTERS:
            line = data[: error.start].count(b"\n") + 1
            raise ConfigError(
                f"{path}, line {line}: must be UTF-8 text. Save the file with that encoding. "
                f"Received: {data[error.start : error.start + 4]!r}"
            ) from None
        text = " " * (MAX_CHARACTERS + 1)
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"{path}: a config of more than {MAX_CHARACTERS:,} characters is refused")
    return text


def _holds(merged: Any, below: Any, path: KeyPath) -> bool:
    """Return whether the value at `path` is the same after the merge."""
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
    files = f" In {path.parent}: {', '.join(near)}." if near else ""
    names = shipped.near(path)
    return files + (f" Shipped configs: {', '.join(names)}" if names else "")


def parse(text: str, source: str) -> YamlTree:
    """Return the keys of a YAML text.

    Raises:
        ConfigError: the text is not YAML, not a mapping, or what `_refuse_traps` refuses.
    """
    places: dict[KeyPath, str] = {}

    def value(node: yaml.Node, path: KeyPath) -> Any:
        at = _place(text, source, node.start_mark)
        places.setdefault(path, at)
        if isinstance(node, yaml.SequenceNode):
            return [value(item, (*path, i)) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            result: dict[str, Any] = {}
            for key_node, item in node.value:
                at = _place(text, source, key_node.start_mark)
                if not isinstance(key_node, yaml.ScalarNode):
                    raise ConfigError(f"{at}: a key must be a word")
                key = str(key_node.value)
                if key in result:
                    raise ConfigError(f"{at}: {key} stands here for the second time")
                places[(*path, key)] = at
                result[key] = _in_full(value(item, (*path, key)), (*path, key))
            return result
        if cast(yaml.ScalarNode, node).style is not None:  # in quotes, or a block of lines
            # JSON writes a character above U+FFFF as two escapes.
            return node.value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        try:
            return resolve(node.value)
        except ValueError as error:
            raise ConfigError(f"{places[path]}: {'.'.join(map(str, path))}: {error}") from None

    try:
        _refuse_traps(text, source)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = {} if node is None else value(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = _place(text, source, mark)
        at += f", column {mark.column + 1}" if mark and at != source else ""
        raise ConfigError(f"{at}: not YAML: {explain(error)}") from None
    except ConfigError:  # a ValueError too, but its message is complete
        raise
    except (yaml.YAMLError, ArithmeticError, ValueError) as error:
        raise ConfigError(f"{source}: not YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{source}: must be a mapping of keys to values. Received: {tree!r:.80}")
    return YamlTree(source, tree, places)


def _in_full(value: Any, path: KeyPath) -> Any:
    """Return the section for which a short form stands; any other value as it is."""
    return {"type": value} if path in SHORT_FORMS and isinstance(value, str) else value


def _place(text: str, source: str, mark: Any) -> str:
    """Return the source, and the line of a mark if the text has several."""
    return f"{source}, line {mark.line + 1}" if mark and "\n" in text.rstrip() else source


def _refuse_traps(text: str, source: str) -> None:
    """Raise ConfigError for YAML that no config needs and that costs much or builds objects.

    An alias or a deep nesting can make a small file a huge tree; a tag chooses the constructor.
    """
    depth = nodes = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        place = _place(text, source, event.start_mark)
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
    """Return `below` with the keys of `above`.

    Mappings are merged key by key; all else is replaced, and so is a mapping of another `type`.
    """
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            same = value.get("type", old.get("type")) == old.get("type")
            merged[key] = merge(old, value) if same else value
        else:
            merged[key] = value
    return merged
