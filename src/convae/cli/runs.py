"""The list of runs that `convae runs` prints, from their files alone."""

from __future__ import annotations

import fcntl
from collections.abc import Mapping, Sequence
from typing import Any

from convae.console import format_duration, format_number, format_table
from convae.errors import ConvaeError
from convae.evaluation.report import HEADLINES
from convae.runs.run import Run


def rows(folder: str = "outputs") -> list[dict[str, Any]]:
    """What is known of each run in `folder`, the newest last; None where it is not known.

    A run whose files are damaged is listed as such: one bad folder must not hide the others.
    """
    return [row(run) for run in Run.all(folder)]


def row(run: Run) -> dict[str, Any]:
    """One run: name, id, status, epochs, val_loss, metric, seconds, data, path."""
    found: dict[str, Any] = {
        "name": run.path.parent.name,
        "id": run.path.name,
        "status": "damaged",
        "epochs_done": 0,
        "epochs": None,
        "val_loss": None,
        "metric": None,
        "seconds": None,
        "data": None,
        "path": str(run.path),
    }
    try:
        manifest, history, test = run.manifest, run.history, run.metrics.get("test", {})
        found |= {
            "epochs_done": len(history),
            "val_loss": min((r["val_loss"] for r in history), default=None),
            "metric": {name: test[name] for name in HEADLINES if name in test} or None,
            "seconds": manifest.get("seconds"),
            "data": manifest.get("data", {}).get("name"),
            "epochs": run.config.training.epochs,
            "status": manifest.get("status", "not begun"),
        }
        if found["status"] == "running" and _is_abandoned(run):
            found["status"] = "killed"
    except (ConvaeError, KeyError, AttributeError) as error:
        found["problem"] = str(error)
    return found


def _is_abandoned(run: Run) -> bool:
    """Whether no process holds the run's lock any more; a run without a lock may still go on."""
    try:
        with (run.path / "lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # no lock, somebody's, or a file system without locks
        return False
    return True


def table(found: Sequence[Mapping[str, Any]], folder: str) -> str:
    """The list as text."""
    if not found:
        return f"no run in {folder}/ yet"
    cells: list[tuple[str, ...]] = [
        ("Name", "Id", "Status", "Epochs", "Val_loss", "Test metric", "Time", "Data")
    ]
    for r in found:
        metric = next(iter((r["metric"] or {"": None}).items()))
        cells.append(
            (
                r["name"],
                r["id"],
                r["status"],
                f"{r['epochs_done']}/{r['epochs'] or '?'}",
                format_number(r["val_loss"]),
                f"{metric[0]} {format_number(metric[1])}".strip(),
                format_duration(r["seconds"]) if r["seconds"] else "",
                r["data"] or "",
            )
        )
    return format_table(cells)


def next_command(found: Sequence[Mapping[str, Any]]) -> str:
    """What one would do with these runs."""
    if not found:
        return "convae train configs/mnist.yaml"
    measured = [r["id"] for r in found if r["metric"]]
    last = found[-1]
    if last["status"] in ("interrupted", "killed"):
        return f"convae train --resume {last['id']}"
    if not last["metric"]:
        return f"convae eval {last['id']}"
    if len(measured) > 1:
        return f"convae compare {' '.join(measured[-2:])}"
    return f"convae report {last['id']}"
