"""The JSON Schema of configs and docs/configuration.md are those of today's sections."""

import json
from typing import Any

import jsonschema
import pytest

from convae.config import shipped
from convae.config.yaml_tree import parse
from scripts.docs.config_reference import PAGE, json_schema, page

LAYER = "type: conv, filters: 1, kernel_size"
LAYERS = f"encoder: [{{{LAYER}: 3}}], decoder: [{{{LAYER}: [3, 3]}}]"


def errors(text: str) -> list[str]:
    """What an editor says of a YAML text."""
    validator = jsonschema.Draft7Validator(json.loads(shipped.schema()))
    return [error.message for error in validator.iter_errors(parse(text, "test").keys)]


def test_schema_and_page_are_those_of_today() -> None:
    hint = "run python -m scripts.docs.config_reference"
    assert json.loads(shipped.schema()) == json_schema(), hint
    assert PAGE.read_text(encoding="utf-8") == page(), hint


def test_every_key_is_described() -> None:
    schema = json_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    for name, section in schema["$defs"].items():
        for key, node in section["properties"].items():
            described = schema["$defs"][node["$ref"].split("/")[-1]] if "$ref" in node else node
            assert described.get("description", "").endswith("."), f"{name}.{key}"


@pytest.mark.parametrize("name", shipped.names())
def test_an_editor_accepts_each_shipped_yaml(name: str) -> None:
    assert not errors((shipped.folder() / f"{name}.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (f"model: {{{LAYERS}}}", False),
        (f"model: {{{LAYERS}}}\ntraining: {{learning_rate: 1e-3}}\ndata: {{resize: 64}}", False),
        ("base: anomaly\ntask: {normal_class: 3}", False),  # merged with the task of anomaly
        ("base: mnist\nmodel: {zero_center: true}", False),
        ("base: sweep\nparameters: {seed: {low: 1, high: 9}}\ntrials: 3", False),
        ("training: {epochs: 3}", True),  # no layers, and no base
        ("model: {zero_center: true}", True),
        ("base: mnist\ntraining: {epoch: 3}", True),
        ("base: mnist\ntraining: {epochs: 0}", True),
        ("base: mnist\ntask: {type: denoise, normal_class: 3}", True),
        ("base: mnist\nmodel: {encoder: [{type: conv, filters: 1}]}", True),
        ("parameters: {seed: {low: 1, high: 9}}\ntrails: 3", True),
    ],
)
def test_an_editor_marks_what_is_wrong(text: str, wrong: bool) -> None:
    assert bool(errors(text)) == wrong


def test_a_reference_is_never_beside_other_keys() -> None:
    def walk(node: Any) -> None:
        if isinstance(node, dict):
            assert "$ref" not in node or len(node) == 1
        for part in node.values() if isinstance(node, dict) else node:
            if isinstance(part, dict | list):
                walk(part)

    walk(json_schema())  # draft 7 ignores them
