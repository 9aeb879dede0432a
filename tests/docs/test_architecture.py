"""docs/architecture.md shows the packages of today, and names files that exist."""

import re

from scripts.docs.package_diagram import PAGE, page, reduce_transitively
from tests.conftest import ROOT


def test_the_drawing_is_fresh() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m scripts.docs.package_diagram"


def test_arrows_that_follow_from_others_are_left_out() -> None:
    imports = {"a": {"b", "c"}, "b": {"c"}, "c": set[str]()}
    assert reduce_transitively(imports) == {"a": {"b"}, "b": {"c"}, "c": set()}


def test_named_files_exist() -> None:
    names = re.findall(r"`((?:src|tests|scripts|configs|docs)/[\w/.-]+)`", PAGE.read_text())
    assert names
    assert not [name for name in names if not (ROOT / name).exists()]
