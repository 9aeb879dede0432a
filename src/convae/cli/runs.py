"""The list of runs that `convae runs` prints, from the runs' files alone."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from filelock import lock_descriptor

from convae.console import format_duration, format_number, format_table
from convae.errors import ConvaeError
from convae.evaluation.report import HEADLINES
from convae.runs.run import Run

UNKNOWN = dict.fromkeys(("epochs", "val_loss", "metric", "seconds", "data"))


def describe_runs(folder: str = "outputs") -> list[dict[str, Any]]:
    """Return a row for each run in `folder`, the newest last.

    Returns:
        Rows of name, id, status, epochs_done, epochs, val_loss (the lowest), metric (of the test
        split, by name), seconds, data, path, and for a damaged run `problem`. What is not known
        is None.
    """
    return [describe_run(run) for run in Run.all(folder)]


def describe_run(run: Run) -> dict[str, Any]:
    """Return the row of one run."""
    name, id_ = run.path.parent.name, run.path.name
    row = {"name": name, "id": id_, "status": "damaged", "epochs_done": 0, **UNKNOWN}
    row["path"] = str(run.path)
    try:
        manifest, history, test = run.manifest, run.history, run.metrics.get("test", {})
        row |= {
            "epochs_done": len(history),
            "val_loss": min((epoch["val_loss"] for epoch in history), default=None),
            "metric": {name: test[name] for name in HEADLINES if name in test} or None,
            "seconds": manifest.get("seconds"),
            "data": manifest.get("data", {}).get("name"),
            "epochs": run.config.training.epochs,
            "status": manifest.get("status", "not known" if history else "not started"),
        }
        if row["status"] == "running" and _was_killed(run):
            row["status"] = "killed"
    except (ConvaeError, KeyError, AttributeError) as error:
        row["problem"] = str(error)
    return row


def _was_killed(run: Run) -> bool:
    """Return whether the run has a lock that no process holds."""
    try:
        with (run.path / "lock").open() as file:
            return lock_descriptor(file.fileno(), blocking=False)
    except OSError:  # no lock, or a file system without locks
        return False


def format_runs(rows: Sequence[Mapping[str, Any]], folder: str) -> str:
    """Return the rows of the runs in `folder` as a table."""
    if not rows:
        return f"no run in {folder}/ yet"
    cells: list[tuple[str, ...]] = [
        ("Name", "Id", "Status", "Epochs", "Val_loss", "Test metric", "Time", "Data")
    ]
    for row in rows:
        metric, value = next(iter((row["metric"] or {"": None}).items()))
        epochs = f"{row['epochs_done']}/{row['epochs'] or '?'}"
        run = (row["name"], row["id"], row["status"], epochs, format_number(row["val_loss"]))
        score = f"{metric} {format_number(value)}".strip()
        duration = format_duration(row["seconds"]) if row["seconds"] else ""
        cells.append((*run, score, duration, row["data"] or ""))
    problems = [f"{row['id']}: {row['problem']}" for row in rows if "problem" in row]
    return "\n".join([format_table(cells), *problems])


def next_command(rows: Sequence[Mapping[str, Any]], folder: str = "outputs") -> str:
    """Return the command to suggest after the list of these runs in `folder`."""
    usable = [row for row in rows if row["status"] != "damaged"]
    if not usable:
        return "convae train mnist"
    last, key = usable[-1], "id" if folder == "outputs" else "path"
    evaluated = [row[key] for row in usable if row["metric"]]
    if last["status"] in ("interrupted", "killed"):
        words = ["train", "--resume", last[key]]
    elif not last["metric"]:
        words = ["eval", last[key]]
    elif len(evaluated) > 1:
        words = ["compare", *evaluated[-2:]]
    else:
        words = ["report", last[key]]
    return shlex.join(["convae", *words])
