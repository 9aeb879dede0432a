"""Every shipped YAML trains, shrunk: examples cannot rot."""

import math
from pathlib import Path

import pytest
from PIL import Image

from convae.config import shipped
from convae.config.loader import load_config
from tests.conftest import ROOT

# All but the ranges of a sweep: tests/sweep/test_study.py has those.
CONFIGS = sorted(p for p in (ROOT / "configs").glob("*.yaml") if p.stem != "sweep")
LIKE_MNIST = ("best", "fast", "fashion", "smoke")  # the same layers and task


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem in LIKE_MNIST))
        for path in CONFIGS
    ],
)
def test_a_shipped_config_trains_and_evaluates(path: Path, digits: Path, tmp_path: Path) -> None:
    from convae.evaluation.evaluate import evaluate
    from convae.training.trainer import train

    source = digits
    if path.stem == "images":  # RGB, from a folder
        source = tmp_path / "photos"
        source.mkdir()
        for i in range(40):
            Image.new("RGB", (90 - i, 70 + i), (5 * i, 90, 200)).save(source / f"{i}.png")
    small = [f"data.path={source}", "data.subset=30", "training.epochs=1",
             "training.batch_size=12", "training.samples_per_epoch=null",
             f"output.folder={tmp_path}"]  # fmt: skip
    if path.stem == "images":
        small += ["data.resize=[72,72]", "data.crop=random"]
    if path.stem == "anomaly":  # one digit of ten is left
        small += ["data.subset=250"]
    if path.stem == "segment":  # scenes are drawn, as many as are asked for
        small += ["training.samples_per_epoch=24", "task.scenes=12"]
    run = train(load_config(path, small))
    assert run.config.name == path.stem
    assert all(math.isfinite(value) for value in evaluate(run)["test"].values())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_config_says_what_it_is_for_and_how_to_run_it(path: Path) -> None:
    schema, first, *rest = path.read_text().splitlines()
    assert schema == f"# yaml-language-server: $schema={shipped.SCHEMA}"
    assert first == f"# {shipped.describe(path.stem)}"
    assert first.endswith(".")  # a sentence: `convae configs` lists it
    assert f"convae train {path.stem}" in "\n".join(line for line in rest if line.startswith("#"))
