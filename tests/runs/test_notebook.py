"""What a notebook shows of runs, models and model summaries."""

from pathlib import Path

import pytest

from convae.config.loader import load_config
from convae.runs.run import Run


def test_a_run_shows_its_metrics_and_figures(tmp_path: Path) -> None:
    run = Run.create(load_config("mnist", [f"output.folder={tmp_path}/<outputs>"]))
    assert "<td>not started</td>" in run._repr_html_()
    assert "<td>" + str(run.path).replace("<", "&lt;").replace(">", "&gt;") in run._repr_html_()
    assert run.figures == {}
    row = {"loss": 0.3, "learning_rate": 0.001, "seconds": 1.0, "images_per_second": 5.0}
    losses = ((1, 0.25), (2, 0.125), (3, 0.5))
    run.write_history([{**row, "epoch": e, "val_loss": v, "val_excess": v / 2} for e, v in losses])
    run.update_manifest(status="finished")
    baselines = {"mean_image": {"mse": 0.0675}}
    run.write_json("metrics.json", {"test": {"mse": 0.0004}, "baselines": baselines})
    html = run._repr_html_()
    assert "<tr><td>Epochs</td><td>3</td></tr>" in html
    assert "0.12500, excess 0.06250, of epoch 2" in html
    assert "<th>this run</th><th>mean image</th>" in html
    assert "<tr><td>mse</td><td>0.0004000</td><td>0.06750</td></tr>" in html
    (run.path / "figures").mkdir()
    (run.path / "figures/code.png").write_bytes(b"a picture")
    assert run.figures["code"]._repr_png_() == b"a picture"


def test_a_model_summary_is_a_table_with_notes() -> None:
    html = load_config("mnist").model_summary._repr_html_()
    assert html.startswith("<table><thead><tr><th>Layer</th>")
    assert html.count("<tr>") == 9
    assert "<td>conv2d_1</td><td>26x26x32</td><td>320</td>" in html
    assert "12,785 parameters" in html
    assert "<br>" in html
    assert "Warning: the code 22x22x8" in html


def test_an_autoencoder_shows_its_layers() -> None:
    pytest.importorskip("tensorflow")
    from convae.inference.autoencoder import Autoencoder
    from convae.models.builder import build_model

    config = load_config("bottleneck")
    html = Autoencoder(build_model(config), config)._repr_html_()
    assert html.startswith("<p>Autoencoder bottleneck: 28x28x1 to a code of 1x1x32</p><table>")
    assert Autoencoder(build_model(config))._repr_html_().endswith("1x1x32</p>")
