"""What is lost when a training is killed, starved, cheated or disturbed? `make torture`

    python -m tests.stress.stress              # everything: six minutes on two cores
    python -m tests.stress.stress --quick      # a little of each, in a minute

Prints a table: what was tried, how often, and what was lost; exits 1 if anything was. Nothing is
lost if the run, resumed, ends with the weights of an undisturbed one to the last bit, still has the
best model, and never goes back behind an epoch that was finished.

The trainings are processes of their own: forked from one that has TensorFlow imported already but
has not used it, so that a hundred kills do not cost a hundred imports. Faults are put in from
outside: by signals, limits and mounts, and by counting the calls that write in the forked process.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from convae.errors import ConvaeError
from convae.runtime.plan import cores, cpu_info
from tests.stress import trials
from tests.stress.arena import Arena, Lost, import_heavy
from tests.stress.trials import Row

# What to try, how often in one go, and how many goes: in all, and for --quick.
Trial = Callable[[Arena, int, int], Row]
PLAN: list[tuple[Trial, tuple[int, int], tuple[int, int]]] = [
    (trials.kills, (10, 9), (4, 1)),
    (trials.kills_from_start, (5, 2), (0, 0)),
    (trials.signals, (5, 2), (1, 1)),
    (trials.second_signal, (3, 1), (1, 1)),
    (trials.early_signals, (6, 1), (0, 0)),
    (trials.full_disk, (6, 2), (1, 1)),
    (trials.file_size_limit, (3, 2), (0, 0)),
    (trials.mounted, (4, 1), (1, 1)),
    (trials.data_changed, (6, 1), (1, 1)),
    (trials.damaged_checkpoint, (2000, 1), (100, 1)),
    (trials.memory_limit, (4, 1), (0, 0)),
    (trials.clock_back, (3, 1), (1, 1)),
    (trials.two_trainings, (2, 1), (0, 0)),
    (trials.other_arithmetic, (2, 1), (1, 1)),
    (trials.reruns, (2, 1), (0, 0)),
    (trials.cost, (1, 1), (0, 0)),
]


def attempt(task: tuple[int, Path, int, int]) -> tuple[int, Row]:
    """One go of a trial, in a folder of its own."""
    index, folder, seed, count = task
    trial = PLAN[index][0]
    arena = Arena.of(folder, f"{trial.__name__}-{seed}")
    try:
        return index, trial(arena, seed, count)
    except (Lost, ConvaeError, AssertionError, TimeoutError) as error:
        what = (trial.__doc__ or "").splitlines()[0]
        return index, Row(what, 1, [f"{trial.__name__}, seed {seed}: {error!s:.1500}"])


def main() -> int:
    """Try everything, print the table, write it as JSON; 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", help="names of trials, such as kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lanes", type=int, default=min(2, cores()), help="trials side by side")
    parser.add_argument("--output", type=Path, default=Path("outputs/reliability.json"))
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        import_heavy()
        Arena.prepare(folder)
        tasks = []
        for index, (trial, full, quick) in enumerate(PLAN):
            count, goes = quick if arguments.quick else full
            if not arguments.only or trial.__name__ in arguments.only:
                seeds = range(1000 * arguments.seed, 1000 * arguments.seed + goes)
                tasks += [(index, folder, seed, count) for seed in seeds]
        rows: dict[int, Row] = {}
        with multiprocessing.get_context("fork").Pool(arguments.lanes) as pool:
            for index, row in pool.imap_unordered(attempt, tasks, chunksize=1):
                print(
                    f"{PLAN[index][0].__name__}: {row.times}, lost {len(row.lost)}", file=sys.stderr
                )
                if known := rows.get(index):
                    known.times += row.times
                    known.lost += row.lost
                else:
                    rows[index] = row
    ordered = [row for _, row in sorted(rows.items())]
    print("| what was tried | how often | lost | |\n|---|---|---|---|")
    for row in ordered:
        print(f"| {row.what} | {row.times:,} | {len(row.lost)} | {row.note} |")
    for row in ordered:
        for text in row.lost:
            print(f"LOST: {row.what}: {text}")
    machine = f"{cpu_info()[0]}, {cores()} cores, Python {platform.python_version()}"
    minutes = (time.monotonic() - began) / 60
    print(f"\n{machine}; {minutes:.1f} minutes")
    result = {"machine": machine, "minutes": round(minutes, 1), "quick": arguments.quick}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(
        json.dumps({**result, "rows": [asdict(row) for row in ordered]}, indent=2) + "\n"
    )
    return int(any(row.lost for row in ordered))


if __name__ == "__main__":
    raise SystemExit(main())
