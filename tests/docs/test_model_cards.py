"""docs/pretrained.md and the README of each shipped model are those of the cards."""

import pytest
import yaml

from convae.runs import pretrained
from scripts.docs.model_cards import pages


def test_pages_are_those_of_the_cards() -> None:
    for path, text in pages().items():
        hint = f"{path.name}: run python -m scripts.docs.model_cards"
        assert path.read_text(encoding="utf-8") == text, hint


@pytest.mark.parametrize("name", pretrained.names())
def test_a_readme_has_the_front_matter_of_a_model_card(name: str) -> None:
    card = pretrained.card(name)
    text = (pretrained.FOLDER / f"{name}.md").read_text(encoding="utf-8")
    empty, front, body = text.split("---\n", 2)
    matter = yaml.safe_load(front)
    assert not empty
    assert (matter["license"], matter["library_name"]) == ("mit", "keras")
    assert pretrained.task(card) in matter["tags"]
    (result,) = matter["model-index"][0]["results"]
    assert {one["type"]: one["value"] for one in result["metrics"]} == card["test"]
    assert result["task"]["type"] == matter.get("pipeline_tag", pretrained.task(card))
    assert f'convae.load("{name}")' in body
