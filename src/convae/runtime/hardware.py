"""What this machine offers: cores, processor features and GPUs, found without TensorFlow."""

from __future__ import annotations

import itertools
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Gpu:
    """A GPU that TensorFlow finds: its name and CUDA compute capability, such as (8, 0)."""

    name: str
    capability: tuple[int, int] = (0, 0)


def available_cores() -> list[int]:
    """Return the numbers of the cores that this process may use; [] where the system has none."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def core_count() -> int:
    """Return the number of cores that this process may use, at least 1."""
    return len(available_cores()) or os.cpu_count() or 1


def cpu_info() -> tuple[str, frozenset[str]]:
    """Return the processor's name and its feature flags (empty where the system has no list)."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine(), frozenset()
    first = info.read_text(encoding="utf-8").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    fields = {key.strip(): value.strip() for key, _, value in pairs}
    flags = fields.get("flags", fields.get("Features", ""))
    return fields.get("model name", platform.machine()), frozenset(flags.split())


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them.

    Without that variable nvidia-smi lists them; [] where it is missing or finds none.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name not in {"", "-1"}]
    with suppress(OSError, subprocess.SubprocessError):
        query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)  # noqa: S603
        return done.stdout.split()
    return []


def missing_gpu_reason(import_log: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return why TensorFlow, which logged `import_log`, finds no GPU here, and what would help."""
    if environment.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}:
        return "CUDA_VISIBLE_DEVICES hides every GPU"
    if platform.system() == "Darwin":
        return "TensorFlow has no GPU support on macOS"
    if not (Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi")):
        return "no NVIDIA driver is installed here"
    if "dlopen" in import_log or "libcu" in import_log:
        return "an NVIDIA driver is there, but not its CUDA libraries: pip install 'convae[gpu]'"
    return "an NVIDIA driver is there, but TensorFlow found no GPU: does nvidia-smi list one?"


def has_bfloat16(gpu: Gpu | None, cpu_flags: Set[str]) -> bool:
    """Return whether the device computes bfloat16: AMX, AVX512-BF16, or a GPU from Ampere on."""
    return gpu.capability >= (8, 0) if gpu else bool(cpu_flags & {"amx_bf16", "avx512_bf16"})


def split_evenly(items: Sequence[Any], count: int) -> list[list[Any]]:
    """Return `count` lists of neighboring items whose lengths differ by at most 1.

    Where there are fewer items than lists, each item is in several lists.
    """
    bounds = [len(items) * i // count for i in range(count + 1)]
    return [list(items[a : max(b, a + 1)]) for a, b in itertools.pairwise(bounds)]
