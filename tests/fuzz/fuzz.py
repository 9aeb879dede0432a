"""Throw damaged and evil inputs at everything that reads a file or a word from outside.

    python -m tests.fuzz.fuzz --inputs 20000 --seed 0

Each input must end in success or in ConvaeError, which the command line turns into one message and
exit code 2. Another exception, more than --seconds of processor time, a crash or more than 2 GiB of
memory is a failure; its input is kept in --keep, and so can be tried again. The inputs run in
worker processes, which are replaced when they hang or crash. Exits 1 if anything failed.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz import inputs, models

ROOT = Path(__file__).parents[2]
CHUNK = 50  # inputs from one seed
MAX_MEMORY = 2 * 2**10  # MiB
WAIT = 300  # seconds, for a worker that waits for something and so takes no processor time
LIMIT = 6 * 2**30  # bytes of addresses, so that the machine survives a failure


def try_yaml(data: bytes, folder: Path) -> None:
    """A config file, then everything that inspect and train compute from it without data."""
    from convae.config.loader import load_config
    from convae.layers import summary as ledger
    from convae.runtime.plan import make_plan

    path = folder / "config.yaml"
    path.write_bytes(data)
    _copy_configs(folder)
    config = load_config(path)
    config.to_yaml().encode()
    ledger.describe(config.model)
    make_plan(config)


def _copy_configs(folder: Path) -> None:
    for shipped in (ROOT / "configs").glob("*.yaml"):
        shutil.copy(shipped, folder)


def try_override(data: bytes, folder: Path) -> None:
    """Overrides of the default config."""
    from convae.config.loader import load_config
    from convae.layers import summary as ledger

    words = data.decode("utf-8", "surrogateescape").split(inputs.SEPARATOR)
    config = load_config(ROOT / "configs/mnist.yaml", words)
    config.to_yaml().encode()
    ledger.describe(config.model)


def _load(path: Path, **more: Any) -> None:
    from convae.config import schema as config
    from convae.data.loading import load_test, load_training

    settings = config.Data(path=str(path), **more)
    load_training(settings, (28, 28, 1))
    load_test(settings, (28, 28, 1))


def try_npz(data: bytes, folder: Path) -> None:
    """An npz of images and labels, both sides."""
    (folder / "data.npz").write_bytes(data)
    _load(folder / "data.npz")


def try_idx(data: bytes, folder: Path) -> None:
    """A folder of four IDX files, one of which is damaged."""
    for i, name in enumerate(inputs.IDX_FILES):
        shape = (20, 28, 28) if i % 2 == 0 else (20,)
        file = inputs.idx_file(len(shape), shape, bytes(20 * (784 if i % 2 == 0 else 1)))
        (folder / name).write_bytes(data[1:] if i == data[0] else file)
    _load(folder)


def try_image(data: bytes, folder: Path) -> None:
    """A folder of images, one of which is damaged."""
    (folder / "images").mkdir()
    for i in range(3):
        (folder / f"images/{i}.png").write_bytes(inputs.pictures()[0])
    (folder / "images/damaged.tiff").write_bytes(data)
    _load(folder / "images", cache=str(folder / "cache"))


def try_npy(data: bytes, folder: Path) -> None:
    """An .npy of images with one of labels beside it, one of which is damaged."""
    shapes = (20, 28, 28), (20,)
    for i, name in enumerate(("data.npy", "data_labels.npy")):
        np.save(folder / name, np.zeros(shapes[i], np.uint8))
        if i == data[0]:
            (folder / name).write_bytes(data[1:])
    _load(folder / "data.npy")


def try_run(data: bytes, folder: Path) -> None:
    """A run's folder, one file of which is damaged."""
    from convae.runs.run import Run

    (folder / "checkpoint").mkdir()
    (folder / models.RUN_FILES[data[0]]).write_bytes(data[1:])
    run = Run(folder)
    readers: tuple[Callable[[], object], ...] = (
        lambda: run.config,
        lambda: run.manifest,
        lambda: run.history,
        run.load_checkpoint,
    )
    readers[data[0]]()


def try_keras(data: bytes, folder: Path) -> None:
    """A `.keras` file as it is looked at before Keras is."""
    from convae.models import keras_file as kerasfile

    path = folder / "model.keras"
    path.write_bytes(data)
    kerasfile.check(path)


def try_load(data: bytes, folder: Path) -> None:
    """A `.keras` file, loaded."""
    from convae.models.builder import read_model

    path = folder / "model.keras"
    path.write_bytes(data)
    read_model(path)


def try_command(data: bytes, folder: Path) -> None:
    """The command line as a process. The first byte says which input the rest is."""
    from convae.errors import ConvaeError

    kind, content = data[0] % 4, data[1:]
    words = content.decode("utf-8", "surrogateescape").replace("\0", "").split(inputs.SEPARATOR)
    run = folder / "outputs/mnist/1"
    (run / "checkpoint").mkdir(parents=True)
    (run / "config.yaml").write_bytes(content if kind == 2 else inputs.CONFIGS[0])
    _copy_configs(folder)
    (folder / "config.yaml").write_bytes(content)
    command = (
        ["inspect", "config.yaml"],
        ["config", str(ROOT / "configs/mnist.yaml"), "--", *words],
        ["train", "--resume", str(run)],
        ["inspect", str(ROOT / "configs/mnist.yaml"), "--", *words],
    )[kind]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "CONVAE_DATA": "nowhere.npz"}
    done = subprocess.run(
        [sys.executable, "-m", "convae", *command],
        capture_output=True,
        timeout=60,
        cwd=folder,
        env=environment,
        check=False,
    )
    told = done.returncode == 0 or (done.returncode == 2 and b"convae: " in done.stderr)
    if not told or b"Traceback" in done.stderr:
        raise RuntimeError(f"exit {done.returncode}: {done.stderr[-2000:]!r}")
    if done.returncode:
        raise ConvaeError("refused")


def commands(rng: inputs.Rng) -> bytes:
    """A config, overrides or a run's config for the command line."""
    kind = int(rng.integers(4))
    data = inputs.overrides(rng) if kind % 2 else inputs.configs(rng)
    return bytes([kind]) + data[:100_000]


@dataclass(frozen=True)
class Target:
    """Something that reads from outside: where its inputs come from, and what takes them."""

    name: str
    share: float  # of all inputs
    make: Callable[[int, int], Any]  # (seed, count) to inputs
    attempt: Callable[[bytes, Path], None]
    heavy: bool = False  # starts TensorFlow or processes


def _each(maker: Callable[[inputs.Rng], bytes]) -> Callable[[int, int], Iterator[bytes]]:
    return lambda number, count: inputs.each(maker, number, count)


def _hypothesis(name: str) -> Callable[[int, int], list[bytes]]:
    return lambda number, count: inputs.from_hypothesis(name, number, count)


TARGETS = (
    Target("YAML", 0.16, _each(inputs.configs), try_yaml),
    Target("YAML, hypothesis", 0.09, _hypothesis("yaml, hypothesis"), try_yaml),
    Target("overrides", 0.1, _each(inputs.overrides), try_override),
    Target("overrides, hypothesis", 0.09, _hypothesis("override, hypothesis"), try_override),
    Target("npz", 0.1, _each(inputs.npz), try_npz),
    Target("npy", 0.05, _each(inputs.npy_files), try_npy),
    Target("IDX", 0.12, _each(inputs.idx), try_idx),
    Target("images", 0.13, _each(inputs.images), try_image),
    Target("run folders", 0.08, _each(models.run_files), try_run),
    Target(".keras, looked at", 0.063, _each(models.keras_files), try_keras),
    Target(".keras, loaded", 0.015, _each(models.keras_files), try_load, heavy=True),
    Target("command line", 0.002, _each(commands), try_command, heavy=True),
)


@dataclass
class Result:
    """What became of a target's inputs."""

    accepted: int = 0
    refused: int = 0
    failures: list[tuple[int, str]] = field(default_factory=list)  # index, what happened
    slowest: float = 0.0  # seconds
    peak: float = 0.0  # MiB


def input_of(target: Target, number: int, index: int) -> bytes:
    """The input of this index, from the run's seed alone."""
    chunk, place = divmod(index, CHUNK)
    made = list(target.make(number * 100_003 + chunk, CHUNK))
    return bytes(made[place])


def attempt(target: Target, data: bytes) -> tuple[str, str, float, float]:
    """(outcome, what happened, seconds, peak MiB of this process so far)."""
    from convae.errors import ConvaeError

    outcome, words = "accepted", ""
    with tempfile.TemporaryDirectory(prefix="convae-fuzz-") as folder:
        began = time.process_time()
        try:
            target.attempt(data, Path(folder))
        except ConvaeError as error:
            outcome = "refused" if str(error) else "failed"
        except BaseException:  # whatever it is, it is what this looks for
            outcome, words = "failed", traceback.format_exc(limit=-4)
        seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return outcome, words, seconds, peak


def work(pipe: Connection, name: str, number: int, first: int, last: int, seconds: float) -> None:
    """A worker: says each index before it tries it, and what became of it after."""
    target = next(target for target in TARGETS if target.name == name)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not target.heavy:  # TensorFlow reserves more addresses than it uses
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libraries say of damaged bytes
    made: tuple[int, list[bytes]] = (-1, [])
    if target.attempt is try_load:
        import convae.models.builder  # noqa: F401 - before the clock runs
    for index in range(first, last):
        chunk, place = divmod(index, CHUNK)
        if made[0] != chunk:
            made = (chunk, list(target.make(number * 100_003 + chunk, CHUNK)))
        pipe.send((index, None))
        signal.setitimer(signal.ITIMER_PROF, seconds)  # ends the process, whatever it is stuck in
        ended = attempt(target, bytes(made[1][place]))
        signal.setitimer(signal.ITIMER_PROF, 0)
        pipe.send((index, ended))
    pipe.send((last, None))


def run(target: Target, number: int, count: int, seconds: float) -> Result:
    """Try `count` inputs; a worker that hangs or dies costs its input and is replaced."""
    result = Result()
    context = multiprocessing.get_context("spawn")
    first = 0
    while first < count:
        here, there = context.Pipe(duplex=False)
        worker = context.Process(
            target=work, args=(there, target.name, number, first, count, seconds)
        )
        worker.start()
        there.close()
        first = follow(here, result, first, count, worker)
        worker.join(5 if first == count else 0)
        worker.kill()
        worker.join()
    return result


def follow(pipe: Connection, result: Result, first: int, count: int, worker: Any) -> int:
    """Take in what a worker says until it is done or lost; where the next one has to go on."""
    index: int = first
    with contextlib.suppress(EOFError):
        while True:
            if not pipe.poll(WAIT):
                result.failures.append((index, f"did nothing for {WAIT} seconds"))
                return index + 1
            index, ended = pipe.recv()
            if index == count:
                return count
            if ended is None:
                continue
            outcome, words, took, peak = ended
            result.slowest = max(result.slowest, took)
            if outcome == "failed" or (peak > MAX_MEMORY >= result.peak):
                result.failures.append((index, words or f"took {peak:,.0f} MiB of memory"))
            elif outcome == "accepted":
                result.accepted += 1
            else:
                result.refused += 1
            result.peak = max(result.peak, peak)
            if peak > MAX_MEMORY:  # a fresh process tells the next input's memory
                return index + 1
    worker.join()
    slow = worker.exitcode == -signal.SIGPROF
    result.failures.append((index, "took too long" if slow else f"died: {worker.exitcode}"))
    return index + 1


def main() -> None:
    """Run every target and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=10, help="of one input")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"))
    parser.add_argument("--only", help="targets whose name holds this")
    options = parser.parse_args()
    lines, failed, began = [], 0, time.perf_counter()
    for target in TARGETS:
        if options.only and options.only not in target.name:
            continue
        count = max(round(target.share * options.inputs), 1)
        limit = 60 if target.attempt is try_command else options.seconds
        result = run(target, options.seed, count, limit)
        for index, words in result.failures:
            options.keep.mkdir(parents=True, exist_ok=True)
            name = f"{target.name.replace(' ', '-').replace(',', '')}-{options.seed}-{index}"
            (options.keep / name).write_bytes(input_of(target, options.seed, index))
            (options.keep / f"{name}.txt").write_text(words)
            print(f"{options.keep / name}: {words}", file=sys.stderr)
        failed += len(result.failures)
        lines.append(
            f"| {target.name} | {count:,} | {result.accepted:,} | {result.refused:,} | "
            f"{len(result.failures)} | {1000 * result.slowest:,.0f} | {result.peak:,.0f} |"
        )
        print(lines[-1], file=sys.stderr, flush=True)
    print("| target | inputs | accepted | refused | failures | slowest ms | peak MiB |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(lines))
    print(f"{failed} failures in {time.perf_counter() - began:,.0f} s")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
