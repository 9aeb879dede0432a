"""Measure the speed of the article's script, its peers and convae, side by side in one run.

    python -m scripts.bench.speed                          # make bench: every variant, five rounds
    python -m scripts.bench.speed --quality                # seconds until validation loss 0.0610
    python -m scripts.bench.speed --quality --full         # the same without extrapolating: an hour
    python -m scripts.bench.speed --scaling                # cost against data, image and batch size
    python -m scripts.bench.speed --precision              # each config's precisions, and the rule

Every measurement is a process of its own. The variants take turns, so that a machine whose speed
drifts is fair to all, and each figure is the median of the rounds. A ratio is that of the medians.
Steady state: the median time of a step, once three are done. Whole process: from start to exit.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from convae.config.loader import load_config
from convae.config.schema import Data
from convae.data.loading import load_training
from convae.plots import style
from convae.runtime.hardware import cpu_info
from convae.runtime.plan import Hardware, make_plan
from scripts.bench.variants import TARGET
from scripts.project import CONFIGS, describe_machine, write_json

BEST_SEEDS = 3  # at most, of best.yaml: minutes each

VARIANTS = {
    "keras": "the article's script: Keras fit",
    "torch": "PyTorch, written plainly",
    "torch-best": "PyTorch at its strongest",
    "convae-float32": "convae, float32",
    "convae": "convae, automatic settings",
}


def main() -> None:
    """Measure, print a table, write JSON and, for the comparison, a chart."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=10_000, help="a fifth of them to validate")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=VARIANTS, default=list(VARIANTS))
    for function in (quality, scaling, precision):
        name, text = f"--{function.__name__}", function.__doc__
        parser.add_argument(name, dest="measure", action="store_const", const=function, help=text)
    text = f"of fast.yaml with --quality, and of best.yaml at most {BEST_SEEDS}"
    parser.add_argument("--seeds", type=int, default=5, help=text)
    text = "with --quality: run all 25 epochs instead of extrapolating from two"
    parser.add_argument("--full", action="store_true", help=text)
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/benchmark"))
    parser.set_defaults(measure=speed)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "images.npz"
        facts = {"machine": describe_machine(), "data": write_data(data)}
        print(*facts.values(), "", sep="\n")
        result = arguments.measure(arguments, data) | facts
    path = arguments.output_dir / f"{arguments.measure.__name__}.json"
    write_json(path, result)
    print(f"\nwrote {path}")
    drawing = {speed: draw, quality: draw_quality}.get(arguments.measure)
    if drawing:
        print(f"wrote {drawing(result, path.with_suffix('.png'))}")


def write_data(path: Path) -> str:
    """Write 60,000 training images as an npz; return MNIST, or the sample, which is repeated."""
    data = load_training(Data(path=None), (28, 28, 1))
    images = np.concatenate([data.train.images, data.validation.images])
    images = np.resize(images, (60_000, 28, 28))
    # A file with a test split is split as Keras' fit does: both validate on the same images.
    np.savez(path, x_train=images, x_test=images[:1])
    return data.name


def medians(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each figure."""
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def measure(variant: str, data: Path, **options: Any) -> dict[str, Any]:
    """Run a variant; return its own figures, and those of the system for the whole process."""
    words = [f"--{key}={value}" for key, value in options.items()]
    command = [sys.executable, "-m", "scripts.bench.variants", variant, str(data), *words]
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            message = f"{variant} failed with {process.returncode}:\n{errors.read()[-3000:]}"
            raise SystemExit(message)
    return {
        **json.loads(output.splitlines()[-1]),
        "seconds": time.perf_counter() - began,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / 2**10,
    }


def speed(arguments: argparse.Namespace, data: Path) -> dict[str, Any]:
    """Measure all variants in turn: images per second, wall and CPU seconds, memory."""
    rounds: dict[str, list[dict[str, float]]] = {}
    for variant in arguments.only:
        if variant.startswith("torch") and not find_spec("torch"):
            print(f"skipped: {VARIANTS[variant]} (pip install 'convae[bench]')")
        else:
            rounds[variant] = []
    options = {"images": arguments.images, "epochs": arguments.epochs}
    for number in range(arguments.rounds):
        for variant, results in rounds.items():
            print(f"round {number + 1}/{arguments.rounds}: {variant}", file=sys.stderr)
            results.append(measure(variant, data, **options))
    rows = {variant: medians(results) for variant, results in rounds.items()}
    base = rows.get("keras")
    print(f"{'':32}{'images/s':>10}{'ratio':>7}{'wall s':>8}{'CPU s':>8}{'MiB':>7}")
    for variant, row in rows.items():
        row["ratio"] = row["images_per_second"] / base["images_per_second"] if base else 1.0
        # A low share: two threads had one core, or one of them had nothing to do.
        shared = "  (half its threads were idle or shared a core)"
        print(
            f"{VARIANTS[variant]:32}{row['images_per_second']:10,.0f}{row['ratio']:7.2f}"
            f"{row['seconds']:8.1f}{row['cpu_seconds']:8.1f}{row['peak_mib']:7.0f}"
            f"{shared if row['step_cpu_share'] < 0.6 else ''}"
        )
    return {"medians": rows, "rounds": rounds, "images": arguments.images}


def quality(arguments: argparse.Namespace, data: Path) -> dict[str, Any]:
    """Measure the seconds of a process until its validation loss is at TARGET, and draw them."""
    long = {"epochs": 25 if arguments.full else 2}
    cases: dict[str, tuple[str, dict[str, int]]] = {
        "the article's script: Keras fit": ("keras", long),
        "PyTorch at its strongest": ("torch-best", long),
        "mnist.yaml": ("convae", long),
    }
    for config, seeds in (("best", min(BEST_SEEDS, arguments.seeds)), ("fast", arguments.seeds)):
        for seed in range(seeds):
            cases[f"{config}.yaml, seed {seed}"] = (config, {"epochs": 0, "seed": seed})
    result: dict[str, Any] = {"target": TARGET, "cases": {}}
    print("val_loss is that of the last epoch run; a plus: extrapolated from two epochs to 25")
    print(f"{'':34}{'val_loss':>9}{'excess':>9}{'seconds':>10}{'ratio':>8}{'MiB':>7}{'loop':>8}")
    for name, (variant, options) in cases.items():
        if variant.startswith("torch") and not find_spec("torch"):
            continue
        row = result["cases"][name] = measure(variant, data, images=0, **options)
        row["extrapolated"] = options["epochs"] == 2
        if row["extrapolated"]:
            (first, _), (second, _) = row["curve"]
            row["seconds"] += 23 * (second - first)
        base = result["cases"]["the article's script: Keras fit"]["seconds"]
        row["ratio"] = base / row["seconds"]
        seconds = f"{row['seconds']:,.1f}{'+' if row['extrapolated'] else ''}"
        excess, loop = row.get("excess"), row.get("loop_share")
        print(
            f"{name:34}{row['val_loss']:9.5f}{'' if excess is None else f'{excess:.5f}':>9}"
            f"{seconds:>10}{row['ratio']:8.1f}{row['peak_mib']:7.0f}"
            f"{'' if loop is None else f'{loop:.2%}':>8}",
            flush=True,
        )
    return result


def scaling(arguments: argparse.Namespace, data: Path) -> dict[str, Any]:
    """Measure speed and memory against the number of images, their size and the batch."""
    result: dict[str, Any] = {}
    cases = [("images", {"images": n}) for n in (10_000, 20_000, 40_000, 60_000)]
    cases += [("memory-mapped", {"mapped": 600_000})]
    cases += [("image size", {"side": side}) for side in (14, 28, 56, 112)]
    cases += [("batch", {"batch": batch}) for batch in (50, 100, 250, 1000)]
    for title, options in cases:
        row = medians([measure("engine", data, **options) for _ in range(arguments.rounds)])
        key = f"{title} {next(iter(options.values())):,}"
        result[key] = row
        print(f"{key:24}{row['images_per_second']:10,.0f} images/s{row['peak_mib']:8.0f} MiB")
    return result


def precision(arguments: argparse.Namespace, data: Path) -> dict[str, Any]:
    """Measure every shipped model in both precisions, beside the choice of auto."""
    batch, hardware = 100, Hardware((), "", *cpu_info())
    models: dict[str, list[str]] = {}
    for path in sorted(CONFIGS.glob("*.yaml")):
        if path.name != "sweep.yaml":  # the only one that is no training's config
            config = load_config(path)
            models.setdefault(repr((config.model, config.task)), []).append(path.name)
    result: dict[str, Any] = {"batch": batch}
    print(f"{'':36}{'float32':>9}{'bfloat16':>10}{'ratio':>7}  auto")
    for names in models.values():
        config = load_config(CONFIGS / names[0])
        auto = make_plan(config, hardware, distributed=False).precision
        row: dict[str, Any] = {}
        for kind in ("float32", "mixed_bfloat16"):
            options = {"config": names[0], "precision": kind, "batch": batch}
            rounds = [measure("config", data, **options) for _ in range(arguments.rounds)]
            row[kind] = medians(rounds)["images_per_second"]
        ratio = row["mixed_bfloat16"] / row["float32"]
        name = " ".join(n.removesuffix(".yaml") for n in names)
        result[name] = row | {"auto": auto}
        wrong = "" if (ratio > 1) == (auto == "mixed_bfloat16") else "  (the slower)"
        speeds = f"{row['float32']:9,.0f}{row['mixed_bfloat16']:10,.0f}"
        print(f"{name:36}{speeds}{ratio:7.2f}  {auto}{wrong}", flush=True)
    return result


@style.applied()
def draw(result: dict[str, Any], path: Path) -> Path:
    """Draw images per second of each variant, as bars."""
    rows = result["medians"]
    height = 34 * len(rows)
    sheet = style.sheet(440, height + 24, "Training images per second", result["machine"])
    axes = sheet.panel(170, 4, 250, height - 4 * len(rows))
    speeds = [row["images_per_second"] for row in rows.values()]
    colors = [style.BLUE if name.startswith("convae") else style.GRAY for name in rows]
    bars = axes.barh([VARIANTS[name] for name in rows], speeds, color=colors, height=0.6)
    labels = [f" {row['images_per_second']:,.0f}  ({row['ratio']:.2f}x)" for row in rows.values()]
    axes.bar_label(bars, labels)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set(xlim=(0, 1.4 * max(speeds)), xlabel="images per second")
    return style.save(sheet.figure, path)


@style.applied()
def draw_quality(result: dict[str, Any], path: Path) -> Path:
    """Draw the excess loss of each case over the seconds of its process."""
    subtitle = f"{result['machine']}; dashed: extrapolated from two epochs to 25"
    title = "Validation loss over the entropy floor, by seconds since the start"
    sheet = style.sheet(760, 380, title, subtitle)
    axes = sheet.panel(style.MARGIN + 60, 10, 620, 310)
    colors = dict(zip(
        ("the article's", "PyTorch", "mnist.yaml", "best.yaml", "fast.yaml"),
        (style.GRAY, style.ORANGE, style.BLUE, style.GREEN, style.VERMILION), strict=True,
    ))  # fmt: skip
    rows = result["cases"]
    # All validate on the same images, so that the floor is the same.
    floor = next(row["val_loss"] - row["excess"] for row in rows.values() if "excess" in row)
    target = result["target"] - floor
    plotted = [target]
    for name, row in rows.items():
        kind = next(kind for kind in colors if name.startswith(kind))
        seconds = [second for second, _ in row["curve"]]
        values = [loss - floor for _, loss in row["curve"]]
        plotted += values
        config, _, seed = name.partition(", seed ")
        label = {"": name, "0": f"{config}, each seed"}.get(seed)  # one label for all seeds
        axes.plot(seconds, values, "o-", color=colors[kind], label=label, markersize=4)
        if row["extrapolated"]:
            ends = [seconds[-1], row["seconds"]], [values[-1], target]
            axes.plot(*ends, "--", color=colors[kind])
    axes.axhline(target, color=style.LINE, zorder=0)
    axes.annotate(
        f"validation loss {result['target']}", (0.01, target), xycoords=("axes fraction", "data"),
        va="bottom", color=style.GRAY,
    )  # fmt: skip
    style.log_axis(axes, "x", [row["curve"][0][0] for row in rows.values()] +
                   [row["seconds"] for row in rows.values()])  # fmt: skip
    style.log_axis(axes, "y", plotted)
    axes.set(xlabel="seconds (log scale)", ylabel="loss over the floor (log scale)")
    axes.legend(fontsize=style.TEXT)
    return style.save(sheet.figure, path)


if __name__ == "__main__":
    main()
