"""Write docs/pretrained.md, and a README in the form of Hugging Face for each shipped model.

python -m scripts.docs.model_cards    # tests/docs/test_model_cards.py finds stale files

All of it comes from the cards that scripts/release/pretrained.py writes. Nothing is uploaded: to
publish a model, upload NAME.keras, and NAME.md as its README.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from convae.config.loader import parse_config
from convae.runs import pretrained
from convae.tasks import build_task
from scripts.project import ROOT, format_markdown

Card = dict[str, Any]
PIPELINES = {
    "reconstruct": "image-to-image", "denoise": "image-to-image", "upscale": "image-to-image",
    "segment": "image-segmentation", "generate": "unconditional-image-generation",
}  # fmt: skip
USE = """```python
import convae  # pip install convae

autoencoder = convae.load("{name}")  # or a path to {name}.keras
outputs = autoencoder.reconstruct(images)  # of gray values from 0 to 255
```

`{name}.keras` holds plain Keras layers: `keras.models.load_model("{name}.keras")` opens it without
convae."""


def pages() -> dict[Path, str]:
    """Return the text of each file by its path."""
    cards = [pretrained.card(name) for name in pretrained.names()]
    readmes = {pretrained.FOLDER / f"{card['name']}.md": readme(card) for card in cards}
    return {ROOT / "docs/pretrained.md": overview(cards), **readmes}


def overview(cards: list[Card]) -> str:
    """Return docs/pretrained.md."""
    rows = []
    for card in cards:
        name, made = card["name"], card["manifest"]
        rows.append((
            f"[`{name}`](#{name})", card["summary"], f"{made['parameters']:,}",
            f"{card['bytes'] / 1000:.0f} kB", f"{made['seconds']:.0f} s",
            f"{made['runtime']['device_name']}, {made['precision']}",
        ))  # fmt: skip
    head = ("name", "result", "parameters", "size", "trained in", "on")
    parts = [
        "# Pretrained weights",
        "Made by `make pretrained`. Each file holds plain Keras layers and opens without convae, "
        "in Keras 3.5 and newer. "
        'The command line takes it as `pretrained:NAME`, Python as `convae.load("NAME")`. '
        f"`convae pretrained` lists them. License: {pretrained.LICENSE}.",
        "Quality is measured on MNIST's own 10,000 test digits. The 1,000 test digits of the "
        "bundled sample come from MNIST's training split, and most of these weights were trained "
        "on them: metrics on the sample check the files, not the quality.",
        format_markdown(head, rows),
    ]
    for card in cards:
        name = card["name"]
        config = f"Config: [configs/{name}.yaml](../configs/{name}.yaml)."
        parts += [
            f"## {name}", card["summary"], metrics_table(card), f"{provenance(card)} {config}"
        ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def readme(card: Card) -> str:
    """Return the README of a model, with the front matter that Hugging Face reads."""
    name, task = card["name"], pretrained.task(card)
    results = [{"type": metric, "value": value} for metric, value in card["test"].items()]
    matter: Card = {
        "license": pretrained.LICENSE.lower(),
        "library_name": "keras",
        "tags": ["convae", "autoencoder", "convolutional-autoencoder", task],
        "datasets": ["mnist"],
        "metrics": list(card["test"]),
        "model-index": [{
            "name": f"convae-{name}",
            "results": [{
                "task": {"type": PIPELINES.get(task, task)},
                "dataset": {"name": "MNIST", "type": "mnist", "split": "test"},
                "metrics": results,
            }],
        }],
    }  # fmt: skip
    if task in PIPELINES:
        matter["pipeline_tag"] = PIPELINES[task]
    front = yaml.safe_dump(matter, sort_keys=False, width=100)
    body = (f"# convae-{name}", f"{card['summary']}.", USE.format(name=name))
    tail = ("## Metrics", metrics_table(card), "## Training", provenance(card))
    return f"---\n{front}---\n\n" + "\n\n".join((*body, *tail)) + "\n"


def metrics_table(card: Card) -> str:
    """Return the test metrics of a model and of its baselines."""
    metrics = list(card["test"])
    columns = {"these weights": card["test"], **card["baselines"]}
    words = {"these weights": "these weights", **card["baseline_descriptions"]}
    rows = [
        (words[name], *(f"{table[metric]:.5g}" for metric in metrics))
        for name, table in columns.items()
    ]
    table = format_markdown(("on MNIST's 10,000 test digits", *metrics), rows)
    task = build_task(parse_config(card["config"], card["name"]))
    more = [f"- {line}" for line in task.format_extra_metrics(card)]
    return "\n".join([table, *([""] if more else []), *more])


def provenance(card: Card) -> str:
    """Return how a model was trained."""
    made = card["manifest"]
    versions = ", ".join(f"{key} {value}" for key, value in made["versions"].items())
    return (
        f"Trained by `{made['command']}` at commit {str(made['git_commit'])[:9]}, seed "
        f"{made['seed']}, in {made['seconds']:.0f} s on {made['runtime']['device_name']} "
        f"({made['precision']}); {versions}. Data {made['data']['name']}, "
        f"SHA-256 `{made['data_sha256'][:16]}...`; weights `{made['weights_sha256'][:16]}...`."
    )


def main() -> None:
    """Write all files."""
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
