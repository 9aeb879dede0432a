import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convae.config.loader import load_config
from convae.errors import ConvaeError
from convae.runtime.cluster import Cluster
from convae.runtime.hardware import Gpu, missing_gpu_reason
from convae.runtime.plan import Hardware, Plan, fitting_micro_batch_size, make_plan
from convae.runtime.start import start
from tests.conftest import ROOT
from tests.forked import FORKED

CARD = Gpu("Card", (8, 0))


def plan(
    *overrides: str, cluster: Cluster | None = None, distributed: bool = True, **hardware: Any
) -> Plan:
    config = load_config(ROOT / "configs/mnist.yaml", overrides)
    found = Hardware(no_gpu_reason="no NVIDIA driver is installed here", **hardware)
    return make_plan(config, found, cluster, distributed=distributed)


def test_a_gpu_is_used_unless_the_config_forbids_it() -> None:
    decided = plan(gpus=(CARD,))
    assert (decided.device, decided.device_name, decided.threads) == ("gpu", "Card", 1)
    assert decided.micro_batch_size == 1000
    assert plan("runtime.device=cpu", gpus=(CARD,)).device == "cpu"


def test_the_reason_for_a_missing_gpu_is_given() -> None:
    decided = plan()
    assert decided.device == "cpu"
    assert decided.reasons["device"] == "no NVIDIA driver is installed here"
    assert decided.warnings == ()
    for devices in ("", "-1"):
        assert "hides every GPU" in missing_gpu_reason("", {"CUDA_VISIBLE_DEVICES": devices})
    with pytest.raises(ConvaeError, match="device: gpu, but .*: no NVIDIA driver"):
        plan("runtime.device=gpu")


def test_micro_batches_fit_the_cache_and_are_even() -> None:
    decided = plan(cores=2)
    assert (decided.threads, decided.micro_batch_size) == (2, 50)
    assert plan("runtime.precision=mixed_bfloat16", cores=2).micro_batch_size == 100  # half
    summary = load_config(ROOT / "configs/mnist.yaml").model_summary
    for batch, threads in ((1, 1), (7, 2), (1000, 3), (999, 2)):
        size = fitting_micro_batch_size(summary, batch, threads, "float32")
        share = -(-batch // threads)
        assert 1 <= size <= min(share, 51)
        assert -(-share // size) * size - share < -(-share // size)  # no almost empty slice


def test_values_of_the_config_are_kept() -> None:
    decided = plan("runtime.threads=1", "runtime.micro_batch_size=10", "runtime.jit_compile=true")
    assert (decided.threads, decided.micro_batch_size, decided.jit_compile) == (1, 10, True)
    assert any("more than the" in text for text in plan("runtime.threads=200").warnings)
    with pytest.raises(ConvaeError, match=r"cannot be larger than training.batch_size \(1000\)"):
        plan("runtime.micro_batch_size=1001")
    with pytest.raises(ConvaeError, match=r"cannot be larger than training.batch_size \(3\)"):
        plan("training.batch_size=3", "runtime.threads=4")


STRIDED = [
    "model.encoder=[{type: conv, filters: 8, kernel_size: 3, strides: 2, padding: same}]",
    "model.decoder=[{type: conv_transpose, filters: 1, kernel_size: 4, strides: 2, padding: same,"
    "activation: sigmoid}]",
]


def test_bfloat16_needs_the_device_and_layers_that_gain() -> None:
    amx = frozenset({"amx_bf16"})
    assert plan().precision == "float32"
    assert plan(cpu_flags=amx).precision == "mixed_bfloat16"
    assert plan(cpu_flags=frozenset({"avx512_bf16"})).precision == "mixed_bfloat16"
    assert plan(*STRIDED, cpu_flags=amx).precision == "float32"
    assert plan(gpus=(CARD,)).precision == "mixed_bfloat16"
    assert plan(gpus=(Gpu("Old", (7, 5)),)).precision == "float32"
    assert plan("runtime.precision=float32", cpu_flags=amx).precision == "float32"
    slow = plan("runtime.precision=mixed_bfloat16")
    assert slow.precision == "mixed_bfloat16"
    assert "no native bfloat16" in slow.warnings[0]


def test_every_decision_has_its_reason() -> None:
    decided = plan()
    assert decided.jit_compile is False
    assert set(decided.reasons) == {
        "device", "strategy", "precision", "threads", "micro_batch_size", "jit_compile",
        "steps_per_execution",
    }  # fmt: skip
    assert all(decided.reasons.values())
    assert decided.steps_per_execution == 1  # 1,000 images
    assert plan("training.batch_size=8").steps_per_execution > 10
    assert decided.record()["threads"] == decided.threads


TWO = Cluster(("a:1", "b:1"), 1)


def spread_of(*overrides: str, **found: Any) -> tuple[str, int, int, int]:
    decided = plan(*overrides, **found)
    return decided.strategy, decided.replicas, decided.workers, decided.worker


def test_training_uses_all_devices_and_workers() -> None:
    assert spread_of() == ("none", 1, 1, 0)
    assert spread_of(gpus=(CARD,)) == ("none", 1, 1, 0)
    assert spread_of(gpus=(CARD, CARD)) == ("mirrored", 2, 1, 0)
    assert spread_of(cpu_devices=4) == ("mirrored", 4, 1, 0)
    assert spread_of("runtime.device=cpu", gpus=(CARD, CARD)) == ("none", 1, 1, 0)
    assert spread_of("runtime.strategy=none", gpus=(CARD, CARD)) == ("none", 1, 1, 0)
    assert spread_of(cluster=TWO) == ("multi_worker", 2, 2, 1)
    assert spread_of(cluster=TWO, gpus=(CARD, CARD)) == ("multi_worker", 4, 2, 1)
    assert spread_of(cluster=Cluster(("a:1",), 0)) == ("none", 1, 1, 0)
    one = Cluster(("a:1",), 0)
    assert spread_of("runtime.strategy=multi_worker", cluster=one) == ("multi_worker", 1, 1, 0)
    assert spread_of(cluster=TWO, cpu_devices=2, distributed=False) == ("none", 1, 1, 0)


def test_each_replica_has_its_share_of_batch_and_cores() -> None:
    decided = plan(gpus=(CARD, CARD))
    assert (decided.threads, decided.micro_batch_size) == (1, 500)
    assert plan(cpu_devices=2, cores=4).threads == 2
    assert plan(cluster=TWO, cores=4).threads == 4
    assert plan("training.batch_size=2", cluster=TWO, cores=4).threads == 1
    assert "in each of 2 replicas (mirrored)" in str(plan(cpu_devices=2))


def test_workers_that_train_alone_give_a_warning() -> None:
    decided = plan("runtime.strategy=none", cluster=TWO)
    assert decided.strategy == "none"
    assert any("each of them trains alone" in warning for warning in decided.warnings)


@pytest.mark.parametrize(
    ("overrides", "found", "part"),
    [
        (["runtime.strategy=mirrored"], {}, "needs several devices"),
        (["runtime.strategy=mirrored"], {"cluster": TWO, "cpu_devices": 2}, "names 2 workers"),
        (["runtime.strategy=multi_worker"], {}, "TF_CONFIG, which names the workers, is not set"),
        (["training.batch_size=999"], {"cluster": TWO}, "of the 2 replicas, such as 1000"),
        (["runtime.jit_compile=true"], {"cpu_devices": 2}, "does not go with 2 replicas"),
    ],
)
def test_an_impossible_strategy_is_refused(
    overrides: list[str], found: dict[str, Any], part: str
) -> None:
    with pytest.raises(ConvaeError, match=part):
        plan(*overrides, **found)


def affinities(threads: int, path: Path) -> None:
    """Write the cores that TensorFlow's threads may use; it runs in a process of its own."""
    from convae.models.builder import build_model
    from convae.training.engine import Engine

    config = load_config(ROOT / "configs/mnist.yaml", [f"runtime.threads={threads}"])
    engine = Engine(build_model(config), config, start(config))
    engine.predict(np.zeros((8, 28, 28, 1), np.uint8))
    tasks = sorted(
        int(task.name)
        for task in Path("/proc/self/task").glob("*")
        if (task / "comm").read_text() == "tf_Compute\n"
    )
    path.write_text(json.dumps([sorted(os.sched_getaffinity(task)) for task in tasks]))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists threads")
def test_threads_are_pinned_only_if_they_take_all_cores(tmp_path: Path) -> None:
    mine = sorted(os.sched_getaffinity(0))
    for threads, expected in ((len(mine), [[c] for c in mine]), (len(mine) + 1, [mine])):
        path = tmp_path / f"{threads}.json"
        process = FORKED.Process(target=affinities, args=(threads, path))
        process.start()
        process.join(60)
        found = json.loads(path.read_text())
        assert all(cores in expected for cores in found)
        assert all(cores in found for cores in expected)
