"""What the scripts share: the repository, its command line, the machine, tables and JSON files."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from convae.files import write_atomic
from convae.runtime.hardware import core_count, cpu_info

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
IMAGES = ROOT / "docs/images"


def run_convae(*words: object) -> dict[str, Any]:
    """Run `convae WORDS --json` in the repository's root; return its answer."""
    command = [sys.executable, "-m", "convae", *map(str, words), "--json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def describe_machine() -> str:
    """Return the processor, its cores and the Python version in one line."""
    return f"{cpu_info()[0]}, {core_count()} cores, Python {platform.python_version()}"


def format_markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown, without a line break at its end."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def write_json(path: Path, data: Any) -> None:
    """Write `data` to `path`, whose folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, (json.dumps(data, indent=2) + "\n").encode())
