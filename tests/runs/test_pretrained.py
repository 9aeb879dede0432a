"""Shipped weights have the metrics of their cards."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from convae.errors import ConvaeError
from convae.runs import pretrained
from convae.runs.run import Run
from convae.tasks import generate
from tests.conftest import SAMPLE, Command


@pytest.mark.parametrize(
    "name",
    [n if n == "mnist" else pytest.param(n, marks=pytest.mark.slow) for n in pretrained.names()],
)
def test_metrics_on_the_sample_are_those_of_the_card(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convae.evaluation.evaluate import evaluate

    monkeypatch.setattr(generate, "SAMPLES", 5)  # of a metric that is not compared: two minutes
    run = Run.find(f"pretrained:{name}", str(tmp_path))
    result = evaluate(run, [f"data.path={SAMPLE}"])
    card = pretrained.card(name)
    assert result["test"] == pytest.approx(card["sample"], rel=1e-3)
    assert result["weights"]["epoch"] is None
    assert (run.path / "figures" / "scores.png").exists()


def test_shipped_weights_are_small_and_open_without_convae() -> None:
    paths = [pretrained.FOLDER / f"{name}.keras" for name in pretrained.names()]
    assert max(path.stat().st_size for path in paths) < 1_000_000
    code = """
import sys
sys.modules["convae"] = None
import keras
for path in sys.argv[1:]:
    print(keras.models.load_model(path).count_params())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *paths],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    cards = [pretrained.card(name) for name in pretrained.names()]
    assert list(map(int, done.stdout.split())) == [c["manifest"]["parameters"] for c in cards]


def test_an_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(ConvaeError, match=r"no shipped weights are called 'mnits'.*mnist"):
        Run.find("pretrained:mnits")


def test_the_command_lists_the_cards(convae: Command) -> None:
    rows = json.loads(convae("pretrained", "--json", code=0).stdout)
    assert [row["name"] for row in rows] == pretrained.names()
    for row in rows:
        assert row["test"] == pretrained.card(row["name"])["test"]
        assert (row["license"], row["bytes"] > 50_000) == ("MIT", True)
    table, denoise = convae("pretrained", code=0), pretrained.card("denoise")
    facts = f"PSNR {denoise['test']['psnr']:.2f}", f"{denoise['bytes'] / 1000:.0f} kB"
    assert all(part in table.stdout for part in ("denoise", "MIT", *facts))
    assert table.stderr.startswith("next: convae predict pretrained:")
