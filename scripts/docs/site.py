"""Build the documentation site from docs/ into site/, as mkdocs.yml says.

python -m scripts.docs.site [FOLDER]      # make docs; needs pip install -e '.[docs]'

A warning, such as a link to nowhere, ends the build. The pages are also read in the repository,
so they use two things that a site has not; the functions called on_... replace them, as MkDocs
calls them for each page.
"""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from typing import Any

from convae.errors import UnsupportedError
from scripts.project import ROOT, exit_with, format_markdown

MERMAID = re.compile(r"```mermaid\n(.*?)```", re.DOTALL)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return the page with text for links to files outside docs/, and tables for drawings.

    A browser draws Mermaid with a script from another server, and the site asks none.
    """
    depth = page.file.src_uri.count("/") + 1  # this many `../` lead out of docs/
    outside = re.compile(rf"\[([^\]]+)\]\((?:\.\./){{{depth}}}[^)]*\)")
    return MERMAID.sub(lambda found: _arrows_table(found[1]), outside.sub(r"\1", markdown))


def _arrows_table(drawing: str) -> str:
    """Return a table of what each name of a Mermaid drawing points to."""
    arrows: dict[str, list[str]] = {}
    for source, target in re.findall(r"(\w+) --> (\w+)", drawing):
        arrows.setdefault(source, []).append(target)
    return format_markdown(["package", "imports"], ((k, ", ".join(v)) for k, v in arrows.items()))


def build() -> None:
    """Build the site into the folder that the command line names, site/ by default."""
    if not all(map(find_spec, ("mkdocs", "material", "mkdocstrings_handlers"))):
        raise UnsupportedError("the site needs MkDocs: pip install -e '.[docs]', or make docs")
    from mkdocs.__main__ import cli

    folder = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "site")
    cli(["build", "--config-file", str(ROOT / "mkdocs.yml"), "--site-dir", folder])


if __name__ == "__main__":
    exit_with(build)
