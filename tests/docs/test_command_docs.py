"""docs/commands/ shows the output of `--help`, and an example of every command."""

import pytest

from scripts.docs.command_pages import END, FOLDER, helps, pages


def test_pages_show_the_help_of_today() -> None:
    wanted = pages()
    assert {path.name for path in wanted} | {"README.md"} == {p.name for p in FOLDER.glob("*.md")}
    for path, text in wanted.items():
        assert path.read_text(encoding="utf-8") == text, "run python -m scripts.docs.command_pages"


@pytest.mark.parametrize("command", [command for command in helps() if " " not in command])
def test_every_command_has_an_example_and_a_line_in_the_index(command: str) -> None:
    page = (FOLDER / f"{command}.md").read_text(encoding="utf-8")
    by_hand = page.partition("## Help")[0]
    assert f"\nconvae {command}" in by_hand
    assert page.rstrip().endswith(END)
    assert f"[{command}]({command}.md)" in (FOLDER / "README.md").read_text(encoding="utf-8")
