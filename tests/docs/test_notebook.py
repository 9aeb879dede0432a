"""The notebook runs, and is small."""

import json
import re
import unittest.mock
from importlib.util import find_spec
from pathlib import Path

import pytest

from scripts.docs.notebook import PATH, remove_progress, run_notebook


def test_is_small_and_names_no_machine() -> None:
    text = PATH.read_text(encoding="utf-8")
    assert len(text) < 300_000
    assert "/home/" not in text
    assert "/tmp/" not in text
    assert '"stderr"' not in text
    assert "Kopal Garg, *Transposed Convolutions* (2022)" in text


def test_installs_convae_where_it_is_missing_and_nowhere_else() -> None:
    cells = [cell for cell in json.loads(PATH.read_text())["cells"] if cell["cell_type"] == "code"]
    source = "".join(cells[0]["source"])
    assert source.startswith("try:\n    import convae\nexcept ImportError:")
    code = source.replace("%pip install --quiet", "installed.append('") + "')"
    for modules, installs in ({"convae": object()}, []), ({"convae": None}, [" convae"]):
        installed: list[str] = []
        with unittest.mock.patch.dict("sys.modules", modules):
            exec(code, {"installed": installed})
        assert installed == installs


@pytest.mark.slow
def test_runs_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONWARNINGS", "default")
    for proxy in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")  # a port where no server listens
    notebook = run_notebook()
    outputs = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    printed = "".join(out.get("text", "") for out in outputs)
    html = "".join(out.get("data", {}).get("text/html", "") for out in outputs)
    assert "<td>12,785</td>" in html or "12,785 parameters" in html
    assert "<th>Test split</th><th>this run</th>" in html
    assert "epoch 2: loss 0." in printed
    assert sum("image/png" in out.get("data", {}) for out in outputs) == 2
    shown = "".join(out.get("text", "") for out in outputs if out.get("name") == "stderr")
    if find_spec("ipywidgets") is None:
        assert re.search(r"epochs: 100%.*2/2", shown)
    assert "IProgress" not in shown
    remove_progress(notebook)
    kept = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    assert "stderr" not in {out.get("name") for out in kept}
