"""The server of the demo, and its page in a browser if there is one."""

from __future__ import annotations

import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convae.demo import server as demo
from convae.demo.session import choices
from convae.errors import ConvaeError
from tests.browser import check_accessible, chromium

SHIPPED = ["pretrained:bottleneck", "pretrained:mnist", "pretrained:generate"]


def picture(side: int = 60) -> bytes:
    paper = np.full((side, side), 255, np.uint8)
    paper[side // 6 : -side // 6, side // 3 : side // 2] = 0
    data = io.BytesIO()
    Image.fromarray(paper).save(data, "PNG")
    return data.getvalue()


def bomb() -> bytes:
    """A PNG of 200 KB that would be 100 MB of pixels."""
    data = io.BytesIO()
    Image.fromarray(np.zeros((10_000, 10_000), np.uint8)).save(data, "PNG")
    return data.getvalue()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[demo.Server]:
    found = choices(SHIPPED, str(tmp_path_factory.mktemp("outputs")))
    made = demo.listen(found, 7870)
    thread = threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join(10)


def ask(
    server: demo.Server, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, Any]:
    connection = HTTPConnection(demo.HOST, server.server_address[1], timeout=60)
    try:
        connection.request("GET" if body is None else "POST", path, body, headers)
        answer = connection.getresponse()
        assert answer.getheader("Content-Security-Policy") == demo.POLICY
        content = answer.read()
    finally:
        connection.close()
    page = answer.getheader("Content-Type") == "text/html"
    return answer.status, content.decode() if page else json.loads(content)


def test_pages_load_nothing_from_the_network(server: demo.Server) -> None:
    for path in ("/", "/explorer"):
        status, html = ask(server, path)
        assert status == 200
        assert "__" not in re.sub(r"\w__\w", "", html)
        assert not re.findall(
            r"https?://|//cdn|@import|url\(|<link(?! rel=.icon. href=.data:)", html
        )


def test_only_numbers_of_choices_are_answered(server: demo.Server) -> None:
    status, titles = ask(server, "/choices")
    assert (status, len(titles)) == (200, len(SHIPPED))
    for path in (
        f"/choices/{len(SHIPPED)}",
        "/choices/-1",
        "/choices/../../etc/passwd",
        "/etc/passwd",
        "/choices/%2e",
        "/favicon.ico",
    ):
        assert ask(server, path)[0] == 404
    assert ask(server, "/choices/9", picture())[0] == 404


def test_other_sites_are_refused(server: demo.Server) -> None:
    assert ask(server, "/choices", Host="evil.example")[0] == 403
    assert ask(server, "/choices/0", picture(), Origin="http://evil.example")[0] == 403
    assert ask(server, "/choices", Origin=server.url.rstrip("/"))[0] == 200


def test_file_size_is_limited(server: demo.Server) -> None:
    connection = HTTPConnection(demo.HOST, server.server_address[1], timeout=20)
    connection.putrequest("POST", "/choices/0")
    connection.putheader("Content-Length", str(demo.MAX_FILE + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
    connection = HTTPConnection(demo.HOST, server.server_address[1], timeout=20)
    connection.putrequest("POST", "/choices/0")
    connection.endheaders()
    assert connection.getresponse().status == 411
    connection.close()


def test_a_port_in_use(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    found = choices(SHIPPED[:1], str(tmp_path))
    with socket.socket() as taken:
        taken.bind((demo.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with demo.listen(found, port) as made:
            assert made.server_address[1] > port
            assert f"port {port} is in use; using {made.server_address[1]}" in caplog.text


def test_no_free_port(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "PORT_ATTEMPTS", 1)
    found = choices(SHIPPED[:1], str(tmp_path))
    with socket.socket() as taken:
        taken.bind((demo.HOST, 0))
        taken.listen()
        with pytest.raises(ConvaeError, match="in use; use another"):
            demo.listen(found, taken.getsockname()[1])


@pytest.mark.slow
def test_an_image_is_answered_with_pictures(server: demo.Server) -> None:
    assert ask(server, "/choices/0")[1]["digit"] is True
    status, view = ask(server, "/choices/0?digit=1", picture())
    assert status == 200
    assert [p["title"] for p in view["pictures"]][-1] == "Code"
    for body in (b"no picture", bomb()):
        status, answer = ask(server, "/choices/0?digit=1", body)
        assert status == 422
        assert "cannot be read" in answer["error"]


@pytest.mark.slow
def test_ctrl_c_stops_the_server(tmp_path: Path) -> None:
    # A shell that starts the tests in the background has SIGINT ignored in all below it.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from convae.cli.main import main; main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "demo", SHIPPED[0], "--port", "7990"],
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline()
            assert url.startswith("http://127.0.0.1:79")
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0
    assert said.endswith("stopped\n")
    assert "Traceback" not in said


def test_wrong_runs_give_one_message(convae: Any) -> None:
    done = convae("demo", "nothing")
    assert done.returncode == 2
    assert "no run called 'nothing'" in done.stderr


@pytest.fixture(scope="module")
def page(server: demo.Server) -> Iterator[Any]:
    with chromium() as browser:
        opened = browser.new_page(viewport={"width": 1280, "height": 720})
        wrong: list[str] = []
        asked: list[str] = []
        opened.on("pageerror", lambda error: wrong.append(str(error)))
        opened.on("request", lambda request: asked.append(request.url))
        opened.goto(server.url)
        opened.locator("#pictures img").nth(3).wait_for(timeout=60_000)
        yield opened
        assert not wrong
        outside = [u for u in asked if not u.startswith((server.url, "data:", "blob:"))]
        assert not outside


def draw(page: Any, *points: tuple[float, float]) -> None:
    box = page.locator("#pad").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()


def shown(page: Any, number: int, before: str | None = None) -> str:
    """The source of a picture, as soon as it is another one than `before`."""
    image = page.locator("#pictures img").nth(number)
    image.wait_for(timeout=30_000)
    until = time.monotonic() + 20
    while (source := str(image.get_attribute("src"))) == before and time.monotonic() < until:
        page.wait_for_timeout(50)
    return source


@pytest.mark.slow
def test_opens_with_a_digit_and_all_pictures_in_view(page: Any) -> None:
    titles = ["Input", "Reconstruction", "Absolute error", "Code"]
    for number, title in enumerate(titles):
        assert shown(page, number).startswith("data:image/png")
        assert page.locator("#pictures strong").nth(number).inner_text() == title
    assert page.locator("#pictures").inner_text().count("white = 1") == 1
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")
    first = shown(page, 0)
    assert page.locator("#examples button").count() == 4
    page.locator("#examples button").nth(2).click()
    assert shown(page, 0, first) != first
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        check_accessible(page)


@pytest.mark.slow
def test_arrow_keys_and_fingers_draw(page: Any) -> None:
    before = shown(page, 0)
    page.locator("#examples button").first.click()
    example = shown(page, 0, before)
    page.locator("#clear").press("Shift+Tab")  # from the buttons back to the drawing area
    for _ in range(4):
        page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.id") == "pad"
    page.keyboard.press("Shift+ArrowDown")  # moves, and draws nothing
    page.wait_for_timeout(200)
    assert shown(page, 0) == example
    for _ in range(12):
        page.keyboard.press("ArrowDown")
    stroke = shown(page, 0, example)
    assert stroke != example
    box = page.locator("#pad").bounding_box()
    finger = page.context.new_cdp_session(page)
    for kind, at in (("touchStart", 0.3), ("touchMove", 0.5), ("touchMove", 0.7), ("touchEnd", 0)):
        point = {"x": box["x"] + at * box["width"], "y": box["y"] + box["height"] / 2}
        points = [] if kind == "touchEnd" else [point]
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert shown(page, 0, stroke) != stroke


@pytest.mark.slow
def test_drawing_updates_the_pictures(page: Any) -> None:
    before = shown(page, 1)
    page.locator("#examples button").first.click()
    example = shown(page, 1, before)
    draw(page, (0.5, 0.2), (0.5, 0.8))  # removes the example
    first = shown(page, 1, example)
    draw(page, (0.3, 0.3), (0.7, 0.3), (0.7, 0.6))
    second = shown(page, 1, first)
    assert second != first
    assert float(page.locator("#speed").get_attribute("data-median")) < 2000  # of a busy machine
    page.locator("#choice").select_option("1")
    page.locator("figcaption", has_text="22x22x8").wait_for(timeout=60_000)
    assert shown(page, 1) != second
    page.locator("#clear").click()
    assert page.locator("#pictures img").count() == 0
    assert page.locator("#empty").is_visible()


@pytest.mark.slow
def test_sliders_change_the_code_of_a_model_that_generates(page: Any) -> None:
    page.locator("#choice").select_option("0")
    page.locator("#examples button").first.click()  # another test may have left the page empty
    before = shown(page, 1)
    assert page.locator("#code").is_hidden()
    page.locator("#choice").select_option("2")
    page.locator("#examples button").nth(1).click()
    made = shown(page, 1, before)
    sliders = page.locator("#code input")
    sliders.first.wait_for(timeout=60_000)
    assert sliders.count() == 16
    sliders.nth(3).fill("3")
    changed = shown(page, 1, made)
    assert changed != made
    sliders.nth(3).fill("-3")
    assert shown(page, 1, changed) != changed
    check_accessible(page)
    page.locator("#choice").select_option("0")
    page.locator("figcaption", has_text="32 numbers").wait_for(timeout=60_000)
    assert page.locator("#code").is_hidden()


@pytest.mark.slow
def test_all_files_get_an_answer(page: Any) -> None:
    def upload(name: str, content: bytes) -> None:
        page.locator("#upload").set_input_files(
            {"name": name, "mimeType": "image/png", "buffer": content}
        )

    error = page.locator("#error")
    for name, content, says in (
        ("text.png", b"this is text", "image cannot be read"),
        ("bomb.png", bomb(), "pixels"),
        ("large.png", bytes(demo.MAX_FILE + 1), "more than 5,000,000"),
    ):
        upload("good.png", picture())
        page.locator("#pictures img").first.wait_for(timeout=30_000)
        assert not error.is_visible()
        upload(name, content)
        error.filter(has_text=says).wait_for(timeout=30_000)
        assert page.locator("#pictures img").count() == 0


@pytest.mark.slow
def test_the_explorer_is_on_the_second_tab(page: Any) -> None:
    page.locator("#tab-explore").click()
    frame = page.frame_locator("iframe")
    frame.locator("#note", has_text="copies summed").wait_for(timeout=20_000)
    paper = "(body) => getComputedStyle(body).backgroundColor"
    before = frame.locator("body").evaluate(paper), page.locator("body").evaluate(paper)
    page.locator("#theme").click()
    after = frame.locator("body").evaluate(paper), page.locator("body").evaluate(paper)
    assert before[0] != after[0]
    assert before[1] != after[1]
    page.locator("#tab-explore").press("ArrowLeft")
    assert page.locator("#pad").is_visible()
    page.set_viewport_size({"width": 375, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
