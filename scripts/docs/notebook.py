"""Run notebooks/article.ipynb and keep its outputs.

python -m scripts.docs.notebook            # make notebook
"""

from __future__ import annotations

import tempfile
from typing import Any

from scripts.project import ROOT

PATH = ROOT / "notebooks/article.ipynb"


def run_notebook() -> Any:
    """Return the notebook with fresh outputs. Raises nbclient's CellExecutionError."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(PATH, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=300,  # seconds for a cell
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": folder}},
        ).execute()
    return notebook


def remove_progress(notebook: Any) -> None:
    """Remove progress bars, which are text on stderr or widgets, from the outputs."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_progress(output)]


def _is_progress(output: Any) -> bool:
    widget = "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    return widget or output.get("name") == "stderr"


if __name__ == "__main__":
    import nbformat

    executed = run_notebook()
    remove_progress(executed)
    nbformat.write(executed, PATH)
    print(f"{PATH}: {PATH.stat().st_size:,} bytes")
