"""Write the output of `--help` into docs/commands/, one page per command.

python -m scripts.docs.command_pages      # tests/docs/test_command_docs.py finds stale pages

Everything else in a page is written by hand. A new command gets a page without an example.
"""

import os
from pathlib import Path

from scripts.project import ROOT, write_between

FOLDER = ROOT / "docs/commands"
BEGIN, END = "<!-- written by scripts/docs/command_pages.py -->", "<!-- end -->"


def helps() -> dict[str, str]:
    """Return the output of `--help` by command, such as "train" and "explain inverse"."""
    os.environ |= {"COLUMNS": "88", "TERMINAL_WIDTH": "88", "NO_COLOR": "1"}
    from typer.main import get_command
    from typer.testing import CliRunner

    from convae.cli.main import app

    def run(*words: str) -> str:
        done = CliRunner().invoke(app, [*words, "--help"], prog_name="convae")
        return "\n".join(line.rstrip() for line in done.output.strip().splitlines())

    found = {}
    for name, command in vars(get_command(app))["commands"].items():
        found[name] = run(name)
        for below in getattr(command, "commands", ()):
            found[f"{name} {below}"] = run(name, below)
    return found


def pages() -> dict[Path, str]:
    """Return each page with the help of today."""
    blocks: dict[str, list[str]] = {}
    for command, text in helps().items():
        blocks.setdefault(command.split()[0], []).append(f"```text\n{text}\n```")
    found = {}
    for command, texts in blocks.items():
        path = FOLDER / f"{command}.md"
        page = path.read_text(encoding="utf-8") if path.exists() else f"# convae {command}\n\n"
        found[path] = write_between(page, BEGIN, "\n\n".join(texts), END)
    return found


if __name__ == "__main__":
    for path, text in pages().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(path)
