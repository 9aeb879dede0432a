"""Disturb trainings and report what is lost: kills, full disks, changed data, ... `make stress`

    python -m tests.stress.stress              # everything: six minutes on two cores
    python -m tests.stress.stress --quick      # a little of each, in a minute

Prints a table of what was tried, how often, and what was lost; exits 1 if anything was. Nothing is
lost if the run, resumed, ends with the weights of an undisturbed one to the last bit, still has the
best model, and keeps every finished epoch.

The trainings are processes, forked from one that has imported TensorFlow but not used it, so that a
hundred kills do not cost a hundred imports. Faults come from outside the package: signals, limits,
mounts, and replaced functions of the forked process.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from convae.errors import ConvaeError
from convae.runtime.hardware import core_count
from scripts.project import describe_machine, format_markdown, write_json
from tests.stress.sandbox import Lost, Sandbox
from tests.stress.scenarios import SCENARIOS

Row = dict[str, Any]  # what was tried, how many times, what was lost, a note


def attempt(name: str, folder: Path, seed: int, count: int) -> Row:
    """Run one round of a scenario, in a folder of its own."""
    scenario = SCENARIOS[name]
    sandbox = Sandbox.create(folder, name, seed, count)
    times, lost = 0, []
    try:
        for passed in scenario.run(sandbox):
            times += passed
    except (Lost, ConvaeError, AssertionError, TimeoutError) as error:
        lost.append(f"{name}, seed {seed}: {error!s:.1500}")
    return {"what": scenario.title, "times": times, "lost": lost, "note": sandbox.note}


def main() -> int:
    """Run the scenarios, print the table and write it as JSON; return 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=min(2, core_count()), help="side by side")
    parser.add_argument("--output", type=Path, default=Path("outputs/guarantees.json"))
    arguments = parser.parse_args()
    # A killed training cannot clean up the locks of its progress bar.
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"
    began = time.monotonic()
    rows: dict[str, Row] = {}
    # A fresh process each: its forks must not share threads or a fork server.
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as temporary,
        ProcessPoolExecutor(arguments.workers, context) as pool,
    ):
        folder = Path(temporary)
        pool.submit(Sandbox.prepare, folder).result()
        started = {}
        for name in arguments.only:
            scenario = SCENARIOS[name]
            count, rounds = scenario.quick if arguments.quick else scenario.full
            for seed in range(1000 * arguments.seed, 1000 * arguments.seed + rounds):
                rows[name] = {"what": scenario.title, "times": 0, "lost": [], "note": ""}
                started[pool.submit(attempt, name, folder, seed, count)] = name
        for future in as_completed(started):
            row, total = future.result(), rows[started[future]]
            total["times"] += row["times"]
            total["lost"] += row["lost"]
            total["note"] = row["note"] or total["note"]
            print(f"{started[future]}: {row['times']}, lost {len(row['lost'])}", file=sys.stderr)
    cells = [(r["what"], f"{r['times']:,}", len(r["lost"]), r["note"]) for r in rows.values()]
    print(format_markdown(("what was tried", "how often", "lost", ""), cells))
    for row in rows.values():
        for text in row["lost"]:
            print(f"LOST: {row['what']}: {text}")
    machine, minutes = describe_machine(), round((time.monotonic() - began) / 60, 1)
    print(f"\n{machine}; {minutes} minutes")
    result = {"machine": machine, "minutes": minutes, "quick": arguments.quick}
    write_json(arguments.output, result | {"rows": list(rows.values())})
    return int(any(row["lost"] for row in rows.values()))


if __name__ == "__main__":
    raise SystemExit(main())
