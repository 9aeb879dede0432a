"""What a section of YAML is, and how its errors are told: all at once, each with file and line."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from convae.config import yaml_tree as yamltree
from convae.config.renamed import RENAMED
from convae.errors import ConfigError
from convae.section import Section

Root = TypeVar("Root", bound=Section)


def validated(
    root: type[Root], tree: dict[str, Any], places: Mapping[yamltree.KeyPath, str], source: str
) -> Root:
    """The Section that a YAML tree describes. Raises ConfigError with every error at once."""
    try:
        return root.model_validate(_tuples(tree))
    except ValidationError as error:
        lines = _lines(root, tree, places, error.errors(include_url=False))
        count = "1 error" if len(lines) == 1 else f"{len(lines)} errors"
        raise ConfigError(
            f"{source}: {count}\n" + "\n".join(f"  {line}" for line in lines)
        ) from None


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _lines(
    root: Any, tree: Any, places: Mapping[yamltree.KeyPath, str], errors: list[Any]
) -> list[str]:
    """A line for each key that is wrong: place, key, what is wrong, what was received."""
    found: dict[tuple[str, str], tuple[list[str], str]] = {}
    for error in errors:
        if error["type"] == "too_short" and error["input"]:
            continue  # a list whose only layer is wrong is called empty, besides
        path, section = _locate(root, tree, error)
        key = (yamltree.place_of(places, tuple(path)), ".".join(map(str, path)))
        told = error["type"] in {"missing", "extra_forbidden", "value_error"}
        received = "" if told else f". Received: {error['input']!r:.80}"
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
        hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
        return f"unknown key; {hint}"
    text: str = error["msg"].removeprefix("Value error, ")
    return text[:1].lower() + text[1:]


def _locate(root: Any, tree: Any, error: Any) -> tuple[list[str | int], Any]:
    """The way to the key in the YAML, without the tags that pydantic adds, and its section."""
    path: list[str | int] = []
    section: Any = root
    choices: list[Any] = []
    node = tree
    for i, part in enumerate(error["loc"]):
        known = getattr(section, "model_fields", {})
        choice = next((c for c in choices if part in _types(c)), None)
        if choice is not None and not (isinstance(node, dict) and part in node):
            section, choices = choice, []  # the tag of a union, which is no key of the YAML
            continue
        free = isinstance(node, dict) and part in node  # a key that the user chose
        named = isinstance(part, int) or part in known or free
        last = i == len(error["loc"]) - 1
        if not named and not (last and error["type"] in {"extra_forbidden", "missing"}):
            continue  # the name of a type in a union
        path.append(part)
        if part in known:
            choices = _sections(known[part].annotation)
            section = choices[0] if len(choices) == 1 else section if last else None
        try:
            node = node[part]
        except (KeyError, IndexError, TypeError):
            node = None
    return path, section


def _sections(annotation: Any) -> list[Any]:
    """The Section classes inside a type such as tuple[Annotated[Conv | ConvTranspose, ...]]."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [s for arg in get_args(annotation) for s in _sections(arg)]


def _types(section: Any) -> tuple[Any, ...]:
    field = section.model_fields.get("type")
    return get_args(field.annotation) if field else ()
