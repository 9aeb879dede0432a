"""What a run runs on: device, threads, precision, seeds. Decided once, recorded, printed."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from convae.config import Config, Layer
from convae.errors import UserError
from convae.lab.ledger import Shape, layer_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

# Activations that one micro-batch may hold in its largest layer, input and output together. Twice
# as much no longer stays in the caches of common processors; half as much pays more for each call.
MICRO_BATCH_BYTES = 7 * 2**20


@dataclass(frozen=True)
class Plan:
    """Every decision of the runtime, and in `notes` the reasons that a user may ask for."""

    device: Literal["cpu", "gpu"]
    device_name: str
    precision: Literal["float32", "mixed_bfloat16"]
    jit_compile: bool
    strands: int  # loops over micro-batches that run side by side, one per core
    micro_batch: int  # images that pass the network at once, at most
    notes: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """The decisions as the manifest keeps them."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        strands = "1 strand" if self.strands == 1 else f"{self.strands} strands"
        return (
            f"{self.device_name}, {self.precision}, {strands} of micro-batches of "
            f"{self.micro_batch} images"
        )


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_info() -> tuple[str, frozenset[str]]:
    """The processor's name and its feature flags (empty where the system does not tell)."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine(), frozenset()
    fields = dict(
        (part.strip() for part in line.split(":", 1))
        for line in info.read_text().split("\n\n")[0].splitlines()
        if ":" in line
    )
    flags = fields.get("flags", fields.get("Features", ""))
    return fields.get("model name", platform.machine()), frozenset(flags.split())


def plan(config: Config, gpus: Sequence[str], why_no_gpu: str, cpu: str = "") -> Plan:
    """Decide from the config, the names of the GPUs found and the cores; touches no device.

    Raises UserError where the config asks for what is not there.
    """
    runtime, batch = config.runtime, config.training.batch_size
    notes = []
    if runtime.device == "gpu" and not gpus:
        raise UserError(
            f"runtime.device: gpu, but TensorFlow sees none: {why_no_gpu}. "
            "runtime.device: auto would run on the CPU"
        )
    on_gpu = bool(gpus) and runtime.device != "cpu"
    if not on_gpu:
        reason = "runtime.device: cpu" if runtime.device == "cpu" else why_no_gpu
        notes.append(f"running on the CPU: {reason}")
    if runtime.micro_batch != "auto" and runtime.micro_batch > batch:
        raise UserError(
            f"runtime.micro_batch: cannot be larger than training.batch_size ({batch}). "
            f"Received: {runtime.micro_batch}"
        )
    strands = runtime.strands
    if strands == "auto":
        strands = 1 if on_gpu else min(cores(), batch)
    elif not on_gpu and strands > cores():
        notes.append(f"runtime.strands: {strands} is more than the {cores()} cores here: slower")
    micro_batch = runtime.micro_batch
    if micro_batch == "auto":
        micro_batch = (
            batch
            if on_gpu
            else fitting_micro_batch(config.model.input_shape, config.model.layers, batch, strands)
        )
    precision = "float32" if runtime.precision == "auto" else runtime.precision
    return Plan(
        device="gpu" if on_gpu else "cpu",
        device_name=gpus[0] if on_gpu else f"CPU {cpu} ({cores()} cores)".replace("  ", " "),
        precision=precision,
        # XLA on a CPU is several times slower than oneDNN; "auto" of Keras would take it.
        jit_compile=False if runtime.jit_compile == "auto" else runtime.jit_compile,
        strands=strands,
        micro_batch=micro_batch,
        notes=tuple(notes),
    )


def fitting_micro_batch(shape: Shape, layers: Sequence[Layer], batch: int, strands: int) -> int:
    """Images whose activations in the largest layer fit the cache, in slices of even size."""
    sizes = [math.prod(shape), *(math.prod(row.output_shape) for row in layer_rows(shape, layers))]
    largest = max(a + b for a, b in pairwise(sizes)) * 4  # float32
    share = -(-batch // strands)
    slices = -(-share // max(1, MICRO_BATCH_BYTES // largest))
    return -(-share // slices)


def why_no_gpu(import_log: str, environment: Mapping[str, str] = os.environ) -> str:
    """In one line, why TensorFlow sees no GPU here, and what would help."""
    if environment.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}:
        return "CUDA_VISIBLE_DEVICES hides every GPU"
    if platform.system() == "Darwin":
        return "TensorFlow has no GPU support on macOS"
    if not (Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi")):
        return "no NVIDIA driver is installed here"
    if "dlopen" in import_log or "libcu" in import_log:
        return "an NVIDIA driver is there, but not its CUDA libraries: pip install 'convae[gpu]'"
    return "an NVIDIA driver is there, but TensorFlow found no GPU: does nvidia-smi list one?"


def start(config: Config) -> Plan:
    """Import TensorFlow, decide, and set devices, threads and seeds accordingly.

    Threads can be set only before TensorFlow's first operation; in a process that has already run
    one, they stay as they are.
    """
    from convae.backend import GPUS, IMPORT_LOG, keras, tf

    names = [tf.config.experimental.get_device_details(g).get("device_name", g.name) for g in GPUS]
    decided = plan(config, names, why_no_gpu(IMPORT_LOG), cpu_info()[0])
    try:
        if decided.device == "gpu":
            for gpu in GPUS:
                tf.config.experimental.set_memory_growth(gpu, True)
            tf.config.experimental.enable_op_determinism()
        else:
            tf.config.set_visible_devices([], "GPU")
            # One thread an operation and one strand a core: whole strands side by side beat
            # operations that are split over the cores, and their order stays fixed.
            tf.config.threading.set_intra_op_parallelism_threads(1)
            tf.config.threading.set_inter_op_parallelism_threads(decided.strands)
    except RuntimeError:
        pass  # already initialized by an earlier run in this process
    keras.utils.set_random_seed(config.seed)
    return decided
