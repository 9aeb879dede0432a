"""Run notebooks/reading.ipynb from beginning to end and keep what comes out.

python -m scripts.docs.notebook            # make notebook
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

PATH = Path(__file__).parents[2] / "notebooks/reading.ipynb"
LIMIT = 300  # seconds that a cell may take


def executed(path: Path = PATH) -> Any:
    """The notebook at `path` with fresh outputs. Raises nbclient's CellExecutionError."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        timeout=LIMIT,
        kernel_name="python3",
        record_timing=False,  # so that the same outputs give the same file
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    return notebook


if __name__ == "__main__":
    import nbformat

    nbformat.write(executed(), PATH)
    print(f"{PATH}: {PATH.stat().st_size:,} bytes")
