"""The command `pretrained`: what the shipped weights are."""

from __future__ import annotations

import json

from convae.cli.options import Json
from convae.console import format_table, suggest


def pretrained(as_json: Json = False) -> None:
    """List the shipped weights with their test metrics."""
    from convae.runs.pretrained import LICENSE, card, names, task

    cards = [card(name) for name in names()]
    if as_json:
        keys = ("name", "summary", "bytes", "test")
        rows = [
            {**{key: one[key] for key in keys}, "task": task(one), "license": LICENSE}
            for one in cards
        ]
        print(json.dumps(rows, indent=2))
    else:
        cells = [
            (
                one["name"], task(one), one["summary"].partition(": ")[2],
                f"{one['bytes'] / 1000:.0f} kB", LICENSE,
            )
            for one in cards
        ]  # fmt: skip
        print(format_table([("Name", "Task", "On MNIST's test split", "Size", "License"), *cells]))
    suggest("convae predict pretrained:denoise FILES", silent=as_json)
