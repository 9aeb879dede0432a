"""The trials of torture.py: each disturbs some trainings and checks what is left of them."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM

from convae.runs import checkpoint
from convae.runs.run import Run
from tests.stress import faults
from tests.stress.arena import EPOCHS, Arena, Lost
from tests.stress.faults import kill_at

ROOT = Path(__file__).parents[2]


@dataclass
class Row:
    """One line of the table."""

    what: str
    times: int = 0
    lost: list[str] = field(default_factory=list)
    note: str = ""


def kills(arena: Arena, seed: int, count: int) -> Row:
    """SIGKILL `count` times: at random moments, after a step, inside a write; then to the end."""
    row = Row("SIGKILL at a random moment, after a step, or inside a write")
    chance = random.Random(seed)
    run = None
    while row.times < count:
        words = ["--resume", str(run)] if run else arena.new("kills")
        kind = ("moment", "step", "write")[(seed + row.times) % 3]
        if kind == "moment":
            child = arena.start(*words)
            child.wait_for("run: ")
            time.sleep(chance.uniform(0, arena.seconds))
            child.signal(SIGKILL)
        else:
            limit = 80 if kind == "step" else 60
            child = arena.start(*words, before=kill_at(kind, chance.randint(1, limit)))
        code = child.wait()
        run = run or arena.newest("kills")
        if code == -SIGKILL:
            row.times += 1
        elif code != 0:
            raise Lost(f"ended with {code}: {child.tail}")
        if run is None:  # before there was a folder: nothing could be lost
            continue
        arena.check_whole(run)
        if code == 0:
            arena.check_same(run)
            run = None
    if run:
        arena.resume(run)
    return row


def kills_from_start(arena: Arena, seed: int, count: int) -> Row:
    """SIGKILL of whole processes, imports and all."""
    row = Row("SIGKILL of a whole process, from its first second on")
    chance = random.Random(seed)
    run = None
    for i in range(count):
        words = ["--resume", str(run)] if run else arena.new("whole")
        child = arena.spawn(*words)
        if i % 2:  # importing and reading; else training
            child.wait_at_most(chance.uniform(0, 5))
        else:
            child.wait_for("run: ")
            child.wait_at_most(chance.uniform(0, arena.seconds))
        child.signal(SIGKILL)
        if child.wait() == -SIGKILL:
            row.times += 1
        run = arena.newest("whole")
        if run:
            arena.check_whole(run)
    if run:
        arena.resume(run)
    return row


def signals(arena: Arena, seed: int, count: int) -> Row:
    """SIGINT and SIGTERM in mid-training: saved, a hint, and the same bits after a resume."""
    row = Row("SIGINT, SIGTERM in training, validating or saving")
    chance = random.Random(seed)
    for i in range(count):
        child = arena.start(*arena.new("signals"))
        child.wait_for("run: ")
        time.sleep(chance.uniform(0.1, 0.8) * arena.seconds)
        child.signal((SIGINT, SIGTERM)[i % 2])
        code = child.wait()
        run = arena.begun("signals")
        # Before the first step there is nothing to save, and after the last nothing to go on with.
        if code == 1 and "convae train --resume" not in child.log:
            if "Aborted" not in child.log:
                raise Lost(f"no hint after a signal: {child.tail}")
        elif code not in {0, 1, -SIGTERM}:
            raise Lost(f"ended with {code}: {child.tail}")
        arena.check_whole(run)
        arena.resume(run)
        row.times += 1
    return row


def second_signal(arena: Arena, seed: int, count: int) -> Row:
    """A second signal does not wait for the step to end."""
    row = Row("a second signal, of the same or the other kind")
    for i in range(count):
        first, second = (
            (SIGINT, SIGTERM),
            (SIGTERM, SIGTERM),
            (SIGINT, SIGINT),
        )[i % 3]
        child = arena.start(*arena.new("twice"), before=faults.hold)
        child.wait_for("holding")
        child.signal(first)
        child.wait_for("once more to stop at once")
        began = time.monotonic()
        child.signal(second)
        child.wait()
        if time.monotonic() - began > 5:
            raise Lost("the second signal was not heeded at once")
        run = arena.begun("twice")
        arena.resume(run)
        row.times += 1
    return row


def early_signals(arena: Arena, seed: int, count: int) -> Row:
    """Signals while TensorFlow is imported or data are read: gone, without a run half made."""
    row = Row("SIGINT, SIGTERM while importing and reading data")
    for i in range(count):
        child = arena.spawn(*arena.new("early"))
        child.wait_at_most(1 + 1.5 * (i // 2))
        child.signal((SIGINT, SIGTERM)[i % 2])
        began = time.monotonic()
        child.wait()
        if time.monotonic() - began > 20:
            raise Lost("the process went on after the signal")
        row.times += 1
    return row


def full_disk(arena: Arena, seed: int, count: int) -> Row:
    """No space at the n-th write of each kind of file, then space again."""
    row = Row("disk full at a write of each file (ENOSPC)")
    names = ("config.yaml", "manifest.json", "new.npz", "best.keras", "history.csv", "model.keras")
    for i in range(count):
        name, nth = names[i % len(names)], 1 + i // len(names) % 2
        before = arena.newest("full")
        child = arena.start(*arena.new("full"), before=faults.no_space(name, nth))
        arena.expect(child, 0 if name in {"config.yaml", "model.keras"} and nth > 1 else 2)
        run = arena.newest("full")
        if run and run != before:
            arena.check_whole(run)
            arena.resume(run)
        row.times += 1
    return row


def file_size_limit(arena: Arena, seed: int, count: int) -> Row:
    """From some moment on, no file may grow beyond 2,000 bytes: HDF5 meets this inside a write."""
    row = Row("file-size limit from a random moment on (RLIMIT_FSIZE)")
    chance = random.Random(seed)
    for _ in range(count):
        child = arena.start(*arena.new("limit"))
        child.wait_for("run: ")
        time.sleep(chance.uniform(0, 0.7) * arena.seconds)
        child.limit_file_size(2_000)
        if child.wait() not in {0, 2} or "Traceback" in child.log:
            raise Lost(f"no clear message: {child.tail}")
        run = arena.begun("limit")
        arena.check_whole(run)
        arena.resume(run)
        row.times += 1
    return row


def mounted(arena: Arena, seed: int, count: int) -> Row:
    """A small disk that really fills up, then one that turns read-only, in mid-training."""
    row = Row("a tmpfs that fills up, or turns read-only, in mid-run")
    for i in range(count):
        with faults.tmpfs(arena.folder / f"disk-{seed}-{i}") as disk:
            if disk is None:
                row.note = "skipped: mounting is not allowed here"
                return row
            child = arena.start(*arena.new("mounted", disk), before=faults.hold)
            child.wait_for("holding")
            if i % 2:
                with faults.read_only(disk):
                    arena.let_go(child, 2)
            else:
                faults.fill(disk)
                arena.let_go(child, 2)
                (disk / "filler").unlink()
            run = arena.begun("mounted", disk)
            arena.check_whole(run)
            arena.resume(run)
        row.times += 1
    return row


def data_changed(arena: Arena, seed: int, count: int) -> Row:
    """The data cut off, bit-flipped or replaced: between kill and resume, and in mid-run."""
    row = Row("data truncated, bit-flipped, replaced; between kill and resume, and in mid-run")
    chance = random.Random(seed)
    whole = arena.data.read_bytes()
    for i in range(count):
        data = arena.folder / f"data-{seed}-{i}.npz"
        data.write_bytes(whole)
        damage = faults.DAMAGES[i % len(faults.DAMAGES)]
        if i // len(faults.DAMAGES) % 2:  # in mid-run: the images are in memory
            child = arena.start(*arena.new("data"), f"data.path={data}", before=faults.hold)
            child.wait_for("holding")
            data.write_bytes(damage(whole, chance))
            arena.let_go(child, 0)
            run = arena.begun("data")
            arena.check_same(run)
        else:
            killed = kill_at("step", 70)
            arena.start(*arena.new("data"), f"data.path={data}", before=killed).wait()
            run = arena.begun("data")
            data.write_bytes(damage(whole, chance))
            arena.expect(arena.start("--resume", str(run)), 2)
            arena.check_whole(run)
            data.write_bytes(whole)
            arena.resume(run)
        row.times += 1
    return row


def damaged_checkpoint(arena: Arena, seed: int, count: int) -> Row:
    """One bit of the newest checkpoint flipped: noticed, wherever it is; then the one before."""
    row = Row("a flipped bit in the newest checkpoint")
    chance = random.Random(seed)
    arena.start(*arena.new("flip"), before=kill_at("step", 100)).wait()
    run = arena.begun("flip")
    latest = run / "checkpoint/latest.npz"
    whole = latest.read_bytes()
    for _ in range(count):
        flipped = faults.flip(whole, chance)
        try:
            checkpoint.unpack(flipped)
        except ValueError:
            row.times += 1
            continue
        raise Lost("a flipped bit went unnoticed")
    latest.write_bytes(faults.flip(whole, chance))
    child = arena.resume(run)
    if "going on from the checkpoint before it" not in child.log:
        raise Lost("the damage was not told")
    for path in (run / "checkpoint").iterdir():
        path.write_bytes(faults.flip(path.read_bytes(), chance))
    arena.expect(arena.start("--resume", str(run)), 2)
    arena.check_best(run)
    row.note = "one of them resumed to the end; with both checkpoints damaged: exit 2, best kept"
    return row


def memory_limit(arena: Arena, seed: int, count: int) -> Row:
    """Too little memory (RLIMIT_AS): however it ends, it goes on where there is enough."""
    row = Row("memory limit (RLIMIT_AS), then enough")
    codes = []
    for i in range(count):
        child = arena.start(
            *arena.new("memory"), before=faults.less_memory((20, 60, 150, 400)[i % 4])
        )
        codes.append(child.wait())
        run = arena.newest("memory")
        if run and not (run / "model.keras").exists():
            arena.check_whole(run)
            arena.resume(run)
        row.times += 1
    row.note = f"exit codes {sorted(set(codes))}"
    return row


def clock_back(arena: Arena, seed: int, count: int) -> Row:
    """A clock that goes back an hour whenever it is read."""
    row = Row("clock that goes back an hour at each look")
    ids = []
    for _ in range(count):
        child = arena.start(*arena.new("clock"), before=faults.clock_back)
        arena.expect(child, 0)
        run = arena.begun("clock")
        ids.append(run.name)
        link = (run.parent / "latest").resolve().name
        if str(run) not in child.log or link != run.name:
            raise Lost(f"the newest run is {run.name}, latest is {link}")
        if run.name in ids[:-1] or any(r["seconds"] < 0 for r in Run(run).history):
            raise Lost("an id came again, or a time is negative")
        arena.check_same(run)
        row.times += 1
    return row


def two_trainings(arena: Arena, seed: int, count: int) -> Row:
    """A second process on a run that is being trained is refused; eval is not."""
    row = Row("a second training, and an eval, of a run in training")
    for i in range(count):
        child = arena.start(*arena.new("two"), before=faults.hold)
        child.wait_for("holding")
        run = arena.begun("two")
        second = arena.start("--resume", str(run))
        arena.expect(second, 2)
        if f"({child.pid} on " not in second.log:
            raise Lost(f"the message does not name the process: {second.tail}")
        if i == 0:
            arena.expect(arena.start(str(run), command="eval"), 0)
        arena.let_go(child, 0)
        arena.check_same(run)
        row.times += 1
    return row


def other_arithmetic(arena: Arena, seed: int, count: int) -> Row:
    """Resumed with another precision or number of threads: allowed, told and recorded."""
    row = Row("resumed with the other precision, or other threads")
    for i in range(count):
        change = ("runtime.precision=mixed_bfloat16", "runtime.threads=3")[i % 2]
        arena.start(*arena.new("other"), before=kill_at("step", 90)).wait()
        run = arena.begun("other")
        child = arena.start("--resume", str(run), change)
        arena.expect(child, 0)
        last = Run(run).manifest["resumptions"][-1]
        if last["bit_identical"] or "not be bit-identical" not in child.log:
            raise Lost("other arithmetic was not recorded")
        if len(Run(run).history) != EPOCHS:
            raise Lost("epochs are missing")
        row.times += 1
    return row


def reruns(arena: Arena, seed: int, count: int) -> Row:
    """The same command in two processes, and once more with a kill between."""
    row = Row("the same command twice, and with a kill: float32, bfloat16")
    for i in range(count):
        precision = f"runtime.precision={('float32', 'mixed_bfloat16')[i % 2]}"
        hashes = []
        for start in (arena.spawn, arena.start):
            arena.expect(start(*arena.new("rerun"), precision), 0)
            hashes.append(arena.weights("rerun"))
        arena.start(*arena.new("rerun"), precision, before=kill_at("step", 100)).wait()
        run = arena.begun("rerun")
        arena.expect(arena.start("--resume", str(run)), 0)
        hashes.append(arena.weights("rerun"))
        if len(set(hashes)) > 1:
            raise Lost(f"{precision}: other weights")
        row.times += 3
    return row


def cost(arena: Arena, seed: int, count: int) -> Row:
    """The share of the training that goes into files, at the default size, for one epoch."""
    words = [
        f"training.epochs={count}",
        f"output.folder={arena.folder / 'cost'}",
        "data.download=false",
    ]
    child = arena.start(str(ROOT / "configs/mnist.yaml"), *words, before=faults.timed_saves)
    arena.expect(child, 0)
    saving = float(child.log.split("seconds in saves: ")[-1].split()[0])
    history = Run(next((arena.folder / "cost/mnist").glob("*/config.yaml")).parent).history
    seconds = sum(row["seconds"] for row in history) + saving
    row = Row("cost of saving after every epoch, configs/mnist.yaml", count)
    row.note = f"{saving:.2f} s of {seconds:.1f} s: {saving / seconds:.2%}"
    if saving > 0.02 * seconds:
        row.lost.append("saving takes more than 2 % of the training")
    return row
