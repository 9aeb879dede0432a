"""What a run's manifest records at the start: enough to know what made it, and to repeat it."""

from __future__ import annotations

import platform
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

PACKAGE = Path(__file__).parents[1]


def describe(
    config: Config, data: TrainingData, plan: Plan, parameters: int, before: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the part of a manifest that is known when a training starts or resumes.

    The command and the start time of the manifest `before` stay; it is empty for a new run.
    """
    first = {"command": command_line(), "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    if before:
        first = {key: before.get(key, "not known") for key in first}
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "git_commit": git_commit(),
        **first,
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
    """Return the versions of Python and of the packages that decide the numbers."""
    packages = {p: version(p) for p in ("convae", "tensorflow", "keras", "numpy")}
    return {"python": platform.python_version(), **packages}


def command_line() -> str:
    """Return the command of this process as a user types it, also if Python started a module.

    Such as `convae train mnist` for `python -m convae train mnist`.
    """
    name = Path(sys.argv[0]).name
    start = ["python"] if name.endswith(".py") else []
    if module := getattr(sys.modules["__main__"], "__spec__", None):
        name = module.name.removesuffix(".__main__")
        start = ["python", "-m"] if name != "convae" else []
    return shlex.join([*start, name, *sys.argv[1:]])


def git_commit(package: Path = PACKAGE) -> str | None:
    """Return the commit of the code that runs, or None if it is not a checkout of convae.

    An installed package may lie inside another repository, which does not track it as src/convae.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)  # noqa: S603
        return done.stdout.strip()

    with suppress(OSError, subprocess.SubprocessError):
        if git("ls-files", "--full-name", "__init__.py") == "src/convae/__init__.py":
            return git("rev-parse", "--verify", "HEAD")
    return None


def peak_memory_mib() -> float | None:
    """Return the most memory that this process has used, in MiB; None where it is not known."""
    with suppress(OSError, StopIteration):  # Linux: getrusage counts the parent too
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        high = next(line for line in lines if line.startswith("VmHWM:"))
        return round(int(high.split()[1]) / 2**10, 1)
    if sys.platform == "darwin":
        import resource

        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1)
    else:  # noqa: RET505 - mypy skips the branch of another system
        return None
