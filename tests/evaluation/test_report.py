"""report.html: its contents, its safety, and how a browser shows it."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convae.errors import ConvaeError
from convae.evaluation import report
from convae.runs.run import Run
from tests.browser import check_accessible, chromium
from tests.cli.test_runs import made
from tests.conftest import Command

EVIL = "<script>alert('out')</script>"
METRICS: dict[str, Any] = {
    "data": {"name": f"digits {EVIL}", "examples": 60, "sample": True},
    "weights": {"file": "best.keras", "epoch": 2},
    "units": {"excess": "nats per pixel", "psnr": "dB"},
    "test": {"excess": 0.002, "psnr": 34.5, "iou": 0.9},
    "per_class": {EVIL: {"excess": 0.1, "psnr": 30.0}, "seven": {"excess": 0.2}},
    "baselines": {"mean_image": {"excess": 0.2, "psnr": 11.0, "iou": 0.0}},
    "baseline_descriptions": {"mean_image": "whatever goes in"},
    "threshold": {"score": 0.25},
    "summary": "The model does it well.",
}


def evaluated(folder: Path) -> Run:
    run = made(
        folder, "one", data={"name": EVIL}, weights_sha256="ab" * 32,
        command=f"convae train '{EVIL}.yaml'", git_commit="0123", versions={"numpy": "2.4.6"},
    )  # fmt: skip
    run.write_json("metrics.json", METRICS)
    (run.path / "figures").mkdir()
    for name in ("zebra", "code", "training", "reconstructions"):
        Image.new("RGB", (1600, 300), "white").save(run.path / "figures" / f"{name}.png")
    return run


class Reader(HTMLParser):
    """The tags and attributes of a page, and whether they are well nested."""

    VOID = ("meta", "link", "img", "br", "hr", "input")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_has_all_sections_and_figures(tmp_path: Path) -> None:
    run = evaluated(tmp_path)
    path = report.write(run)
    html = path.read_text(encoding="utf-8")
    page = Reader(html)
    assert page.open == []
    for part in ("The model does it well.", "mean image: excess 0.2", "34.50", "0.90000",
                 "whatever goes in",
                 "not the full MNIST", "conv2d_transpose_3", "28x28x32", "4,640", "12,785",
                 "3,872", "1:15 min", "weights_sha256", "threshold.score", "0.25",
                 "pip install numpy==2.4.6", "git checkout 0123", f"{run.path}/config.yaml",
                 "validation_split: 0.2", "data.name"):  # fmt: skip
        assert part in page.text, part
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [str(i["alt"]).split(":")[0] for i in images] == [
        "Training", "Reconstructions", "Code", "Zebra",
    ]  # fmt: skip
    assert {i["width"] for i in images} == {"800"}
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert report.write(run).read_text(encoding="utf-8") == html  # the same files, the same page


def test_the_page_escapes_values_and_loads_nothing(tmp_path: Path) -> None:
    html = report.build(evaluated(tmp_path / "<b>bold"))
    page = Reader(html)
    assert EVIL not in html
    assert page.text.count(EVIL) >= 4  # data, class, command, manifest: as text
    assert not {"script", "b", "iframe"} & {tag for tag, _ in page.tags}
    assert not re.findall(r"https?://|@import|url\(|src=\"(?!data:)", html)
    policy = next(a for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert str(policy["content"]).startswith("default-src 'none'")


def test_a_report_of_metrics_with_few_keys(tmp_path: Path) -> None:
    run = made(tmp_path, "other")
    run.write_json("metrics.json", {"test": {"auroc": 0.9711, "recall": 0.5}, "summary": "It is."})
    text = Reader(report.build(run)).text
    assert all(part in text for part in ("It is.", "auroc", "0.97110"))


def test_a_run_without_metrics_or_with_damaged_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = made(tmp_path, "one")
    for content in (None, "[1", '{"test": 3}'):
        if content:
            (run.path / "metrics.json").write_text(content)
        with pytest.raises(ConvaeError, match="was not evaluated yet.*convae eval"):
            report.write(run)
    assert "is no metrics of a run" in caplog.text


def test_the_command(convae: Command, tmp_path: Path) -> None:
    run = evaluated(tmp_path / "outputs")
    done = convae("report", code=0)
    assert done.stdout.strip() == str(run.path.relative_to(tmp_path) / "report.html")
    assert "nearest: one" in convae("report", "noe", code=2).stderr


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(browser: Any, tmp_path: Path, scheme: str) -> None:
    path = report.write(evaluated(tmp_path))
    context = browser.new_context(
        viewport={"width": 360, "height": 740}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: wrong.append(request.url[:60]))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("[...document.images].every((i) => i.complete && i.naturalWidth)")
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    check_accessible(page)
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = false; })")
    assert {url for url in wrong if not url.startswith("data:")} == {path.as_uri()[:60]}
    page.emulate_media(media="print", color_scheme=scheme)
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(31, 41, 51)"
    assert page.evaluate("document.querySelector('nav').offsetHeight") == 0
    assert page.locator("pre").last.is_visible()  # what is folded on the screen is printed
    context.close()
