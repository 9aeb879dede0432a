"""Fuzz everything that reads a file or an argument from outside.

    python -m tests.fuzz.fuzz --inputs 20000 --seed 0

Each input must end in success or in ConvaeError, which the command line turns into one message and
exit code 2. Another exception, more than --seconds of processor time, a crash or more than 2 GiB of
memory is a failure; its input is kept in --keep. The inputs run in worker processes, which are
replaced when they hang or crash. Exits 1 if anything failed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache, partial
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from convae.config.loader import load_config
from convae.config.schema import Data
from convae.data.loading import load_test, load_training
from convae.errors import ConvaeError
from convae.models import keras_file
from convae.runs.run import Run
from convae.runtime.plan import make_plan
from scripts.project import CONFIGS, ROOT, format_markdown
from tests.fuzz import inputs, models

CHUNK = 50  # inputs from one seed
MAX_MEMORY = 2 * 2**10  # MiB
WAIT = 300  # seconds, for a worker that waits for something and so takes no processor time
LIMIT = 6 * 2**30  # bytes of addresses, so that the machine survives a failure


def read_config(path: Path, overrides: Sequence[str] = ()) -> None:
    """Read a config, and compute what inspect and train derive from it without data."""
    config = load_config(path, overrides)
    config.to_yaml().encode()
    str(config.model_summary)
    make_plan(config)


def try_yaml(data: bytes, folder: Path) -> None:
    shutil.copytree(CONFIGS, folder, dirs_exist_ok=True)  # for a base
    (folder / "config.yaml").write_bytes(data)
    read_config(folder / "config.yaml")


def try_override(data: bytes, folder: Path) -> None:
    read_config(CONFIGS / "mnist.yaml", inputs.split_words(data))


def _load(path: Path, **more: Any) -> None:
    settings = Data(path=str(path), **more)
    load_training(settings, (28, 28, 1))
    load_test(settings, (28, 28, 1))


def try_npz(data: bytes, folder: Path) -> None:
    (folder / "data.npz").write_bytes(data)
    _load(folder / "data.npz")


def try_idx(data: bytes, folder: Path) -> None:
    """Read a folder of four IDX files, one of which is damaged."""
    for i, name in enumerate(inputs.IDX_FILES):
        shape = (20,) if i % 2 else (20, 28, 28)
        file = inputs.idx_file(len(shape), shape, bytes(prod(shape)))
        (folder / name).write_bytes(data[1:] if i == data[0] else file)
    _load(folder)


def try_image(data: bytes, folder: Path) -> None:
    """Read a folder of images, one of which is damaged."""
    (folder / "images").mkdir()
    for i in range(3):
        (folder / f"images/{i}.png").write_bytes(inputs.pictures()[0])
    (folder / "images/damaged.tiff").write_bytes(data)
    _load(folder / "images", cache=str(folder / "cache"))


def try_npy(data: bytes, folder: Path) -> None:
    """Read an .npy of images and one of labels, one of which is damaged."""
    names = ("data.npy", "data_labels.npy")
    for name, shape in zip(names, ((20, 28, 28), (20,)), strict=True):
        np.save(folder / name, np.zeros(shape, np.uint8))
    (folder / names[data[0]]).write_bytes(data[1:])
    _load(folder / "data.npy")


def try_run(data: bytes, folder: Path) -> None:
    """Read a run's folder, one file of which is damaged."""
    (folder / "checkpoint").mkdir()
    (folder / models.RUN_FILES[data[0]]).write_bytes(data[1:])
    run = Run(folder)
    if data[0] == 3:
        run.load_checkpoint()
    else:
        getattr(run, ("config", "manifest", "history")[data[0]])


def try_keras_check(data: bytes, folder: Path) -> None:
    """Check a `.keras` file before Keras reads it."""
    (folder / "model.keras").write_bytes(data)
    keras_file.check(folder / "model.keras")


def try_keras_load(data: bytes, folder: Path) -> None:
    from convae.models.builder import read_model

    (folder / "model.keras").write_bytes(data)
    read_model(folder / "model.keras")


def try_command(data: bytes, folder: Path) -> None:
    """Run the command line as a process; the first byte says which input the rest is."""
    kind, content = data[0] % 4, data[1:]
    words = inputs.split_words(content.replace(b"\0", b""))
    run = folder / "outputs/mnist/1"
    (run / "checkpoint").mkdir(parents=True)
    (run / "config.yaml").write_bytes(content if kind == 2 else inputs.CONFIG_FILES[0])
    shutil.copytree(CONFIGS, folder, dirs_exist_ok=True)
    (folder / "config.yaml").write_bytes(content)
    command = (
        ["inspect", "config.yaml"],
        ["config", str(CONFIGS / "mnist.yaml"), "--", *words],
        ["train", "--resume", str(run)],
        ["inspect", str(CONFIGS / "mnist.yaml"), "--", *words],
    )[kind]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "CONVAE_DATA": "nowhere.npz"}
    done = subprocess.run(
        [sys.executable, "-m", "convae", *command], capture_output=True, timeout=60, cwd=folder,
        env=environment, check=False,
    )  # fmt: skip
    handled = done.returncode == 0 or (done.returncode == 2 and b"convae: " in done.stderr)
    if not handled or b"Traceback" in done.stderr:
        raise RuntimeError(f"exit {done.returncode}: {done.stderr[-2000:]!r}")
    if done.returncode:
        raise ConvaeError("refused")


def commands(rng: inputs.Rng) -> bytes:
    kind = int(rng.integers(4))
    data = inputs.overrides(rng) if kind % 2 else inputs.configs(rng)
    return bytes([kind]) + data[:100_000]


class Target(NamedTuple):
    """A reader of input from outside, and the maker of its inputs."""

    share: float  # of all inputs
    make: Callable[[int, int], Sequence[bytes]]  # from (seed, count)
    attempt: Callable[[bytes, Path], None]
    heavy: bool = False  # starts TensorFlow or processes


_each = partial(partial, inputs.each)
_hypothesis = partial(partial, inputs.from_hypothesis)
TARGETS = {
    "YAML": Target(0.16, _each(inputs.configs), try_yaml),
    "YAML, hypothesis": Target(0.09, _hypothesis(inputs.YAML), try_yaml),
    "overrides": Target(0.1, _each(inputs.overrides), try_override),
    "overrides, hypothesis": Target(0.09, _hypothesis(inputs.OVERRIDES), try_override),
    "npz": Target(0.1, _each(inputs.npz), try_npz),
    "npy": Target(0.05, _each(inputs.npy_files), try_npy),
    "IDX": Target(0.12, _each(inputs.idx), try_idx),
    "images": Target(0.13, _each(inputs.images), try_image),
    "run folders": Target(0.08, _each(models.run_files), try_run),
    ".keras, checked": Target(0.063, _each(models.keras_files), try_keras_check),
    ".keras, loaded": Target(0.015, _each(models.keras_files), try_keras_load, heavy=True),
    "command line": Target(0.002, _each(commands), try_command, heavy=True),
}


@lru_cache(1)
def make_chunk(name: str, seed: int, chunk: int) -> Sequence[bytes]:
    """Return the inputs of a chunk, from the run's seed alone."""
    return TARGETS[name].make(seed * 100_003 + chunk, CHUNK)


def make_input(name: str, seed: int, index: int) -> bytes:
    return make_chunk(name, seed, index // CHUNK)[index % CHUNK]


def prepare(name: str) -> None:
    """Limit a new worker process, and import what would count as the time of its first input."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if TARGETS[name].attempt is try_keras_load:
        import convae.models.builder  # noqa: F401
    if not TARGETS[name].heavy:  # TensorFlow reserves more addresses than it uses
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # messages of libraries about damaged bytes


def attempt(name: str, seed: int, index: int, limit: float) -> tuple[str, str, float, float]:
    """Return (outcome, message, seconds, peak MiB of this process so far): a worker's task."""
    data = make_input(name, seed, index)
    outcome, message = "accepted", ""
    with tempfile.TemporaryDirectory(prefix="convae-fuzz-") as folder:
        signal.setitimer(signal.ITIMER_PROF, limit)  # ends the process, wherever it hangs
        began = time.process_time()
        try:
            TARGETS[name].attempt(data, Path(folder))
        except ConvaeError as error:
            outcome = "refused" if str(error) else "failed"
        except BaseException:  # any other exception is a failure
            outcome, message = "failed", traceback.format_exc(limit=-4)
        seconds = time.process_time() - began
        signal.setitimer(signal.ITIMER_PROF, 0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return outcome, message, seconds, peak


def start_worker(name: str) -> ProcessPoolExecutor:
    """Start a process for the inputs of a target, and end the one before."""
    for process in multiprocessing.active_children():
        process.kill()
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, context, initializer=prepare, initargs=(name,))


def run(name: str, seed: int, count: int, limit: float) -> Iterator[tuple[str, str, float, float]]:
    """Try `count` inputs; a worker that hangs or dies costs its input and is replaced."""
    worker = start_worker(name)
    for index in range(count):
        try:
            ended = worker.submit(attempt, name, seed, index, limit).result(WAIT)
        except (BrokenProcessPool, TimeoutError):
            message = f"crashed, or took more than {limit:.0f} s of processor time or {WAIT} s"
            ended = ("failed", message, 0.0, 0.0)
            worker = start_worker(name)
        outcome, message, seconds, peak = ended
        if peak > MAX_MEMORY:  # a fresh process measures the next input's memory
            outcome, message = "failed", message or f"took {peak:,.0f} MiB of memory"
            worker = start_worker(name)
        yield outcome, message, seconds, peak
    worker.shutdown()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=10, help="of one input")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"))
    parser.add_argument("--only", default="", help="targets whose name contains this")
    options = parser.parse_args()
    rows, failed, began = [], 0, time.perf_counter()
    for name, target in TARGETS.items():
        if options.only not in name:
            continue
        count = max(round(target.share * options.inputs), 1)
        limit = 60 if target.attempt is try_command else options.seconds
        results = list(run(name, options.seed, count, limit))
        outcomes, messages, seconds, peaks = zip(*results, strict=True)
        for index, message in enumerate(messages):
            if outcomes[index] != "failed":
                continue
            failed += 1
            options.keep.mkdir(parents=True, exist_ok=True)
            path = options.keep / re.sub(r"\W+", "-", f"{name}-{options.seed}-{index}")
            path.write_bytes(make_input(name, options.seed, index))
            path.with_name(f"{path.name}.txt").write_text(message)
            print(f"{path}: {message}", file=sys.stderr)
        counts = (count, *(outcomes.count(x) for x in ("accepted", "refused", "failed")))
        sizes = (1000 * max(seconds), max(peaks))
        rows.append((name, *(f"{number:,.0f}" for number in (*counts, *sizes))))
        print(*rows[-1], file=sys.stderr, flush=True)
    head = ("target", "inputs", "accepted", "refused", "failures", "slowest ms", "peak MiB")
    print(format_markdown(head, rows))
    print(f"{failed} failures in {time.perf_counter() - began:,.0f} s")
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
