"""What a notebook shows of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convae.console import format_html_table, format_number


@dataclass(frozen=True)
class Figure:
    """A figure in a PNG file, which a notebook shows in its place."""

    path: Path

    def _repr_png_(self) -> bytes:
        return self.path.read_bytes()


def describe(
    path: Path,
    manifest: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    metrics: Mapping[str, Any],
) -> str:
    """Return a run as HTML: where it is, how far it is, and its metrics beside the baselines."""
    cells = [("Run", path.name), ("Status", str(manifest.get("status", "not started")))]
    if history:
        best = min(history, key=lambda row: row["val_loss"])
        loss = f"{best['val_loss']:.5f}, excess {best['val_excess']:.5f}, of epoch {best['epoch']}"
        cells += [("Epochs", str(len(history))), ("Lowest validation loss", loss)]
    cells.append(("Folder", str(path)))
    html = format_html_table([(path.parent.name, ""), *cells])
    if test := metrics.get("test"):
        tables = {"this run": test, **metrics.get("baselines", {})}
        head = ("Test split", *(name.replace("_", " ") for name in tables))
        rows = [(m, *(format_number(table.get(m)) for table in tables.values())) for m in test]
        html += format_html_table([head, *rows])
    return html
