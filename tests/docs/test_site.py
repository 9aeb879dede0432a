"""The documentation site is built without a warning, can be searched, and needs no other server."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.browser import chromium
from tests.conftest import ROOT

BUILD = [sys.executable, "-m", "scripts.docs.site"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [*BUILD, folder], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_pages_have_no_links_out_of_the_site_and_no_mermaid(site: Path) -> None:
    page = (site / "architecture.html").read_text(encoding="utf-8")
    assert "<td>training</td>" in page
    assert "mermaid" not in page
    for path in site.rglob("*.html"):
        assert 'href="../../../src' not in path.read_text(encoding="utf-8")


def test_a_broken_link_ends_the_build(tmp_path: Path) -> None:
    for name in ("docs", "scripts", "src"):
        (tmp_path / name).symlink_to(ROOT / name)
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    docs = tmp_path / "pages"
    docs.mkdir()
    (docs / "index.md").write_text("[nowhere](missing.md)\n")
    nav = text.index("\nnav:")
    (tmp_path / "mkdocs.yml").write_text(text[:nav].replace("docs_dir: docs", "docs_dir: pages"))
    command = [sys.executable, "-m", "mkdocs", "build", "-d", str(tmp_path / "site")]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1
    assert "missing.md" in done.stderr


def test_without_mkdocs_one_message(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['mkdocs'] = None; import runpy; "
        "runpy.run_module('scripts.docs.site', run_name='__main__')"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "convae: the site needs MkDocs: pip install -e '.[docs]', or make docs\n"


def test_search_finds_a_key_and_no_other_server_is_asked(address: str) -> None:
    with chromium() as browser:
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{address}/index.html")
        page.locator("input[name=query]").press_sequentially("output_padding")
        page.wait_for_selector(".md-search-result__item", timeout=20_000)
        found = page.inner_text(".md-search-result__list")
    assert "Transposed convolution" in found
    assert not [url for url in asked if not url.startswith((address, "data:"))]
