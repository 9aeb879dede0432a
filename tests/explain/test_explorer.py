"""The explorer page in a browser: its arithmetic against operation.py."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convae.errors import ConvaeError
from convae.explain.explorer import build_page, write_page
from convae.explain.operation import ConvOptions
from convae.explain.worked_example import Case
from convae.layers.arithmetic import Padding
from tests.browser import check_accessible, chromium

PADDINGS: tuple[Padding | int, ...] = ("valid", "same", 0, 1, 2, 3)


def test_loads_nothing_from_the_network() -> None:
    html = build_page()
    assert "__PRESETS__" not in html
    assert not re.findall(r"https?://|//cdn|@import|url\(|<link|src=", html)


def test_write_page(tmp_path: Path) -> None:
    assert write_page(tmp_path / "new" / "page.html").read_text(encoding="utf-8") == build_page()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConvaeError, match="cannot be written"):
        write_page(tmp_path / "file" / "page.html")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    path = write_page(tmp_path_factory.mktemp("page") / "explain.html")
    with chromium() as browser:
        context = browser.new_context(viewport={"width": 375, "height": 800}, offline=True)
        opened = context.new_page()
        wrong: list[str] = []
        opened.on("pageerror", lambda error: wrong.append(str(error)))
        opened.on("request", lambda request: wrong.append(request.url))
        opened.goto(path.as_uri())
        yield opened
        assert wrong == [path.as_uri()]  # the page itself, no error, nothing else asked for


def random_cases(count: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    cases = []
    for _ in range(count):
        h, w, kh, kw = (int(n) for n in random.integers(1, 6, 4))
        strides = int(random.integers(1, 5))
        dilation = int(random.integers(1, 4)) if strides == 1 or random.random() < 0.1 else 1
        cases.append(
            {
                "input": random.integers(-9, 10, (h, w)).tolist(),
                "kernel": random.integers(-9, 10, (kh, kw)).tolist(),
                "strides": strides,
                "padding": PADDINGS[random.integers(6)],
                "output_padding": [None, *range(strides + 1)][random.integers(strides + 2)],
                "dilation_rate": dilation,
            }
        )
    return cases


def ours(case: dict[str, Any]) -> Case | str:
    extra = case["output_padding"]
    setting = ConvOptions(
        (case["strides"],) * 2,
        case["padding"],
        None if extra is None else (extra, extra),
        (case["dilation_rate"],) * 2,
    )
    try:
        return Case(np.array(case["input"]), np.array(case["kernel"]), setting)
    except ConvaeError as error:
        return str(error)


def test_arithmetic_equals_that_of_python(page: Any) -> None:
    cases = random_cases(700)
    answers = page.evaluate("(cases) => cases.map(convae.compute)", cases)
    grids = page.evaluate(
        "(cases) => cases.map((c) => { const f = convae.compute(c); return f.error ? null : "
        "convae.zeroGrid(c, f).map((row) => row.map((v) => v ?? 0)); })",
        cases,
    )
    legal = 0
    for case, answer, grid in zip(cases, answers, grids, strict=True):
        expected = ours(case)
        if isinstance(expected, str):
            assert answer.get("error") == expected, case
            continue
        legal += 1
        assert answer["output"] == expected.result().tolist(), case
        assert answer["canvas"] == expected.canvas().tolist(), case
        assert answer["formula"] == [expected.format_formula(0), expected.format_formula(1)], case
        assert [tuple(c) for c in answer["crop"]] == list(expected.crops), case
        flipped = expected.kernel[::-1, ::-1]
        plain = ConvOptions(dilation_rate=expected.options.dilation_rate)
        slid = Case(np.array(grid), flipped, plain, "conv")
        assert slid.result().tolist() == answer["output"], case
    assert legal > 350


def test_code_contains_the_options(page: Any) -> None:
    code = page.evaluate(
        "convae.keras({input: [[1, 2]], kernel: [[1], [2]], strides: 2, padding: 1, "
        "output_padding: null, dilation_rate: 1})"
    )
    assert 'Conv2DTranspose(\n    1, (2, 1), strides=2, padding="valid", output_padding=0' in code
    assert "Cropping2D(1)" in code
    compile(code, "page", "exec")


@pytest.mark.slow
def test_code_runs_and_gives_the_result(page: Any, tmp_path: Path) -> None:
    cases = [case for case in random_cases(60) if not isinstance(ours(case), str)]
    assert len(cases) > 20
    codes = page.evaluate("(cases) => cases.map(convae.keras)", cases)
    code = "\n".join(f"{code}\nprint('next')" for code in codes)
    done = subprocess.run(
        [sys.executable, "-c", "import numpy; numpy.set_printoptions(threshold=10**6)\n" + code],
        env={**os.environ, "TF_ENABLE_ONEDNN_OPTS": "1"},  # for dilation
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for case, printed in zip(cases, done.stdout.split("next\n"), strict=False):
        numbers = [float(n) for n in re.findall(r"-?[\d.]+(?:e[-+]\d+)?", printed)]
        expected = ours(case)
        assert isinstance(expected, Case)
        assert numbers == expected.result().ravel().tolist()


def test_plays_by_keyboard_and_pointer(page: Any) -> None:
    note = page.locator("#note")
    page.keyboard.press("Home")
    assert "empty" in note.inner_text()
    page.keyboard.press("ArrowRight")
    assert note.inner_text().startswith("Step 1 of 9: add 1 × kernel")
    page.keyboard.press("Space")
    page.wait_for_function("document.getElementById('note').textContent.startsWith('Step 3')")
    page.keyboard.press("Space")
    page.keyboard.press("End")
    assert note.inner_text().startswith("All 9 copies summed")
    page.fill("#input-text", "1 2; 3 4")
    page.fill("#kernel-text", "0 1; 2 3")
    page.locator("#extra").fill("1")
    assert page.locator("figure").nth(3).inner_text().split()[-9:] == [*"010234030"]
    page.locator("#extra").fill("0")
    assert "even kernel" in page.locator("#error").inner_text()


def test_fits_a_phone_and_has_a_dark_theme(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    paper = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(paper)
    page.locator("#theme").click()
    assert page.evaluate(paper) != before


def test_is_accessible_in_both_themes(page: Any) -> None:
    for name, value in {"padding": 3, "size": 6, "kernel": 5, "stride": 3}.items():
        page.locator(f"#{name}").fill(str(value))  # with a crop, and wider than the window
    for view in ("#zeros", "#copies"):
        page.locator(view).click()
        for key in ("Home", "ArrowRight", "End"):
            page.locator("h1").press(key)
            check_accessible(page)
            page.locator("#theme").click()
            check_accessible(page)
