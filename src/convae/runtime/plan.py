"""Decisions of a run, each with its reason: device, strategy, precision, threads, micro-batches.

They follow from the config, the hardware and TF_CONFIG alone. Nothing is measured: the same inputs
always give the same plan. Importing this module does not import TensorFlow.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from convae.config.schema import Config
from convae.errors import ConfigError, UnsupportedError
from convae.layers.spec import Layer, Model
from convae.layers.summary import Shape, layer_rows
from convae.runtime.cluster import EXAMPLE, Cluster
from convae.runtime.hardware import Gpu, core_count, has_bfloat16

# The bytes of one micro-batch's activations in the largest layer, input and output together. Twice
# as many no longer stay in the caches of common processors; half as many cost more calls.
MICRO_BATCH_BYTES = 7 * 2**20

Device = Literal["cpu", "gpu"]
Precision = Literal["float32", "mixed_bfloat16"]
Strategy = Literal["none", "mirrored", "multi_worker"]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Hardware:
    """What the machine offers.

    Attributes:
        gpus: The GPUs that TensorFlow finds.
        no_gpu_reason: Why it finds none.
        cpu: The processor's name.
        cpu_flags: The processor's features, as Linux names them.
        cpu_devices: The number of logical devices of the processor: 1, or what
            `tf.config.set_logical_device_configuration` has made of it.
        cores: The number of cores that this process may use.
    """

    gpus: tuple[Gpu, ...] = ()
    no_gpu_reason: str = ""
    cpu: str = "CPU"
    cpu_flags: frozenset[str] = frozenset()
    cpu_devices: int = 1
    cores: int = field(default_factory=core_count)


@dataclass(frozen=True)
class Plan:
    """The decisions of a run. The section `runtime` of a config sets them, or leaves them `auto`.

    Attributes:
        device: `runtime.device`. By default a GPU if TensorFlow finds one, else the CPU.
        device_name: The name of the GPU or processor.
        precision: `runtime.precision`, of the activations; weights stay float32. By default
            mixed_bfloat16 where the device computes it and the layers gain from it.
        jit_compile: `runtime.jit_compile`, compilation by XLA. By default false.
        threads: `runtime.threads`, the parallel shards of the batch in each replica. By default one
            per core, or one on a GPU.
        micro_batch_size: `runtime.micro_batch_size`, the most images that pass the network at once.
            By default as many as fit the processor's cache, or a replica's whole share on a GPU.
        strategy: `runtime.strategy`, of tf.distribute: none is one device, mirrored several devices
            of one process, multi_worker the processes that TF_CONFIG names. By default whatever
            uses all devices and workers.
        replicas: The copies of the model, on all workers together.
        workers: The processes that train together.
        worker: Which of them this is; only worker 0 logs and saves.
        reasons: The reason of each decision, by its name.
        warnings: What the user should know.
    """

    device: Device
    device_name: str
    precision: Precision
    jit_compile: bool
    threads: int
    micro_batch_size: int
    strategy: Strategy = "none"
    replicas: int = 1
    workers: int = 1
    worker: int = 0
    reasons: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def local_threads(self) -> int:
        """The threads of all replicas on this worker."""
        return self.threads * (self.replicas // self.workers)

    def record(self) -> dict[str, Any]:
        """Return the decisions as the manifest keeps them."""
        return {**dataclasses.asdict(self), "reasons": dict(self.reasons)}

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
    """Decide how to run `config`.

    Args:
        config: The checked config.
        hardware: What the machine offers; None stands for its cores alone.
        cluster: The workers that TF_CONFIG names.
        distributed: Whether several devices and workers, and `runtime.strategy`, count.

    Returns:
        The decisions, each with its reason.

    Raises:
        ConfigError: A value of `runtime` does not go with another one.
        UnsupportedError: The config requires a device that is not available.
    """
    return _Planner(config, hardware or Hardware(), cluster if distributed else None).plan(
        distributed
    )


class _Planner:
    """The decisions in their order. Each step returns a value and its reason, and may warn."""

    def __init__(self, config: Config, hardware: Hardware, cluster: Cluster | None) -> None:
        self.config, self.runtime = config, config.runtime
        self.hardware, self.cluster = hardware, cluster
        self.reasons: dict[str, str] = {}
        self.warnings: list[str] = []

    def plan(self, distributed: bool) -> Plan:
        self._check_sizes()
        device = self._record("device", self._device())
        self.gpu = self.hardware.gpus[0] if device == "gpu" else None
        devices = len(self.hardware.gpus) if self.gpu else self.hardware.cpu_devices
        one_device: tuple[Strategy, str] = "none", "one device is enough without training"
        strategy = self._record("strategy", self._strategy(devices) if distributed else one_device)
        together = self.cluster if strategy == "multi_worker" else None
        workers = together.count if together else 1
        self.local_replicas = 1 if strategy == "none" else devices
        self.replicas = workers * self.local_replicas
        self.share = self._share_of_batch()
        self.precision = self._record("precision", self._precision())
        self.threads = self._record("threads", self._threads())
        micro_batch_size = self._record("micro_batch_size", self._micro_batch_size())
        jit_compile = self._record("jit_compile", self._jit_compile(strategy))
        cpu = f"{self.hardware.cpu} ({self.hardware.cores} cores)"
        return Plan(
            device=device,
            device_name=self.gpu.name if self.gpu else cpu,
            precision=self.precision,
            jit_compile=jit_compile,
            threads=self.threads,
            micro_batch_size=micro_batch_size,
            strategy=strategy,
            replicas=self.replicas,
            workers=workers,
            worker=together.rank if together else 0,
            reasons=self.reasons,
            warnings=tuple(self.warnings),
        )

    def _record(self, name: str, decision: tuple[Value, str]) -> Value:
        value, self.reasons[name] = decision
        return value

    def _check_sizes(self) -> None:
        batch = self.config.training.batch_size
        for key in ("micro_batch_size", "threads"):
            value = getattr(self.runtime, key)
            if value != "auto" and value > batch:
                raise ConfigError(
                    f"runtime.{key}: cannot be larger than training.batch_size ({batch}). "
                    f"Received: {value}"
                )

    def _device(self) -> tuple[Device, str]:
        wanted, gpus = self.runtime.device, self.hardware.gpus
        if wanted == "gpu" and not gpus:
            raise UnsupportedError(
                f"runtime.device: gpu, but TensorFlow finds none: {self.hardware.no_gpu_reason}. "
                "With runtime.device: auto, training runs on the CPU"
            )
        if wanted != "auto":
            return wanted, f"runtime.device: {wanted}"
        return ("gpu", "TensorFlow finds it") if gpus else ("cpu", self.hardware.no_gpu_reason)

    def _strategy(self, devices: int) -> tuple[Strategy, str]:
        wanted, workers = self.runtime.strategy, self.cluster.count if self.cluster else 1
        if wanted == "multi_worker" and self.cluster is None:
            raise ConfigError(
                "runtime.strategy: multi_worker, but TF_CONFIG, which names the workers, is not "
                f"set; set it to something {EXAMPLE}. On one machine, convae launch sets it"
            )
        if wanted == "mirrored" and workers > 1:
            raise ConfigError(
                f"runtime.strategy: mirrored is for one process, but TF_CONFIG names {workers} "
                "workers; with multi_worker or auto they train together"
            )
        if wanted == "mirrored" and devices < 2:
            raise UnsupportedError(
                "runtime.strategy: mirrored needs several devices, but there is one; auto or none "
                "trains on it"
            )
        if wanted == "none" and workers > 1:
            self.warnings.append(
                f"TF_CONFIG names {workers} workers, but with runtime.strategy: none each of them "
                "trains alone"
            )
        if wanted != "auto":
            return wanted, "as runtime.strategy says"
        if workers > 1:
            return "multi_worker", f"TF_CONFIG names {workers} workers"
        if devices > 1:
            return "mirrored", f"there are {devices} devices"
        return "none", "one device, and no other workers"

    def _share_of_batch(self) -> int:
        batch, replicas = self.config.training.batch_size, self.replicas
        if batch % replicas:
            raise ConfigError(
                f"training.batch_size: must be a multiple of the {replicas} replicas, such as "
                f"{-(-batch // replicas) * replicas}. Received: {batch}"
            )
        return batch // replicas

    def _precision(self) -> tuple[Precision, str]:
        native = has_bfloat16(self.gpu, self.hardware.cpu_flags)
        if self.runtime.precision != "auto":
            if self.runtime.precision == "mixed_bfloat16" and not native:
                self.warnings.append("this device has no native bfloat16: training will be slow")
            return self.runtime.precision, "as runtime.precision says"
        if not native:
            return "float32", "the device has no native bfloat16"
        if not gains_from_bfloat16(self.config.model):
            return "float32", "the strided layers gain nothing from bfloat16"
        return "mixed_bfloat16", "the device has native bfloat16, and the layers gain from it"

    def _threads(self) -> tuple[int, str]:
        cores = self.hardware.cores
        if self.runtime.threads != "auto":
            if not self.gpu and self.runtime.threads > cores:
                self.warnings.append(
                    f"{self.runtime.threads} threads are more than the {cores} cores: slower"
                )
            return self.runtime.threads, "as runtime.threads says"
        if self.gpu:
            return 1, "a GPU takes one stream of work"
        return max(1, min(cores // self.local_replicas, self.share)), "one per core"

    def _micro_batch_size(self) -> tuple[int, str]:
        if self.runtime.micro_batch_size != "auto":
            return self.runtime.micro_batch_size, "as runtime.micro_batch_size says"
        if self.gpu:
            return self.share, "all at once: a GPU has no small cache"
        model = self.config.model
        size = fitting_micro_batch_size(
            model.input_shape, model.layers, self.share, self.threads, self.precision
        )
        cache = MICRO_BATCH_BYTES // 2**20
        return size, f"the largest layer's activations fit {cache} MiB of cache"

    def _jit_compile(self, strategy: Strategy) -> tuple[bool, str]:
        wanted = self.runtime.jit_compile
        if wanted == "auto":
            gpu = "cuDNN's convolutions are fast without XLA"
            return False, gpu if self.gpu else "XLA on a CPU is slower than oneDNN"
        if wanted and strategy != "none":
            raise ConfigError(
                f"runtime.jit_compile: true does not go with {self.replicas} replicas; use false, "
                "auto or runtime.strategy: none"
            )
        return wanted, "as runtime.jit_compile says"


def gains_from_bfloat16(model: Model) -> bool:
    """Return whether most of the multiplications are in convolutions of stride 1.

    Those run with fused bias and activation in bfloat16; oneDNN's strided transposed convolution is
    not faster in bfloat16 than in float32.
    """
    macs = {True: 0, False: 0}
    for layer, row in zip(model.layers, layer_rows(model.input_shape, model.layers), strict=True):
        macs[max(layer.convolution_strides) == 1] += row.macs
    return macs[True] > macs[False]


def fitting_micro_batch_size(
    shape: Shape, layers: Sequence[Layer], batch: int, threads: int, precision: Precision
) -> int:
    """Return the number of images whose activations in the largest layer fit the cache.

    Args:
        shape: (height, width, channels) of an image.
        layers: The layers of encoder and decoder.
        batch: The images of one replica's step, which the threads share.
        threads: The parallel shards of the batch.
        precision: 4 bytes per activation, or 2.

    Returns:
        The size of the largest of the micro-batches, which are as even as possible.
    """
    held = (math.prod(r.input_shape) + math.prod(r.output_shape) for r in layer_rows(shape, layers))
    largest = max(held) * {"float32": 4, "mixed_bfloat16": 2}[precision]
    share = -(-batch // threads)
    micro_batches = -(-share // max(1, MICRO_BATCH_BYTES // largest))
    return -(-share // micro_batches)
