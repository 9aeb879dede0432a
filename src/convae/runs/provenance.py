"""What a run's manifest says from the start: enough to know what made it, and to make it again."""

from __future__ import annotations

import platform
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from convae.config.schema import Config
from convae.data.loading import TrainingData
from convae.runtime.plan import Plan


def describe(
    config: Config, data: TrainingData, plan: Plan, parameters: int, before: Mapping[str, Any]
) -> dict[str, Any]:
    """Versions, commit, command, seed, decisions and data of a training that begins or goes on now.

    `before` is the manifest so far: when and how the run began stays in it.
    """
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "git_commit": git_commit(),
        "command": before.get("command", command_line()),
        "started": before.get("started", time.strftime("%Y-%m-%dT%H:%M:%S%z")),
        "seed": config.seed,
        "device": plan.device,
        "precision": plan.precision,
        "threads": plan.threads,
        "runtime": plan.record(),
        "parameters": parameters,
        "data": {
            "name": data.name,
            "sample": data.is_sample,
            "train_images": len(data.train.images),
            "validation_images": len(data.validation.images),
            "samples_per_epoch": data.samples_per_epoch,
        },
        "data_sha256": data.sha256,
    }


def versions() -> dict[str, str]:
    """The versions of what the numbers hang on."""
    packages = ("convae", "tensorflow", "keras", "numpy")
    return {"python": platform.python_version(), **{p: version(p) for p in packages}}


def command_line() -> str:
    """The command that runs, as one would type it."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def git_commit() -> str | None:
    """The commit of the code that runs, if it runs from a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--verify", "HEAD"]
    try:
        done = subprocess.run(  # noqa: S603 - the words are ours
            command, capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def peak_memory_mib() -> float:
    """The most memory that this process has held, in MiB."""
    with suppress(OSError, StopIteration):  # Linux: getrusage counts the parent's until the exec
        lines = Path("/proc/self/status").read_text().splitlines()
        high = next(line for line in lines if line.startswith("VmHWM:"))
        return round(int(high.split()[1]) / 2**10, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB; on macOS bytes
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
