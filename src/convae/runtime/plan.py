"""Decisions of a run, each with its reason: device, strategy, precision, threads, micro-batches.

They follow from the config, the hardware and TF_CONFIG alone. Nothing is measured: the same inputs
always give the same plan. Importing this module does not import TensorFlow.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from convae.config.schema import Config
from convae.errors import ConfigError, UnsupportedError
from convae.layers.summary import ModelSummary
from convae.runtime.cluster import EXAMPLE, Cluster
from convae.runtime.hardware import Gpu, core_count, has_bfloat16

# The bytes of one micro-batch's activations in the largest layer, input and output together. Twice
# as many no longer stay in the caches of common processors; half as many cost more calls.
MICRO_BATCH_BYTES = 7 * 2**20

# The forward passes and steps of one call: a fifth of a second on two cores.
EXECUTION_MACS, EXECUTION_STEPS = 2 * 10**9, 100

Precision = Literal["float32", "mixed_bfloat16"]
Strategy = Literal["none", "mirrored", "multi_worker"]


@dataclass(frozen=True)
class Hardware:
    """What the machine offers."""

    gpus: tuple[Gpu, ...] = ()  # those that TensorFlow finds
    no_gpu_reason: str = ""
    cpu: str = "CPU"
    cpu_flags: frozenset[str] = frozenset()  # the processor's features, as Linux names them
    cpu_devices: int = 1  # see tf.config.set_logical_device_configuration
    cores: int = field(default_factory=core_count)


@dataclass(frozen=True)
class Plan:
    """The decisions of a run: the values of a config's section `runtime`, and what follows of them.

    A comment says what the value `auto` stands for.
    """

    device: Literal["cpu", "gpu"]  # a GPU if TensorFlow finds one, else the CPU
    device_name: str
    precision: Precision  # of activations: bfloat16 where the device has it and the layers gain
    jit_compile: bool  # compile with XLA: false
    threads: int  # parallel shards of a replica's batch: one per core, or one on a GPU
    micro_batch_size: int  # most images in the network at once: what fits the cache, or a GPU's all
    # Most steps in one call of TensorFlow; between calls the trainer handles signals, checkpoints
    # and progress. As many as hide the cost of a call; the bits do not depend on it.
    steps_per_execution: int = 1
    # Of tf.distribute: "none" is one device, "mirrored" several devices of one process,
    # "multi_worker" the processes that TF_CONFIG names. auto: what uses all of them.
    strategy: Strategy = "none"
    replicas: int = 1  # copies of the model, on all workers together
    workers: int = 1  # processes that train together
    worker: int = 0  # which of them this is; only worker 0 logs and saves
    reasons: Mapping[str, str] = field(default_factory=dict)  # of the decisions, by name
    warnings: tuple[str, ...] = ()

    @property
    def local_threads(self) -> int:
        """The threads of all replicas on this worker."""
        return self.threads * (self.replicas // self.workers)

    def record(self) -> dict[str, Any]:
        """Return the decisions as the manifest keeps them."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        replicas = f", in each of {self.replicas} replicas ({self.strategy})"
        return (
            f"{self.device_name}, {self.precision}, {threads} of micro-batches of "
            f"{self.micro_batch_size} images{replicas if self.strategy != 'none' else ''}"
        )


def make_plan(
    config: Config,
    hardware: Hardware | None = None,
    cluster: Cluster | None = None,
    *,
    distributed: bool = True,
) -> Plan:
    """Decide how to run `config`, each decision with its reason.

    Args:
        config: The checked config.
        hardware: What the machine offers; None stands for its cores alone.
        cluster: The workers that TF_CONFIG names.
        distributed: Whether several devices and workers, and `runtime.strategy`, count.

    Raises:
        ConfigError: A value of `runtime` does not go with another one.
        UnsupportedError: The config requires a device that is not available.
    """
    planner = _Planner(config, hardware or Hardware(), cluster if distributed else None)
    return planner.plan(distributed)


class _Planner:
    """The decisions in their order. The methods named after a key decide where it is `auto`."""

    def __init__(self, config: Config, hardware: Hardware, cluster: Cluster | None) -> None:
        self.config, self.runtime = config, config.runtime
        self.hardware, self.cluster = hardware, cluster
        self.workers = cluster.count if cluster else 1  # that TF_CONFIG names
        self.reasons: dict[str, str] = {}

    def plan(self, distributed: bool) -> Plan:
        self.check_config()
        device = self.decide("device", self.auto_device)
        self.gpu = self.hardware.gpus[0] if device == "gpu" else None
        self.devices = len(self.hardware.gpus) if self.gpu else self.hardware.cpu_devices
        if distributed:
            self.check_strategy()
            self.strategy = self.decide("strategy", self.auto_strategy)
        else:
            self.strategy, self.reasons["strategy"] = "none", "only training uses several devices"
        together = self.cluster if self.strategy == "multi_worker" else None
        workers = together.count if together else 1
        self.local_replicas = 1 if self.strategy == "none" else self.devices
        self.share = self.share_of_batch(workers * self.local_replicas)
        self.precision = self.decide("precision", self.auto_precision)
        self.threads = self.decide("threads", self.auto_threads)
        cpu = f"{self.hardware.cpu} ({self.hardware.cores} cores)"
        return Plan(
            device=device,
            device_name=self.gpu.name if self.gpu else cpu,
            precision=self.precision,
            threads=self.threads,
            micro_batch_size=self.decide("micro_batch_size", self.auto_micro_batch_size),
            jit_compile=self.decide("jit_compile", self.auto_jit_compile),
            steps_per_execution=self.decide("steps_per_execution", self.auto_steps_per_execution),
            strategy=self.strategy,
            replicas=workers * self.local_replicas,
            workers=workers,
            worker=together.rank if together else 0,
            reasons=self.reasons,
            warnings=tuple(self.warnings()),
        )

    def decide(self, name: str, automatic: Callable[[], tuple[Any, str]]) -> Any:
        """Return the config's value of `runtime.NAME`, or the automatic one; record the reason."""
        wanted = getattr(self.runtime, name)
        given = wanted, f"as runtime.{name} says"
        value, self.reasons[name] = automatic() if wanted == "auto" else given
        return value

    def check_config(self) -> None:
        batch = self.config.training.batch_size
        for key in ("micro_batch_size", "threads"):
            value = getattr(self.runtime, key)
            if value != "auto" and value > batch:
                raise ConfigError(
                    f"runtime.{key}: cannot be larger than training.batch_size ({batch}). "
                    f"Received: {value}"
                )
        if self.runtime.device == "gpu" and not self.hardware.gpus:
            raise UnsupportedError(
                f"runtime.device: gpu, but TensorFlow finds none: {self.hardware.no_gpu_reason}. "
                "With runtime.device: auto, training runs on the CPU"
            )

    def check_strategy(self) -> None:
        wanted = self.runtime.strategy
        if wanted == "multi_worker" and self.cluster is None:
            raise ConfigError(
                "runtime.strategy: multi_worker, but TF_CONFIG, which names the workers, is not "
                f"set; set it to something {EXAMPLE}. On one machine, convae launch sets it"
            )
        if wanted == "mirrored" and self.workers > 1:
            raise ConfigError(
                f"runtime.strategy: mirrored is for one process, but TF_CONFIG names "
                f"{self.workers} workers; with multi_worker or auto they train together"
            )
        if wanted == "mirrored" and self.devices < 2:
            raise UnsupportedError(
                "runtime.strategy: mirrored needs several devices, but there is one; auto or none "
                "trains on it"
            )

    def auto_device(self) -> tuple[str, str]:
        found = "gpu", "TensorFlow finds it"
        return found if self.hardware.gpus else ("cpu", self.hardware.no_gpu_reason)

    def auto_strategy(self) -> tuple[Strategy, str]:
        if self.workers > 1:
            return "multi_worker", f"TF_CONFIG names {self.workers} workers"
        if self.devices > 1:
            return "mirrored", f"there are {self.devices} devices"
        return "none", "one device, and no other workers"

    def share_of_batch(self, replicas: int) -> int:
        batch = self.config.training.batch_size
        if batch % replicas:
            raise ConfigError(
                f"training.batch_size: must be a multiple of the {replicas} replicas, such as "
                f"{-(-batch // replicas) * replicas}. Received: {batch}"
            )
        if self.runtime.jit_compile is True and self.strategy != "none":
            raise ConfigError(
                f"runtime.jit_compile: true does not go with {replicas} replicas; use false, auto "
                "or runtime.strategy: none"
            )
        return batch // replicas

    def auto_precision(self) -> tuple[Precision, str]:
        if not has_bfloat16(self.gpu, self.hardware.cpu_flags):
            return "float32", "the device has no native bfloat16"
        if not gains_from_bfloat16(self.config.model_summary):
            return "float32", "the strided layers gain nothing from bfloat16"
        return "mixed_bfloat16", "the device has native bfloat16, and the layers gain from it"

    def auto_threads(self) -> tuple[int, str]:
        if self.gpu:
            return 1, "a GPU takes one stream of work"
        return max(1, min(self.hardware.cores // self.local_replicas, self.share)), "one per core"

    def auto_micro_batch_size(self) -> tuple[int, str]:
        if self.gpu:
            return self.share, "all at once: a GPU has no small cache"
        cache = f"the largest layer's activations fit {MICRO_BATCH_BYTES // 2**20} MiB of cache"
        summary = self.config.model_summary
        return fitting_micro_batch_size(summary, self.share, self.threads, self.precision), cache

    def auto_steps_per_execution(self) -> tuple[int, str]:
        macs = sum(row.macs for row in self.config.model_summary.rows)
        steps = EXECUTION_MACS // (macs * self.config.training.batch_size)
        reason = (
            f"at most {EXECUTION_MACS // 10**9} billion MACs forward, and {EXECUTION_STEPS} steps"
        )
        return max(1, min(steps, EXECUTION_STEPS)), reason

    def auto_jit_compile(self) -> tuple[bool, str]:
        gpu = "cuDNN's convolutions are fast without XLA"
        return False, gpu if self.gpu else "XLA on a CPU is slower than oneDNN"

    def warnings(self) -> Iterator[str]:
        native = has_bfloat16(self.gpu, self.hardware.cpu_flags)
        if self.workers > 1 and self.strategy == "none":
            yield (
                f"TF_CONFIG names {self.workers} workers, but with runtime.strategy: none each of "
                "them trains alone"
            )
        if self.precision == "mixed_bfloat16" and not native:
            yield "this device has no native bfloat16: training will be slow"
        if not self.gpu and self.threads > self.hardware.cores:
            yield f"{self.threads} threads are more than the {self.hardware.cores} cores: slower"


def gains_from_bfloat16(summary: ModelSummary) -> bool:
    """Return whether most of the multiplications are in convolutions of stride 1.

    Those run with fused bias and activation in bfloat16; oneDNN's strided transposed convolution is
    not faster in bfloat16 than in float32.
    """
    rows = zip(summary.model.layers, summary.rows, strict=True)
    unstrided = sum(row.macs for layer, row in rows if max(layer.kernel_strides) == 1)
    return 2 * unstrided > sum(row.macs for row in summary.rows)


def fitting_micro_batch_size(
    summary: ModelSummary, batch: int, threads: int, precision: Precision
) -> int:
    """Return the number of images whose activations in the largest layer fit the cache.

    It is the size of the largest of the micro-batches, which are as even as possible, of each of
    the `threads` that share one replica's `batch`.
    """
    largest = max(math.prod(r.input_shape) + math.prod(r.output_shape) for r in summary.rows)
    largest *= {"float32": 4, "mixed_bfloat16": 2}[precision]
    share = -(-batch // threads)
    micro_batches = -(-share // max(1, MICRO_BATCH_BYTES // largest))
    return -(-share // micro_batches)
