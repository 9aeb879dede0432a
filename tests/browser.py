"""A browser for the tests of pages; tests that need one skip where there is none."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@contextmanager
def chromium() -> Iterator[Any]:
    """Start Chromium, without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS.split())
        yield browser
        browser.close()


def check_accessible(page: Any) -> None:
    """Assert that axe-core finds no violation of WCAG 2.1 AA on the page, which is in view."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-core here")
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
    found = axe.Axe().run(page, options={"runOnly": {"type": "tag", "values": tags}})
    assert len(found.response["passes"]) > 5
    assert not found.response["violations"], found.generate_report()
