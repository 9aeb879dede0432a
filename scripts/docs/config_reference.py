"""Write the JSON Schema of configs and sweeps, and docs/configuration.md, from their sections.

python -m scripts.docs.config_reference    # tests/docs/test_config_reference.py finds stale files

Types, ranges and defaults are those of the pydantic sections, descriptions their docstrings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from pydantic.json_schema import models_json_schema

from convae import __version__
from convae.config import shipped
from convae.config.schema import Config
from convae.sweep.space import Sweep
from scripts.project import CONFIGS, ROOT, format_markdown, write_between

PAGE = ROOT / "docs/configuration.md"
BEGIN, END = "<!-- written by scripts/docs/config_reference.py -->", "<!-- end -->"
BASE = {
    "type": "string",
    "description": "A YAML file or a shipped config, over which this one is merged: mappings key "
    "by key, all else as a whole.",
}
REF = "#/$defs/"
Node = dict[str, Any]


def json_schema() -> Node:
    """Return the schema of a config or a sweep, as draft 7 has it, which editors know best."""
    _, schemas = models_json_schema([(Config, "validation"), (Sweep, "validation")])
    sections = {name: _draft_7(section) for name, section in schemas["$defs"].items()}
    for section in sections.values():
        properties = section["properties"]
        if "type" in properties:
            properties["type"]["description"] = _first_paragraph(section)
        if section.get("required") == ["type"]:  # a file over a `base:` may leave it out
            del section["required"]
    config, sweep = sections["Config"], sections["Sweep"]
    for file in (config, sweep):
        file["properties"] = {"base": BASE, **file["properties"]}
    layers = sections["Model"].pop("required")
    complete = {"required": ["model"], "properties": {"model": {"required": layers}}}
    del config["required"]
    config["anyOf"] = [{"required": ["base"]}, complete]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "convae",
        "version": __version__,
        "description": "A config of convae, or with `parameters` a sweep.",
        "if": {"required": ["parameters"]},
        "then": {"$ref": f"{REF}Sweep"},
        "else": {"$ref": f"{REF}Config"},
        "$defs": sections,
    }


def _draft_7(node: Any) -> Any:
    """Return a part of pydantic's schema in the words of draft 7, without generated titles."""
    if isinstance(node, list):
        return [_draft_7(item) for item in node]
    if not isinstance(node, dict):
        return node
    part = {key: _draft_7(value) for key, value in node.items() if key != "discriminator"}
    if isinstance(part.get("title"), str):
        del part["title"]
    if "prefixItems" in part:
        part["items"] = part.pop("prefixItems")
    if "oneOf" in part:  # without a type, any of them may be meant
        part["anyOf"] = part.pop("oneOf")
    if "$ref" in part:  # draft 7 ignores what is beside a $ref
        part = {"$ref": part["$ref"]}
    return part


def page() -> str:
    """Return docs/configuration.md with the tables of today."""
    sections = json_schema()["$defs"]
    titles: dict[str, str] = {}
    for name in ("Config", "Sweep"):
        _add_titles(titles, name, name.lower(), sections)
    blocks = [_format_section(name, titles, sections) for name in titles]
    return write_between(PAGE.read_text(encoding="utf-8"), BEGIN, "\n\n".join(blocks), END)


def _add_titles(titles: dict[str, str], name: str, key: str, sections: Node) -> None:
    """Add the title of a section, such as "task: denoise", and those of the sections below it."""
    if name in titles:
        return
    properties = sections[name]["properties"]
    type_ = properties.get("type", {}).get("const")
    titles[name] = f"{key}: {type_}" if type_ else key
    for below, node in properties.items():
        path = below if key == "config" else f"{key}.{below}"
        for section in _references(node):
            _add_titles(titles, section, "layer" if node.get("type") == "array" else path, sections)


def _references(node: Any) -> Iterator[str]:
    """Yield the names of the sections in a part of the schema."""
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"].removeprefix(REF)
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from _references(part)


def _format_section(name: str, titles: dict[str, str], sections: Node) -> str:
    section = sections[name]
    rows = []
    for key, node in section["properties"].items():
        described = sections[node["$ref"].removeprefix(REF)] if "$ref" in node else node
        values, default = _format_values(node, titles), _format_default(key, node, section)
        rows.append((f"`{key}`", values, default, _first_paragraph(described)))
    table = format_markdown(("key", "value", "default", "description"), rows)
    return f"### {titles[name]}\n\n{section['description']}\n\n{table}"


def _first_paragraph(node: Node) -> str:
    return str(node["description"]).partition("\n\n")[0].replace("\n", " ")


def _format_default(key: str, node: Node, section: Node) -> str:
    if "default" in node:
        return _format_json(node["default"])
    return "required" if key in section.get("required", ()) else ""


def _format_json(value: Any) -> str:
    return f"`{json.dumps(value)}`".replace('"', "")


def _format_values(node: Node, titles: dict[str, str]) -> str:
    """Return the type and range of a value, such as "`auto` or integer from 1 to 256"."""
    if "$ref" in node:
        title = titles[node["$ref"].removeprefix(REF)]
        anchor = re.sub("[.:]", "", title).replace(" ", "-")
        return f"[{title.rpartition(': ')[2]}](#{anchor})"
    if "anyOf" in node:
        return " or ".join(dict.fromkeys(_format_values(one, titles) for one in node["anyOf"]))
    if "const" in node or "enum" in node:
        values = node.get("enum") or [node["const"]]
        return (" or " if len(values) == 2 else ", ").join(map(_format_json, values))
    items = node.get("items")
    match node.get("type"):
        case "array" if isinstance(items, list):
            parts = [_format_values(item, titles) for item in items]
            same = f"list of {len(parts)} ({parts[0]})"
            return same if len(set(parts)) == 1 else f"[{', '.join(parts)}]"
        case "array":
            return f"list of {_format_values(items, titles)}" if items else "list"
        case "object":
            return f"mapping to {_format_values(node['additionalProperties'], titles)}"
        case "integer" | "number" as kind:
            return f"{kind}{_format_range(node)}"
        case "boolean":
            return "`true` or `false`"
        case "null":
            return "`null`"
    return "text"


def _format_range(node: Node) -> str:
    to = " to" if "minimum" in node else " up to"
    words = {"minimum": " from", "exclusiveMinimum": " above", "maximum": to}
    text = "".join(f"{word} {node[key]:,}" for key, word in words.items() if key in node)
    if "exclusiveMaximum" in node:
        text += f"{' and' if text else ''} below {node['exclusiveMaximum']:,}"
    return text


def main() -> None:
    """Write both files."""
    schema = json.dumps(json_schema(), indent=1) + "\n"
    for path, text in ((CONFIGS / shipped.SCHEMA, schema), (PAGE, page())):
        path.write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
