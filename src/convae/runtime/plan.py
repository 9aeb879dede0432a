"""What a run runs on: device, threads, precision, seeds. Decided once, recorded, printed."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import shutil
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from convae.config.schema import Config
from convae.errors import ConfigError
from convae.layers.spec import Layer, Model
from convae.layers.summary import Shape, layer_rows
from convae.runtime import cluster
from convae.runtime.cluster import Cluster
from convae.runtime.processes import available_cores

# Activations that one micro-batch may hold in its largest layer, input and output together. Twice
# as much no longer stays in the caches of common processors; half as much pays more for each call.
MICRO_BATCH_BYTES = 7 * 2**20

GROWING = {"resize_conv", "depth_to_space"}  # their strides are no convolution's

THREAD_NAME = "tf_Compute"  # what TensorFlow calls its threads between operations

LOGICAL_CPUS = "CONVAE_LOGICAL_CPUS"  # for tests: so many devices of the processor, as if GPUs

Precision = Literal["float32", "mixed_bfloat16"]
Strategy = Literal["none", "mirrored", "multi_worker"]


@dataclass(frozen=True)
class Gpu:
    """A GPU that TensorFlow sees: its name and its CUDA compute capability, such as (8, 0)."""

    name: str
    capability: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Plan:
    """Every decision of the runtime, with its reason."""

    device: Literal["cpu", "gpu"]
    device_name: str
    precision: Precision
    jit_compile: bool
    threads: int  # loops over micro-batches that run side by side, one per core
    micro_batch_size: int  # images that pass the network at once, at most
    strategy: Strategy = "none"  # of tf.distribute; "none": this process and one device
    replicas: int = 1  # copies of the model, on all workers together
    workers: int = 1  # processes that train together
    worker: int = 0  # which of them this is; 0 is the chief, who prints and writes
    reasons: Mapping[str, str] = field(default_factory=dict)  # by the name of the decision
    warnings: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """The decisions as the manifest keeps them."""
        return {**dataclasses.asdict(self), "reasons": dict(self.reasons)}

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        replicas = f", in each of {self.replicas} replicas ({self.strategy})"
        return (
            f"{self.device_name}, {self.precision}, {threads} of micro-batches of "
            f"{self.micro_batch_size} images{replicas if self.strategy != 'none' else ''}"
        )


def cores() -> int:
    """Processor cores that this process may use."""
    return len(available_cores()) or os.cpu_count() or 1


def cpu_info() -> tuple[str, frozenset[str]]:
    """The processor's name and its feature flags (empty where the system does not tell)."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine(), frozenset()
    pairs = (line.partition(":") for line in info.read_text().split("\n\n")[0].splitlines())
    fields = {key.strip(): value.strip() for key, _, value in pairs}
    flags = fields.get("flags", fields.get("Features", ""))
    return fields.get("model name", platform.machine()), frozenset(flags.split())


def plan(
    config: Config,
    gpus: Sequence[Gpu] = (),
    why_no_gpu: str = "",
    cpu: str = "",
    features: Set[str] = frozenset(),
    *,
    together: Cluster | None = None,
    cpus: int = 1,
    distributed: bool = True,
) -> Plan:
    """Decide from the config, the GPUs that were found, the processor and its features.

    `together` are the workers that TF_CONFIG names, `cpus` the devices that the processor counts
    as; without `distributed` both are ignored, and so is runtime.strategy. Touches no device and
    measures nothing: the same inputs always give the same plan. Raises ConfigError where the config
    asks for what is not there.
    """
    runtime, batch = config.runtime, config.training.batch_size
    if runtime.device == "gpu" and not gpus:
        raise ConfigError(
            f"runtime.device: gpu, but TensorFlow sees none: {why_no_gpu}. "
            "runtime.device: auto would run on the CPU"
        )
    if runtime.micro_batch_size != "auto" and runtime.micro_batch_size > batch:
        raise ConfigError(
            f"runtime.micro_batch_size: cannot be larger than training.batch_size ({batch}). "
            f"Received: {runtime.micro_batch_size}"
        )
    if runtime.threads != "auto" and runtime.threads > batch:
        raise ConfigError(
            f"runtime.threads: cannot be more than training.batch_size ({batch}). "
            f"Received: {runtime.threads}"
        )
    warnings, reasons = [], {}
    gpu = gpus[0] if gpus and runtime.device != "cpu" else None
    reasons["device"] = "it is there" if gpu else why_no_gpu
    if runtime.device != "auto":
        reasons["device"] = f"runtime.device: {runtime.device}"

    strategy: Strategy = "none"
    workers, local, reasons["strategy"] = 1, 1, "what does not train takes one device"
    if distributed:
        devices = len(gpus) if gpu else cpus
        strategy, reasons["strategy"] = spread(config, devices, together)
        local = devices if strategy != "none" else 1
        if together and strategy == "multi_worker":
            workers = together.count
        elif together and together.count > 1:
            warnings.append(
                f"{cluster.VARIABLE} names {together.count} workers, but with runtime.strategy: "
                "none each of them trains alone"
            )
    replicas = workers * local
    if batch % replicas:
        raise ConfigError(
            f"training.batch_size: must be a multiple of the {replicas} replicas, such as "
            f"{-(-batch // replicas) * replicas}. Received: {batch}"
        )
    share = batch // replicas

    native = has_bfloat16(gpu, features)
    precision: Precision
    if runtime.precision != "auto":
        precision, reasons["precision"] = runtime.precision, "as runtime.precision says"
        if precision == "mixed_bfloat16" and not native:
            warnings.append("this processor has no bfloat16 of its own: expect it to be slow")
    elif not native:
        precision, reasons["precision"] = "float32", "the processor has no bfloat16 of its own"
    elif not gains_from_bfloat16(config.model):
        precision, reasons["precision"] = "float32", "its strided layers gain nothing from bfloat16"
    else:
        precision, reasons["precision"] = "mixed_bfloat16", "native here, and the layers gain"

    if runtime.threads != "auto":
        threads, reasons["threads"] = runtime.threads, "as runtime.threads says"
        if not gpu and threads > cores():
            warnings.append(f"{threads} threads are more than the {cores()} cores here: slower")
    elif gpu:
        threads, reasons["threads"] = 1, "a GPU takes one stream of work"
    else:
        threads = max(1, min(cores() // local, share))
        reasons["threads"] = "one a core"

    if runtime.micro_batch_size != "auto":
        micro_batch_size, reasons["micro_batch_size"] = (
            runtime.micro_batch_size,
            "as runtime.micro_batch_size says",
        )
    elif gpu:
        micro_batch_size, reasons["micro_batch_size"] = (
            share,
            "all at once: a GPU has no small cache",
        )
    else:
        micro_batch_size = fitting_micro_batch(
            config.model.input_shape, config.model.layers, share, threads, precision
        )
        reasons["micro_batch_size"] = (
            f"the largest layer's activations fit {MICRO_BATCH_BYTES // 2**20} MiB of cache"
        )

    jit_compile = runtime.jit_compile
    reasons["jit_compile"] = "as runtime.jit_compile says"
    if jit_compile == "auto":
        jit_compile, reasons["jit_compile"] = False, "XLA on a CPU is slower than oneDNN"
        if gpu:
            reasons["jit_compile"] = "cuDNN's convolutions are quick without XLA"
    elif jit_compile and strategy != "none":
        raise ConfigError(
            f"runtime.jit_compile: true does not go with {replicas} replicas; false, auto or "
            "runtime.strategy: none would"
        )
    return Plan(
        device="gpu" if gpu else "cpu",
        device_name=gpu.name if gpu else f"{cpu or 'CPU'} ({cores()} cores)",
        precision=precision,
        jit_compile=jit_compile,
        threads=threads,
        micro_batch_size=micro_batch_size,
        strategy=strategy,
        replicas=replicas,
        workers=workers,
        worker=together.rank if together and strategy == "multi_worker" else 0,
        reasons=reasons,
        warnings=tuple(warnings),
    )


def spread(config: Config, devices: int, together: Cluster | None) -> tuple[Strategy, str]:
    """How a training spreads over `devices` here and the workers of TF_CONFIG, and why so.

    Raises ConfigError if runtime.strategy asks for what is not there.
    """
    asked, workers = config.runtime.strategy, together.count if together else 1
    if asked == "multi_worker" and together is None:
        raise ConfigError(
            f"runtime.strategy: multi_worker, but {cluster.VARIABLE}, which names the workers, is "
            f"not set; it would be {cluster.EXAMPLE}. On one machine, convae launch sets it"
        )
    if asked == "mirrored" and workers > 1:
        raise ConfigError(
            f"runtime.strategy: mirrored is for one process, but {cluster.VARIABLE} names "
            f"{workers} workers; multi_worker or auto would let them train together"
        )
    if asked == "mirrored" and devices < 2:
        raise ConfigError(
            "runtime.strategy: mirrored needs several devices, and here is one; auto or none would "
            "train on it"
        )
    if asked != "auto":
        return asked, "as runtime.strategy says"
    if workers > 1:
        return "multi_worker", f"{cluster.VARIABLE} names {workers} workers"
    if devices > 1:
        return "mirrored", f"{devices} devices are here"
    return "none", "one device, and no other workers"


def has_bfloat16(gpu: Gpu | None, features: Set[str]) -> bool:
    """Whether the device computes bfloat16 natively: AMX or AVX512-BF16; a GPU from Ampere on."""
    if gpu:
        return gpu.capability >= (8, 0)
    return bool(features & {"amx_bf16", "avx512_bf16"})


def gains_from_bfloat16(model: Model) -> bool:
    """Whether most of the multiplications are in convolutions of stride 1.

    Those are convolutions with fused bias and activation in bfloat16; oneDNN's strided transposed
    convolution is not quicker there than in float32.
    """
    work = {True: 0, False: 0}
    for layer, row in zip(model.layers, layer_rows(model.input_shape, model.layers), strict=True):
        work[layer.type in GROWING or max(layer.strides) == 1] += row.macs
    return work[True] > work[False]


def fitting_micro_batch(
    shape: Shape, layers: Sequence[Layer], batch: int, threads: int, precision: Precision
) -> int:
    """Images whose activations in the largest layer fit the cache, in slices of even size."""
    held = (math.prod(r.input_shape) + math.prod(r.output_shape) for r in layer_rows(shape, layers))
    largest = max(held) * (4 if precision == "float32" else 2)
    share = -(-batch // threads)
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


def start_in_float32(config: Config) -> Plan:
    """`start`, but in float32 whatever the training ran in: the numbers of the saved file."""
    return dataclasses.replace(start(config), precision="float32")


def start(config: Config, *, distributed: bool = False) -> Plan:
    """Import TensorFlow, decide, and set devices, threads and seeds accordingly.

    With `distributed` several devices and the workers of TF_CONFIG are taken into account: what
    only evaluates or predicts runs on one device. Threads can be set only before TensorFlow's first
    operation; in a process that has already run one, they stay as they are.
    """
    from convae.runtime.backend import GPUS, IMPORT_LOG, keras, tf

    gpus = []
    for device in GPUS:
        details = tf.config.experimental.get_device_details(device)
        name = details.get("device_name", device.name)
        gpus.append(Gpu(name, details.get("compute_capability", (0, 0))))
    cpus = int(os.environ.get(LOGICAL_CPUS, "1")) if distributed else 1
    together = cluster.find() if distributed else None
    decided = plan(
        config, gpus, why_no_gpu(IMPORT_LOG), *cpu_info(),
        together=together, cpus=cpus, distributed=distributed,
    )  # fmt: skip
    try:
        if decided.device == "gpu":
            for gpu in GPUS:
                tf.config.experimental.set_memory_growth(gpu, True)
            tf.config.experimental.enable_op_determinism()
        else:
            tf.config.set_visible_devices([], "GPU")
            # One thread an operation and one thread a core: whole threads side by side beat
            # operations that are split over the cores, and their order stays fixed.
            tf.config.threading.set_intra_op_parallelism_threads(1)
            local = decided.replicas // decided.workers
            tf.config.threading.set_inter_op_parallelism_threads(decided.threads * local)
            if cpus > 1:
                tf.config.set_logical_device_configuration(
                    tf.config.list_physical_devices("CPU")[0],
                    [tf.config.LogicalDeviceConfiguration()] * cpus,
                )
    except RuntimeError:
        pass  # already initialized by an earlier run in this process
    keras.utils.set_random_seed(config.seed)
    return decided


def pin_threads(plan: Plan) -> None:
    """Keep the thread of each thread on a core of its own, once TensorFlow has started them.

    Left alone, small virtual machines now and then run both on one core while the other idles, at
    half the speed. Only on Linux, and only where the threads take all cores of this process, so
    that the system loses no choice.
    """
    mine = available_cores()
    if plan.device != "cpu" or plan.threads * plan.replicas // plan.workers != len(mine):
        return
    threads = []
    for task in Path("/proc/self/task").glob("*"):
        with suppress(OSError):  # it has just ended
            if (task / "comm").read_text().strip() == THREAD_NAME:
                threads.append(int(task.name))
    if len(threads) == len(mine):  # as many as `start` has asked for
        for thread, core in zip(sorted(threads), mine, strict=True):
            os.sched_setaffinity(thread, {core})
