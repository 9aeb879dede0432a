"""Comparison of runs: tables, figures, page."""

import json
import re
from pathlib import Path

import pytest

from convae.config.loader import load_config
from convae.errors import ConvaeError
from convae.evaluation import compare as comparison
from convae.runs.run import Run
from tests.cli.test_runs import made
from tests.conftest import ROOT, Command, tiny


def test_two_to_seven_runs_can_be_compared(tmp_path: Path) -> None:
    runs = [made(tmp_path, f"run{i}") for i in range(8)]
    with pytest.raises(ConvaeError, match="at least two different runs"):
        comparison.distinct([runs[0], Run(runs[0].path)])
    with pytest.raises(ConvaeError, match="at most 7 runs. Received: 8"):
        comparison.distinct(runs)
    assert len(comparison.distinct(runs[:2])) == 2


@pytest.fixture
def trained(digits: Path, tmp_path: Path) -> list[Run]:
    from convae.training.trainer import train

    settings = [
        [],
        ["training.epochs=1", "name=short", "model.decoder.0.kernel_size=3"],
        ["name=big", "data.resize=[30,30]", "model.input_shape=[30,30,1]"],
    ]
    return [
        train(load_config(ROOT / "configs/mnist.yaml", tiny(digits, tmp_path / "outputs", *more)))
        for more in settings
    ]


@pytest.mark.slow
def test_compares_configs_and_evaluates_where_needed(trained: list[Run], tmp_path: Path) -> None:
    assert not trained[0].metrics
    result = comparison.compare(trained, tmp_path / "page")
    assert [run["label"] for run in result["runs"]] == ["mnist", "short", "big"]
    assert set(result["differences"]) == {"training.epochs", "data.resize", "model.input_shape"}
    assert result["differences"]["training.epochs"] == {"mnist": "2", "short": "1", "big": "2"}
    for run in result["runs"]:
        psnr = Run(Path(run["path"])).metrics["test"]["psnr"]
        assert result["metrics"]["psnr"][run["label"]] == psnr
    assert len(result["metrics"]["psnr"]) == 3
    assert [run["epochs"] for run in result["runs"]] == [2, 1, 2]
    assert any("takes images of 30x30x1" in note for note in result["notes"])
    for path in result["files"].values():
        assert Path(path).stat().st_size > 5000
    page = Path(result["files"]["page"]).read_text(encoding="utf-8")
    assert page.count("data:image/png") == 2
    assert not re.findall(r"https?://|<script|src=\"(?!data:)", page)
    assert re.search(r"training.epochs +2 +1 +2", comparison.format_result(result))
    json.dumps(result)
    assert comparison.compare(trained, tmp_path / "page") == result


def test_the_best_value_is_marked_where_the_metric_has_an_order() -> None:
    best = comparison._best
    assert best("psnr", [30.0, 31.0, None]) == [False, True, False]
    assert best("excess", [0.1, 0.2]) == [True, False]
    assert best("floor", [0.1, 0.2]) == best("mse", [0.1, 0.1]) == [False, False]


def test_runs_of_the_same_name_get_the_end_of_their_ids() -> None:
    facts = [{"name": "a", "id": "t-0001"}, {"name": "a", "id": "t-0002"}, {"name": "b", "id": "c"}]
    assert comparison._labels(facts) == ["a 0001", "a 0002", "b"]


def test_the_command_refuses(convae: Command, tmp_path: Path) -> None:
    made(tmp_path / "outputs", "one")
    assert "at least two different runs" in convae("compare", "one", "one", code=2).stderr
    assert "no run called 'tow'" in convae("compare", "one", "tow", code=2).stderr
