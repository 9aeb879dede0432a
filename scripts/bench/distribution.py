"""Measure two workers, and predict with a cost model where up to 1,000 workers pay.

    python -m scripts.bench.distribution            # docs/scale.json and docs/images/scale.png
    python -m scripts.bench.distribution --quick    # fewer steps
    python -m scripts.bench.distribution --draw     # only the chart, from docs/scale.json

The model of a step of B images on R workers is that of a ring (Patarasuk and Yuan, "Bandwidth
optimal all-reduce algorithms for clusters of workstations", J. Parallel Distrib. Comput., 2009):

    compute   fixed + per_image * B / R
    exchange  2 (R - 1) latency + 2 (R - 1) / R * bytes / bandwidth

`fixed` and `per_image` are fitted to steps of one worker, latency and bandwidth to all-reduces of
two on the loopback. A step of two workers, which the fit does not use, checks the model.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import timeit
from collections.abc import Callable
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from convae.config.loader import load_config
from convae.plots import style
from convae.runtime.hardware import cpu_info
from convae.runtime.launch import launch
from scripts.project import CONFIGS, IMAGES, ROOT, write_json

RESULT, CHART = ROOT / "docs/scale.json", IMAGES / "scale.png"
NETWORKS = {  # name: (seconds of latency, bytes a second); typical values, not measured
    "1 Gbit Ethernet": (100e-6, 0.117e9),
    "25 Gbit Ethernet": (30e-6, 2.9e9),
    "InfiniBand, 200 Gbit": (5e-6, 24e9),
}
FLOAT = 4  # bytes
BATCHES = (100, 1000)  # images over all workers; the larger one is predicted
FLOATS = (1_000, 12_785, 100_000, 1_000_000, 10_000_000)


class Workload(NamedTuple):
    """A model to predict: its parameters, and the seconds of one worker for an image."""

    name: str
    parameters: int
    per_image: float


def exchange(workers: Any, size: Any, latency: float, rate: float) -> Any:
    """Return the seconds of an all-reduce of `size` bytes in a ring of `workers`."""
    return 2 * (workers - 1) * (latency + size / workers / rate)


def quickest(function: Callable[[], object], times: int) -> float:
    """Return the seconds of the quickest call after three: other work only ever adds time."""
    return min(timeit.repeat(function, number=1, repeat=3 + times)[3:])


def work(path: Path, *, quick: bool) -> None:
    """Measure steps and all-reduces as one of several workers; worker 0 writes them to `path`."""
    from convae.runtime.cluster import find_cluster, report_started

    cluster = find_cluster()
    if cluster is None:
        raise SystemExit("scripts.bench.distribution starts this")
    if hasattr(os, "sched_setaffinity"):  # one core each, also if there is one worker
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[cluster.rank % len(cores)]})

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
        model, optimizer = build_model(config), build_optimizer(config, 1)
    engine = Engine(model, config, plan, optimizer, replicas)
    report_started()
    times = 8 if quick else 40
    images = np.random.default_rng(0).integers(0, 256, (max(BATCHES), 28, 28, 1), np.uint8)
    steps = []
    for batch in BATCHES:
        mine = images[replicas.worker_slice(batch)]
        call = partial(engine.steps, (mine, mine), [(len(mine), batch)])
        seconds = quickest(call, times)
        steps.append({"workers": replicas.workers, "batch": batch, "seconds": seconds})
    reduces = []
    for count in FLOATS if replicas.workers > 1 else ():
        added = tf.function(lambda v: replicas.run_and_sum(lambda: v + 0.0)[0], autograph=False)
        held = tf.ones(count)
        seconds = quickest(lambda added=added, held=held: float(added(held)), times)  # type: ignore[misc]
        reduces.append({"workers": replicas.workers, "floats": count, "seconds": seconds})
    if replicas.is_chief:
        path.write_text(json.dumps({"steps": steps, "reduces": reduces}), encoding="utf-8")
    replicas.wait_for_all()


def run_workers(count: int, *, quick: bool) -> dict[str, Any]:
    """Return the measurements of `count` workers, each on a core of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "measured.json"
        words = [sys.executable, "-m", "scripts.bench.distribution", "--worker", str(path)]
        if code := launch([words + ["--quick"] * quick] * count, rendezvous_timeout=600):
            raise SystemExit(code)
        return dict(json.loads(path.read_text()))


def measure(*, quick: bool) -> dict[str, Any]:
    """Return all measurements, the fit, and its error on steps that the fit does not use."""
    load = os.getloadavg()[0]
    one, two = run_workers(1, quick=quick), run_workers(2, quick=quick)
    alone = [row["seconds"] for row in one["steps"]]
    per_image, fixed = map(float, np.polyfit(BATCHES, alone, 1))
    if fixed < 0:  # noise: no step takes less than nothing
        per_image, fixed = alone[-1] / BATCHES[-1], 0.0
    # In a ring of two: 2 hops, and each float goes over the line once in either direction.
    sizes = FLOAT * np.array(FLOATS)
    taken = np.array([row["seconds"] for row in two["reduces"]])
    # Relative errors: absolute ones would fit the largest alone.
    relative = np.stack([2 / taken, sizes / taken], axis=1)
    (latency, inverse), *_ = np.linalg.lstsq(relative, np.ones(len(taken)), rcond=None)
    latency, rate = max(float(latency), 0.0), 1 / max(float(inverse), 1e-15)
    summary = load_config(CONFIGS / "mnist.yaml").model_summary
    parameters = summary.parameters
    exchanged = exchange(2, parameters * FLOAT, latency, rate)
    checks = []
    for row in two["steps"]:
        predicted = fixed + per_image * row["batch"] / 2 + exchanged
        checks.append({"batch": row["batch"], "measured": row["seconds"], "predicted": predicted})
    return {
        "processor": cpu_info()[0],
        "load_average_before": load,
        "steps": one["steps"] + two["steps"],
        "reduces": two["reduces"],
        "fit": {
            "fixed_seconds": fixed,
            "seconds_per_image": per_image,
            "latency_seconds": latency,
            "bytes_per_second": rate,
        },
        "check": checks,
        "mnist": {"parameters": parameters, "macs": sum(row.macs for row in summary.rows)},
    }


def workloads(result: dict[str, Any]) -> list[Workload]:
    """Return the models to predict, at the speed that was measured for configs/mnist.yaml."""
    rate = result["mnist"]["macs"] / max(result["fit"]["seconds_per_image"], 1e-9)
    found = []
    for name, config, side, wider in (
        ("configs/mnist.yaml, 28x28", "mnist.yaml", 28, 1),
        ("configs/images.yaml, 64x64", "images.yaml", 64, 1),
        ("the same at 256x256, 8 times as wide", "images.yaml", 256, 8),
    ):
        summary = load_config(CONFIGS / config).model_summary
        larger = side * side / prod(summary.model.input_shape[:2])
        macs = sum(row.macs for row in summary.rows) * larger * wider * wider
        parameters = summary.parameters * wider * wider
        found.append(Workload(f"{name}: {parameters:,} parameters", parameters, macs / rate))
    return found


def draw(result: dict[str, Any]) -> None:
    """Draw the measurements, and three models on three networks."""
    fit = result["fit"]
    with style.applied():
        page = style.sheet(
            900, 650, "Where more workers pay: a cost model, checked with two",
            "Left above: measured. The rest is predicted by compute / R + ring all-reduce, on "
            "typical networks, at this processor's speed a worker, 1,000 images a step in all",
            "Predictions, not measurements: stragglers, shared links and reading are left out",
        )  # fmt: skip
        axes = page.panel(90, 26, 340, 220, "An all-reduce of two workers, loopback: milliseconds")
        floats = np.array([row["floats"] for row in result["reduces"]])
        milliseconds = [1e3 * row["seconds"] for row in result["reduces"]]
        line = np.geomspace(floats.min(), floats.max(), 50)
        ring = fit["latency_seconds"], fit["bytes_per_second"]
        fitted = exchange(2, line * FLOAT, *ring)
        axes.loglog(line, 1e3 * fitted, color=style.GRAY, label="fitted")
        axes.loglog(floats, milliseconds, "o", color=style.VERMILION, label="measured")
        _label(axes, "parameters")
        axes.legend()
        workers = np.unique(np.geomspace(1, 1000, 100).round())
        for i, work in enumerate(workloads(result), 1):
            axes = page.panel(90 + 440 * (i % 2), 26 + 326 * (i // 2), 340, 220, work.name)
            alone = fit["fixed_seconds"] + work.per_image * max(BATCHES)
            axes.loglog(workers, workers, color=style.LINE, label="ideal")
            for name, (latency, rate) in NETWORKS.items():
                step = fit["fixed_seconds"] + work.per_image * max(BATCHES) / workers
                step = step + exchange(workers, work.parameters * FLOAT, latency, rate)
                axes.loglog(workers, alone / step, label=name)
            _label(axes, "workers", "times as fast")
        axes.legend()
        style.save(page.figure, CHART)


def _label(axes: Axes, x: str, y: str = "") -> None:
    """Name the axes, and write their powers of ten as numbers: 1, 10, 100."""
    axes.set(xlabel=x, ylabel=y, ylim=(1, 1000))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axis.set_minor_locator(NullLocator())


def main() -> None:
    """Measure, write, draw and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--draw", action="store_true", help="only the chart")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, quick=arguments.quick)
        return
    if not arguments.draw:
        write_json(RESULT, measure(quick=arguments.quick))
    result = json.loads(RESULT.read_text())
    draw(result)
    for row in result["steps"]:
        rate = row["batch"] / row["seconds"]
        print(f"{row['workers']} workers, {row['batch']} images a step: {rate:,.0f} images/s")
    for row in result["reduces"]:
        print(f"all-reduce of {row['floats']:,} floats: {row['seconds'] * 1e3:.2f} ms")
    print(json.dumps({"fit": result["fit"], "check": result["check"]}, indent=2))


if __name__ == "__main__":
    main()
