"""What the scripts share: the repository, its command line, the machine, tables and JSON files."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from convae.console import print_error
from convae.errors import ConvaeError
from convae.files import write_atomic
from convae.runs.run import Run
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


def write_between(page: str, begin: str, text: str, end: str) -> str:
    """Return `page` with `text` between the lines `begin` and `end`, which are added if missing."""
    before, _, rest = page.partition(begin)
    after = rest.partition(end)[2] or "\n"
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def finished_runs(name: str, outputs: str | Path, fits: Callable[[Run], bool]) -> list[Run]:
    """Return the finished runs called `name` that fit, oldest first."""
    return [
        run
        for run in Run.all(str(outputs))
        if run.path.parent.name == name and run.manifest.get("status") == "finished" and fits(run)
    ]


def exit_with(main: Callable[[], object]) -> NoReturn:
    """Run `main` and exit; an error of convae is one message and exit code 2."""
    try:
        main()
    except ConvaeError as error:
        print_error(str(error))
        raise SystemExit(2) from None
    raise SystemExit
