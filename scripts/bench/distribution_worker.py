"""Measure steps and all-reduces as one worker of several; scripts.bench.distribution starts it.

python -m scripts.bench.distribution_worker measured.json --quick    # with TF_CONFIG
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from scripts.project import CONFIGS

BATCHES = (100, 1000)  # images over all workers
FLOATS = (1_000, 12_785, 100_000, 1_000_000, 10_000_000)


def quickest(function: Callable[[], object], times: int) -> float:
    """Return the seconds of the quickest call after three: other work only ever adds time."""
    for _ in range(3):
        function()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        function()
        taken.append(time.perf_counter() - began)
    return min(taken)


def main() -> None:
    """Measure together with the other workers; worker 0 writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    from convae.runtime.cluster import find_cluster, report_started

    cluster = find_cluster()
    if cluster is None:
        raise SystemExit("scripts.bench.distribution starts this")
    if hasattr(os, "sched_setaffinity"):  # one core each, also if there is one worker
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[cluster.rank % len(cores)]})

    from convae.config.loader import load_config
    from convae.models.builder import build_model
    from convae.runtime.backend import tf
    from convae.runtime.replicas import Replicas
    from convae.runtime.start import start
    from convae.training.engine import Engine
    from convae.training.optimizers import build_optimizer

    words = ["runtime.strategy=multi_worker", "runtime.threads=1", "runtime.precision=float32"]
    config = load_config(CONFIGS / "mnist.yaml", words)
    plan = start(config, distributed=True)
    replicas = Replicas(plan, config.runtime.rendezvous_timeout)
    with replicas.scope():
        model = build_model(config)
        optimizer = build_optimizer(config, 1)
    engine = Engine(model, config, plan, optimizer, replicas)
    report_started()
    times = 8 if arguments.quick else 40
    images = np.random.default_rng(0).integers(0, 256, (max(BATCHES), 28, 28, 1), np.uint8)
    steps = []
    for batch in BATCHES:
        mine = images[replicas.worker_slice(batch)]
        seconds = quickest(lambda batch=batch, mine=mine: engine.step(mine, mine, batch), times)  # type: ignore[misc]
        steps.append({"workers": replicas.workers, "batch": batch, "seconds": seconds})
    reduces = []
    for count in FLOATS if replicas.workers > 1 else ():
        vector = np.ones(count, np.float32)
        added = tf.function(lambda v: replicas.run_and_sum(lambda: v + 0.0)[0], autograph=False)
        held = tf.constant(vector)
        seconds = quickest(lambda added=added, held=held: float(added(held)), times)  # type: ignore[misc]
        reduces.append({"workers": replicas.workers, "floats": count, "seconds": seconds})
    if replicas.is_chief:
        arguments.path.write_text(json.dumps({"steps": steps, "reduces": reduces}))
    replicas.wait_for_all()


if __name__ == "__main__":
    main()
