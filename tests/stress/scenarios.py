"""The scenarios of the stress suite: each disturbs trainings and checks what they leave.

A scenario yields the number of repetitions that passed, and raises Lost for one that did not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from signal import SIGINT, SIGKILL, SIGTERM
from typing import NamedTuple

from convae.runs import checkpoint
from convae.runs.run import Run
from scripts.project import CONFIGS
from tests.stress import faults
from tests.stress.sandbox import EPOCHS, Child, Lost, Sandbox, weights

Steps = Iterator[int]
Function = Callable[[Sandbox], Steps]


class Scenario(NamedTuple):
    """A function, its title in the table, and how often it runs: (repetitions, rounds)."""

    title: str
    run: Function
    full: tuple[int, int]
    quick: tuple[int, int]  # with --quick; no rounds: left out


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    title: str, full: tuple[int, int], quick: tuple[int, int] = (0, 0)
) -> Callable[[Function], Function]:
    """Register a function under its name."""

    def register(function: Function) -> Function:
        SCENARIOS[function.__name__] = Scenario(title, function, full, quick)
        return function

    return register


@scenario("SIGKILL at a random moment, after a step, or inside a write", (10, 9), (4, 1))
def kills(sandbox: Sandbox) -> Steps:
    run, times = None, 0
    while times < sandbox.count:
        kind = ("moment", "step", "write")[(sandbox.seed + times) % 3]
        fault = None
        if kind != "moment":
            count = sandbox.random.randint(1, 80 if kind == "step" else 60)
            fault = partial(faults.kill_at, kind, count)
        child = sandbox.resume(run, fault=fault) if run else sandbox.train(fault=fault)
        if kind == "moment":
            child.wait_for_text("run: ")
            time.sleep(sandbox.random.uniform(0, sandbox.seconds))
            child.signal(SIGKILL)
        code = child.wait()
        run = run or sandbox.newest()
        if code == -SIGKILL:
            times += 1
            yield 1
        elif code != 0:
            raise child.lost(f"ended with {code}")
        if run:  # else killed before there was a folder
            sandbox.check_complete(run)
        if run and code == 0:
            sandbox.check_same(run)
            run = None
    if run:
        sandbox.finish(run)


@scenario("SIGKILL of a complete process, from its first second on", (5, 2))
def kills_from_start(sandbox: Sandbox) -> Steps:
    run = None
    for i in range(sandbox.count):
        child = sandbox.spawn(run=run)
        if i % 2 == 0:
            child.wait_for_text("run: ")
        child.pause(sandbox.random.uniform(0, 5 if i % 2 else sandbox.seconds))
        child.signal(SIGKILL)
        if child.wait() == -SIGKILL:
            yield 1
        if run := sandbox.newest():
            sandbox.check_complete(run)
    if run:
        sandbox.finish(run)


@scenario("SIGINT, SIGTERM in training, validating or saving", (5, 2), (1, 1))
def signals(sandbox: Sandbox) -> Steps:
    for i in range(sandbox.count):
        child = sandbox.train()
        child.wait_for_text("run: ")
        time.sleep(sandbox.random.uniform(0.1, 0.8) * sandbox.seconds)
        child.signal((SIGINT, SIGTERM)[i % 2])
        code = child.wait()
        # Before the first step there is nothing to save, and after the last nothing to resume.
        if code == 1 and "convae train --resume" not in child.log:
            if "Aborted" not in child.log:
                raise child.lost("no hint after a signal")
        elif code not in {0, 1, -SIGTERM}:
            raise child.lost(f"ended with {code}")
        sandbox.finish(sandbox.run())
        yield 1


@scenario("a second signal, of the same or the other kind", (3, 1), (1, 1))
def second_signal(sandbox: Sandbox) -> Steps:
    pairs = ((SIGINT, SIGTERM), (SIGTERM, SIGTERM), (SIGINT, SIGINT))
    for i in range(sandbox.count):
        first, second = pairs[i % len(pairs)]
        child = sandbox.hold()
        child.signal(first)
        child.wait_for_text("again to stop at once")
        child.signal(second)
        child.wait(5)
        sandbox.finish(sandbox.run())
        yield 1


@scenario("SIGINT, SIGTERM while importing and reading data", (6, 1))
def early_signals(sandbox: Sandbox) -> Steps:
    for i in range(sandbox.count):
        child = sandbox.spawn()
        child.pause(1 + 1.5 * (i // 2))
        child.signal((SIGINT, SIGTERM)[i % 2])
        child.wait(20)
        yield 1


@scenario("disk full at a write of each file (ENOSPC)", (6, 2), (1, 1))
def full_disk(sandbox: Sandbox) -> Steps:
    names = ("config.yaml", "manifest.json", "new.npz", "best.keras", "history.csv", "model.keras")
    for i in range(sandbox.count):
        name, nth = names[i % len(names)], 1 + i // len(names) % 2
        before = sandbox.newest()
        child = sandbox.train(fault=partial(faults.no_space, name, nth))
        child.expect(0 if name in {"config.yaml", "model.keras"} and nth > 1 else 2)
        run = sandbox.newest()
        if run and run != before:
            sandbox.finish(run)
        yield 1


@scenario("file-size limit from a random moment on (RLIMIT_FSIZE)", (3, 2))
def file_size_limit(sandbox: Sandbox) -> Steps:
    for _ in range(sandbox.count):
        child = sandbox.train()
        child.wait_for_text("run: ")
        time.sleep(sandbox.random.uniform(0, 0.7) * sandbox.seconds)
        child.limit_file_size(2_000)
        if child.wait() not in {0, 2} or "Traceback" in child.log:
            raise child.lost("no clear message")
        sandbox.finish(sandbox.run())
        yield 1


@scenario("a tmpfs that fills up, or turns read-only, in mid-run", (4, 1), (1, 1))
def mounted(sandbox: Sandbox) -> Steps:
    for i in range(sandbox.count):
        with faults.tmpfs(sandbox.folder / f"disk-{i}") as disk:
            if disk is None:
                sandbox.note = "skipped: mounting is not allowed here"
                return
            child = sandbox.hold(f"output.folder={disk}")
            if i % 2:
                with faults.read_only(disk):
                    sandbox.release(child, 2)
            else:
                faults.fill(disk)
                sandbox.release(child, 2)
                (disk / "filler").unlink()
            sandbox.finish(sandbox.run(disk))
        yield 1


@scenario("data cut, bit-flipped, replaced: between kill and resume, in mid-run", (6, 1), (1, 1))
def data_changed(sandbox: Sandbox) -> Steps:
    original = sandbox.data.read_bytes()
    for i in range(sandbox.count):
        data = sandbox.folder / f"data-{i}.npz"
        data.write_bytes(original)
        damage = faults.DAMAGES[i % len(faults.DAMAGES)]
        if i // len(faults.DAMAGES) % 2:
            child = sandbox.hold(f"data.path={data}")
            data.write_bytes(damage(original, sandbox.random))
            sandbox.release(child, 0)
            sandbox.check_same(sandbox.run())
        else:
            run = sandbox.killed(70, f"data.path={data}")
            data.write_bytes(damage(original, sandbox.random))
            sandbox.resume(run).expect(2)
            data.write_bytes(original)
            sandbox.finish(run)
        yield 1


@scenario("a flipped bit in the newest checkpoint", (2000, 1), (100, 1))
def damaged_checkpoint(sandbox: Sandbox) -> Steps:
    run = sandbox.killed(100)
    latest = run / "checkpoint/latest.npz"
    original = latest.read_bytes()
    for _ in range(sandbox.count):
        try:
            checkpoint.decode(faults.flip(original, sandbox.random))
        except ValueError:
            yield 1
            continue
        raise Lost("a flipped bit went unnoticed")
    latest.write_bytes(faults.flip(original, sandbox.random))
    child = sandbox.resume(run)
    child.expect(0)
    sandbox.check_same(run)
    if "the checkpoint before it" not in child.log:
        raise Lost("the damage was not reported")
    for path in (run / "checkpoint").iterdir():
        path.write_bytes(faults.flip(path.read_bytes(), sandbox.random))
    sandbox.resume(run).expect(2)
    weights(run / "best.keras")
    sandbox.note = "one of them resumed to the end; with both damaged: exit 2, best kept"


@scenario("memory limit (RLIMIT_AS), then enough", (4, 1))
def memory_limit(sandbox: Sandbox) -> Steps:
    codes = set()
    for i in range(sandbox.count):
        limit = partial(faults.limit_memory, (20, 60, 150, 400)[i % 4])
        codes.add(sandbox.train(fault=limit).wait())
        run = sandbox.newest()
        if run and not (run / "model.keras").exists():
            sandbox.finish(run)
        yield 1
    sandbox.note = f"exit codes {sorted(codes)}"


@scenario("clock that goes back an hour at each reading", (3, 1), (1, 1))
def clock_back(sandbox: Sandbox) -> Steps:
    ids: set[str] = set()
    for _ in range(sandbox.count):
        child = sandbox.train(fault=faults.clock_back)
        child.expect(0)
        run = sandbox.run()
        link = (run.parent / "latest").resolve().name
        if str(run) not in child.log or link != run.name:
            raise Lost(f"the newest run is {run.name}, latest is {link}")
        if run.name in ids or any(r["seconds"] < 0 for r in Run(run).history):
            raise Lost("an id is used twice, or a time is negative")
        ids.add(run.name)
        sandbox.check_same(run)
        yield 1


@scenario("a second training, and an eval, of a run in training", (2, 1))
def two_trainings(sandbox: Sandbox) -> Steps:
    for i in range(sandbox.count):
        child = sandbox.hold()
        run = sandbox.run()
        second = sandbox.resume(run)
        second.expect(2)
        if f"({child.pid} on " not in second.log:
            raise second.lost("the message does not name the process")
        if i == 0:
            Child(sandbox.folder, "eval", str(run)).expect(0)
        sandbox.release(child, 0)
        sandbox.check_same(run)
        yield 1


@scenario("resumed with the other precision, or other threads", (2, 1), (1, 1))
def other_arithmetic(sandbox: Sandbox) -> Steps:
    for i in range(sandbox.count):
        change = ("runtime.precision=mixed_bfloat16", "runtime.threads=3")[i % 2]
        run = sandbox.killed(90)
        child = sandbox.resume(run, change)
        child.expect(0)
        last = Run(run).manifest["resumptions"][-1]
        if last["bit_identical"] or "not be bit-identical" not in child.log:
            raise Lost("other arithmetic was not recorded")
        if len(Run(run).history) != EPOCHS:
            raise Lost("epochs are missing")
        yield 1


@scenario("the same command twice, and with a kill: float32, bfloat16", (2, 1))
def reruns(sandbox: Sandbox) -> Steps:
    for i in range(sandbox.count):
        precision = f"runtime.precision={('float32', 'mixed_bfloat16')[i % 2]}"
        hashes = set()
        for start in (sandbox.spawn, sandbox.train):
            start(precision).expect(0)
            hashes.add(Run(sandbox.run()).manifest["weights_sha256"])
        sandbox.resume(sandbox.killed(100, precision)).expect(0)
        hashes.add(Run(sandbox.run()).manifest["weights_sha256"])
        if len(hashes) > 1:
            raise Lost(f"{precision}: other weights")
        yield 3


@scenario("cost of saving after every epoch, configs/mnist.yaml", (1, 1))
def cost(sandbox: Sandbox) -> Steps:
    output = f"output.folder={sandbox.folder / 'outputs'}"
    words = [str(CONFIGS / "mnist.yaml"), f"training.epochs={sandbox.count}", output]
    child = Child(sandbox.folder, "train", *words, "data.download=false", before=faults.timed_saves)
    child.expect(0)
    saving = float(child.log.split("seconds in saves: ")[-1].split()[0])
    seconds = sum(row["seconds"] for row in Run(sandbox.run()).history) + saving
    sandbox.note = f"{saving:.2f} s of {seconds:.1f} s: {saving / seconds:.2%}"
    yield 1
    if saving > 0.02 * seconds:
        raise Lost("saving takes more than 2 % of the training")
