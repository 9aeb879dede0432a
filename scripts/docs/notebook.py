"""Run notebooks/reading.ipynb and keep its outputs.

python -m scripts.docs.notebook            # make notebook
"""

from __future__ import annotations

from typing import Any

from scripts.project import ROOT

PATH = ROOT / "notebooks/reading.ipynb"


def run_notebook() -> Any:
    """Return the notebook with fresh outputs. Raises nbclient's CellExecutionError."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(PATH, as_version=4)
    NotebookClient(
        notebook,
        timeout=300,  # seconds for a cell
        kernel_name="python3",
        record_timing=False,  # so that the same outputs give the same file
        resources={"metadata": {"path": str(PATH.parent)}},
    ).execute()
    return notebook


if __name__ == "__main__":
    import nbformat

    nbformat.write(run_notebook(), PATH)
    print(f"{PATH}: {PATH.stat().st_size:,} bytes")
