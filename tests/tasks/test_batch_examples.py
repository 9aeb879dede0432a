"""Every worker makes the same examples of a batch."""

import itertools

import numpy as np
import pytest

from convae.config.loader import load_config
from convae.config.schema import Config
from convae.data.loading import Split
from convae.runtime.plan import Plan
from convae.runtime.replicas import Replicas
from convae.tasks import Task, build_task
from convae.tasks.task import BLOCK, Examples, batch_examples, example_generator
from tests.conftest import ROOT

CONFIGS = {
    "denoise": ("configs/denoise.yaml", []),
    "crop": ("configs/mnist.yaml", ["data.crop=random"]),
    "upscale": ("configs/upscale.yaml", []),
    "reconstruct": ("configs/mnist.yaml", []),
}


def task_and_split(name: str) -> tuple[Task, Split]:
    path, overrides = CONFIGS[name]
    config: Config = load_config(ROOT / path, overrides)
    task = build_task(config)
    height, width, channels = task.image_shape
    larger = 4 if name == "crop" else 0
    shape = (300, height + larger, width + larger, channels)
    return task, Split(np.random.default_rng(1).integers(0, 256, shape, np.uint8), None)


def parts(task: Task, split: Split, count: int, workers: int) -> list[Examples]:
    chosen = np.random.default_rng(2).permutation(len(split))[:count]
    plan = Plan("cpu", "test", "float32", jit_compile=False, threads=1, micro_batch_size=1)
    found = []
    for worker in range(workers):
        replicas = Replicas(plan)
        replicas.workers, replicas.worker = workers, worker
        found.append(batch_examples(task, split, chosen, replicas.worker_slice(count), 3, 5))
    return found


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("count", "workers"), [(187, 2), (187, 4), (100, 2), (3, 5), (130, 13)])
def test_the_workers_parts_are_the_batch(name: str, count: int, workers: int) -> None:
    task, split = task_and_split(name)
    (whole,) = parts(task, split, count, 1)
    several = parts(task, split, count, workers)
    assert len(whole) == count
    for field in ("inputs", "targets"):
        joined = np.concatenate([getattr(examples, field) for examples in several])
        np.testing.assert_array_equal(joined, getattr(whole, field))


def test_blocks_steps_and_epochs_have_different_generators() -> None:
    draws = [
        tuple(example_generator(0, *place).integers(0, 2**32, 4))
        for place in itertools.product(range(3), range(3), range(3))
    ]
    assert len(set(draws)) == len(draws)
    order = tuple(np.random.default_rng([0, 0]).integers(0, 2**32, 4))
    assert order not in draws


def test_a_batch_of_one_block_uses_the_generator_of_the_step() -> None:
    task, split = task_and_split("denoise")
    (batch,) = parts(task, split, BLOCK, 1)
    chosen = np.random.default_rng(2).permutation(len(split))[:BLOCK]
    expected = task.examples(split, chosen, example_generator(task.config.seed, 3, 5))
    np.testing.assert_array_equal(batch.inputs, expected.inputs)
