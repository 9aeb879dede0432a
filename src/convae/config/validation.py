"""Check YAML against a section, and report all errors at once, each with file and line."""

from __future__ import annotations

import difflib
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from convae.config.renamed import RENAMED
from convae.config.scalars import guess
from convae.config.yaml_tree import YamlTree
from convae.errors import ConfigError
from convae.section import Section

Root = TypeVar("Root", bound=Section)


def validate(root: type[Root], yaml: YamlTree) -> Root:
    """Return the section of type `root` that a YAML file holds.

    Raises:
        ConfigError: with a line for each error.
    """
    try:
        return root.model_validate(_tuples(yaml.keys))
    except ValidationError as error:
        lines = _lines(root, yaml, error.errors(include_url=False))
        count = "1 error" if len(lines) == 1 else f"{len(lines)} errors"
        text = "".join(f"\n  {line}" for line in lines)
        raise ConfigError(f"{yaml.source}: {count}{text}") from None


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _lines(root: Any, yaml: YamlTree, errors: list[Any]) -> list[str]:
    """Return a line for each wrong key: place, key, problem and received value."""
    found: dict[tuple[str, str], tuple[list[str], str]] = {}
    for error in errors:
        if error["type"] == "too_short" and error["input"]:
            continue  # pydantic also calls a list empty whose only layer is wrong
        path, section = _locate(root, yaml.keys, error)
        key = (yaml.place_of(tuple(path)), ".".join(map(str, path)))
        complete = error["type"] in {"missing", "extra_forbidden", "value_error"}
        received = "" if complete else f". Received: {error['input']!r:.80}"
        if better := guess(error["input"], error["type"]):
            received += f": {better}"
        found.setdefault(key, ([], received))[0].append(_message(error, path, section))
    return [
        f"{place}{key}{': ' if key else ''}{', or '.join(messages)}{received}"
        for (place, key), (messages, received) in found.items()
    ]


def _message(error: Any, path: list[str | int], section: Any) -> str:
    if error["type"] == "missing":
        return "is missing"
    if error["type"] == "extra_forbidden":
        if new_name := RENAMED.get(".".join(map(str, path))):
            return f"is now {new_name}"
        known = getattr(section, "model_fields", {})
        near = difflib.get_close_matches(str(path[-1]), known, 1, 0.5)
        hints = [f"did you mean {near[0]}?"] if near else []
        if not near or "type" in known:  # it may be an option of another type
            hints.append(f"known here: {', '.join(known)}")
        return f"unknown key; {' '.join(hints)}"
    if error["type"] in {"model_type", "model_attributes_type"}:
        return "must be a mapping of keys to values"
    if error["type"] == "string_pattern_mismatch" and not error["input"]:
        return "must not be empty"
    if error["type"] == "string_pattern_mismatch" and not error["input"].isprintable():
        return (
            "control characters are refused. In double quotes a backslash begins an escape: write "
            "paths in 'single quotes' or with /"
        )
    text: str = error["msg"].removeprefix("Value error, ")
    return text[:1].lower() + text[1:]


def _locate(root: Any, tree: Any, error: Any) -> tuple[list[str | int], Any]:
    """Return the path of a key in the YAML, without pydantic's tags, and its section."""
    path: list[str | int] = []
    section: Any = root
    choices: list[Any] = []
    node = tree
    for i, part in enumerate(error["loc"]):
        last = i == len(error["loc"]) - 1
        is_key = isinstance(part, int) or (isinstance(node, dict) and part in node)
        tagged = next((c for c in choices if part in _types(c)), None)
        absent = last and error["type"] in {"extra_forbidden", "missing"}
        if not is_key and (tagged or not absent):  # the tag of a union, or a type in it
            section, choices = tagged or section, []
            continue
        path.append(part)
        if field := getattr(section, "model_fields", {}).get(part):
            choices = _sections(field.annotation)
            section = choices[0] if len(choices) == 1 else section if last else None
        try:
            node = node[part]
        except (LookupError, TypeError):
            node = None
    return path, section


def _sections(annotation: Any) -> list[Any]:
    """Return the Section classes in a type, such as tuple[Annotated[Conv | ConvTranspose, ...]]."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [s for arg in get_args(annotation) for s in _sections(arg)]


def _types(section: Any) -> tuple[Any, ...]:
    field = section.model_fields.get("type")
    return get_args(field.annotation) if field else ()
