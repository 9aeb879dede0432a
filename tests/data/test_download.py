"""Downloads from a local server: complete and verified, or nothing."""

import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from convae.config import schema as config
from convae.data import datasets
from convae.data import loading as data
from convae.data.download import download
from convae.errors import ConvaeError
from tests.conftest import served
from tests.data.conftest import assert_has

CONTENT = bytes(range(256)) * 100


@pytest.fixture
def server() -> Iterator[str]:
    """A local server of good and bad answers, each named by its address."""
    done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/missing"):
                self.send_error(404)
                return
            if self.path == "/silent":
                done.wait(10)
                return
            self.send_response(200)
            if self.path != "/endless":
                self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            with contextlib.suppress(OSError):
                contents = {"/good": CONTENT, "/wrong": CONTENT[::-1]}
                contents.update({"/cut": CONTENT[:500], "/stalls": CONTENT[:500]})
                self.wfile.write(contents.get(self.path, b""))
                done.wait(10 if self.path == "/stalls" else 0)
                while self.path in {"/endless", "/trickle"} and not done.wait(0.02):
                    self.wfile.write(bytes(20_000 if self.path == "/endless" else 1))

        def log_message(self, *_: object) -> None: ...

    with served(Handler) as url:
        yield url
        done.set()


def test_good_download_replaces_what_was_there(server: str, tmp_path: Path) -> None:
    target = tmp_path / "cache" / "mnist.npz"
    target.parent.mkdir()
    target.write_text("damaged")
    download(f"{server}/good", target, hashlib.sha256(CONTENT).hexdigest())
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["mnist.npz"]


def test_the_network_comes_before_the_sample(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(datasets.DATASETS["mnist"], url=f"{server}/missing")
    monkeypatch.setitem(datasets.DATASETS, "mnist", row)
    notice = data.load_training(config.Data(), (28, 28, 1)).notice
    assert_has(notice, f"download: {server}/missing/mnist.npz: the server answered 404")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("wrong", "does not match the known hash"),
        ("cut", "500 bytes read, 25100 more expected"),
        ("missing", "answered 404"),
        ("silent", "no answer within 0.5 s"),
        ("stalls", "no answer within 0.5 s"),
        ("trickle", "not complete after 1 s"),
        ("endless", "larger than the 100,000 bytes allowed"),
    ],
)
def test_bad_downloads_leave_nothing(server: str, tmp_path: Path, answer: str, words: str) -> None:
    target = tmp_path / "cache" / "mnist.npz"
    start = time.monotonic()
    with pytest.raises(ConvaeError, match=words):
        download(f"{server}/{answer}", target, "0" * 64, timeout=0.5, deadline=1, limit=100_000)
    assert time.monotonic() - start < 5
    assert list(target.parent.iterdir()) == []


def test_download_refusals(tmp_path: Path) -> None:
    target = tmp_path / "file" / "mnist.npz"
    with pytest.raises(ConvaeError, match="http or https"):
        download(tmp_path.as_uri(), target, "")
    with pytest.raises(ConvaeError, match="refused"):
        download("http://127.0.0.1:9/mnist.npz", target, "")
    with pytest.raises(ConvaeError, match=r"no\.such\.name\.invalid"):
        download("http://no.such.name.invalid/mnist.npz", target, "", timeout=5)
    target.parent.rmdir()
    target.parent.write_text("a file where the folder should be")
    with pytest.raises(ConvaeError, match="Not a directory"):
        download("http://127.0.0.1:9/mnist.npz", target, "")
