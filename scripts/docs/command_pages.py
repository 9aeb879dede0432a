"""Write what `--help` says into docs/commands/, one page per command; all else there is by hand.

python -m scripts.docs.command_pages      # tests/docs/test_command_docs.py finds stale pages

A command without a page gets one, to be completed with an example.
"""

import os
import re
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs/commands"
BEGIN, END = "<!-- written by scripts/docs/command_pages.py -->", "<!-- end -->"


def helps() -> dict[str, str]:
    """By command, such as "train" and "explain inverse", what its `--help` prints."""
    os.environ |= {"COLUMNS": "88", "TERMINAL_WIDTH": "88", "NO_COLOR": "1"}
    from typer.testing import CliRunner

    from convae.cli.main import app

    def ask(*words: str) -> str:
        done = CliRunner().invoke(app, [*words, "--help"], prog_name="convae")
        return "\n".join(line.rstrip() for line in done.output.strip().splitlines())

    def below(text: str) -> list[str]:
        return re.findall(
            r"^  ([a-z][a-z-]*)(?:  |$)", text.partition("\nCommands:\n")[2], re.MULTILINE
        )

    found = {}
    for command in below(ask()):
        found[command] = ask(command)
        for sub in below(found[command]):
            found[f"{command} {sub}"] = ask(command, sub)
    return found


def pages() -> dict[Path, str]:
    """By file, the pages as they should be: those of now, with the help of now."""
    found: dict[Path, str] = {}
    blocks: dict[str, list[str]] = {}
    for command, text in helps().items():
        blocks.setdefault(command.split()[0], []).append(f"```text\n{text}\n```")
    for command, texts in blocks.items():
        path = FOLDER / f"{command}.md"
        page = path.read_text(encoding="utf-8") if path.exists() else f"# convae {command}\n"
        body = "\n\n".join([BEGIN, *texts, END])
        before, _, rest = page.partition(BEGIN)
        after = rest.partition(END)[2]
        found[path] = f"{before.rstrip()}\n\n{body}{after.rstrip()}\n"
    return found


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path, text in pages().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(path)
