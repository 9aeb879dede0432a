"""Start TensorFlow by a plan: devices, threads and seeds."""

from __future__ import annotations

import dataclasses
import os
from contextlib import suppress
from pathlib import Path

from convae.config.schema import Config
from convae.runtime.cluster import find_cluster
from convae.runtime.hardware import Gpu, available_cores, cpu_info, missing_gpu_reason
from convae.runtime.plan import Hardware, Plan, make_plan


def start(config: Config, *, distributed: bool = False) -> Plan:
    """Import TensorFlow, make the plan, set devices, threads and seeds by it, and return it.

    TensorFlow accepts threads and devices only before its first operation. In a process that has
    already run one they stay as they are.

    Args:
        config: The checked config.
        distributed: Whether to use several devices and the workers of TF_CONFIG, as training does.

    Raises:
        ConfigError: The config requires a device or strategy that is not available.
    """
    from convae.runtime.backend import GPUS, IMPORT_LOG, keras, tf

    gpus = []
    for device in GPUS:
        details = tf.config.experimental.get_device_details(device)
        name = details.get("device_name", device.name)
        gpus.append(Gpu(name, details.get("compute_capability", (0, 0))))
    processor = tf.config.list_physical_devices("CPU")[0]
    logical = tf.config.get_logical_device_configuration(processor) or [processor]
    no_gpu = missing_gpu_reason(IMPORT_LOG)
    hardware = Hardware(tuple(gpus), no_gpu, *cpu_info(), cpu_devices=len(logical))
    cluster = find_cluster() if distributed else None
    plan = make_plan(config, hardware, cluster, distributed=distributed)
    with suppress(RuntimeError):  # TensorFlow has already run an operation in this process
        if plan.device == "gpu":
            for device in GPUS:
                tf.config.experimental.set_memory_growth(device, True)
            tf.config.experimental.enable_op_determinism()
        else:
            tf.config.set_visible_devices([], "GPU")
            # One thread per operation, and as many operations side by side as there are cores:
            # faster than operations that are split over the cores, and in a fixed order.
            tf.config.threading.set_intra_op_parallelism_threads(1)
            tf.config.threading.set_inter_op_parallelism_threads(plan.local_threads)
    keras.utils.set_random_seed(config.seed)
    return plan


def start_in_float32(config: Config) -> Plan:
    """Start as `start` does, but compute in float32: the precision of the saved weights."""
    return dataclasses.replace(start(config), precision="float32")


def pin_threads(plan: Plan) -> None:
    """Bind each of TensorFlow's threads to one core, once TensorFlow has started them.

    Small virtual machines may otherwise run two threads on one core while another is idle. It is
    done only on Linux, and only where the threads take all cores of this process.
    """
    cores = available_cores()
    if plan.device != "cpu" or plan.local_threads != len(cores):
        return
    threads = []
    for task in Path("/proc/self/task").glob("*"):
        with suppress(OSError):  # the thread has just ended
            if (task / "comm").read_text() == "tf_Compute\n":  # they run operations side by side
                threads.append(int(task.name))
    if len(threads) == len(cores):  # as many as `start` has set
        for thread, core in zip(sorted(threads), cores, strict=True):
            if hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(thread, {core})
