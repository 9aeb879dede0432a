"""The notebook runs, and is small."""

from pathlib import Path

import pytest

from scripts.docs.notebook import PATH, run_notebook


def test_is_small_and_names_no_machine() -> None:
    text = PATH.read_text(encoding="utf-8")
    assert len(text) < 300_000
    assert "/home/" not in text
    assert "/tmp/" not in text
    assert '"stderr"' not in text
    assert "Kopal Garg, *Transposed Convolutions* (2022)" in text


@pytest.mark.slow
def test_runs_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONWARNINGS", "default")
    for proxy in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")  # a port where no server listens
    cells = run_notebook().cells
    outputs = [out for cell in cells if cell.cell_type == "code" for out in cell.outputs]
    printed = "".join(out.get("text", "") for out in outputs)
    assert "12,785" in printed
    assert "epoch 2: loss 0." in printed
    assert sum("image/png" in out.get("data", {}) for out in outputs) == 2
