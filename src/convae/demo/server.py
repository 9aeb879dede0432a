"""The page to draw on: a small server on 127.0.0.1 for the browser of this machine.

    GET  /              the page, and /explorer, the laboratory's
    GET  /choices       titles of the runs that can be chosen, in their order
    GET  /choices/2     loads that run; what the page should offer for it
    POST /choices/2     an image file as the body; what the run makes of it
         ?digit=1&damage=1

Everything comes from the package; the page may ask for nothing else. A browser names a run by its
place in the list, never by a path, and what it sends is decoded in memory. Other sites that the
browser shows cannot ask here: neither their Origin nor a foreign Host is answered.
"""

from __future__ import annotations

import errno
import json
import re
import threading
import time
import webbrowser
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from convae import __version__
from convae.console import logger
from convae.demo import session as viewer
from convae.errors import ConvaeError, RunError
from convae.evaluation.html import render
from convae.explain.explorer import build_page

HOST = "127.0.0.1"
PORT = 7860
TRIED = 50  # ports, one after the other
LARGEST_FILE = 5_000_000  # bytes
PATIENCE = 20  # seconds that a browser may take for a request that it has begun

# Scripts and styles stand in the pages themselves; pictures are data URIs.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "connect-src 'self'; frame-src 'self'; frame-ancestors 'self'; base-uri 'none'; "
    "form-action 'none'"
)


class Server(ThreadingHTTPServer):
    """Answers for the choices; pictures one at a time, so that memory stays bounded."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], choices: Sequence[viewer.Choice]) -> None:
        super().__init__(address, Handler)
        self.choices = choices
        self.busy = threading.Lock()
        self.pages = {
            "/": render("page.html", largest=LARGEST_FILE).encode(),
            "/explorer": build_page().encode(),
        }
        port = self.server_address[1]
        self.hosts = {f"{name}:{port}" for name in (HOST, "localhost")}

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of an answer is nothing to speak of."""


class Refused(Exception):  # noqa: N818 - it becomes an answer
    """A request that is not answered as it was meant, and why."""

    def __init__(self, status: HTTPStatus, words: str) -> None:
        super().__init__(words)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    """One connection of a browser."""

    server: Server
    protocol_version = "HTTP/1.1"  # keeps the connection: a stroke is many requests
    disable_nagle_algorithm = True
    timeout = PATIENCE
    server_version, sys_version = f"convae/{__version__}", ""

    def do_GET(self) -> None:
        """A page, or what there is to choose from."""
        self._answer(self._got)

    def do_POST(self) -> None:
        """A picture through a run."""
        self._answer(self._seen)

    def _got(self) -> Any:
        path = urlsplit(self.path).path
        if path in self.server.pages:
            return self.server.pages[path]
        if path == "/choices":
            return [choice.title for choice in self.server.choices]
        choice = self._choice(path)
        with self.server.busy:
            return viewer.viewer(choice).traits()

    def _seen(self) -> Any:
        data = self._body()
        asked = urlsplit(self.path)
        choice = self._choice(asked.path)
        on = {key: values[-1] == "1" for key, values in parse_qs(asked.query).items()}
        with self.server.busy:
            chosen = viewer.viewer(choice)
            picture = chosen.read(data, as_digit=on.get("digit", False))
            return chosen.see(picture, damage=on.get("damage", False)).record()

    def _choice(self, path: str) -> viewer.Choice:
        match = re.fullmatch(r"/choices/(\d{1,6})", path, re.ASCII)
        if not match or int(match[1]) >= len(self.server.choices):
            raise Refused(HTTPStatus.NOT_FOUND, "there is nothing here")
        return self.server.choices[int(match[1])]

    def _body(self) -> bytes:
        size = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,18}", size, re.ASCII):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "the size of the file must be told")
        if int(size) > LARGEST_FILE:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the file has {int(size):,} bytes; more than {LARGEST_FILE:,} are refused",
            )
        return self.rfile.read(int(size))

    def _check_who_asks(self) -> None:
        """Raise Refused for another site's page that asks through the user's browser."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if host not in self.server.hosts or origin not in {None, f"http://{host}"}:
            raise Refused(HTTPStatus.FORBIDDEN, "only the page itself may ask")

    def _answer(self, make: Any) -> None:
        start = time.perf_counter()
        try:
            self._check_who_asks()
            answer, status = make(), HTTPStatus.OK
        except ConvaeError as error:
            answer, status = {"error": str(error)}, HTTPStatus.UNPROCESSABLE_ENTITY
        except Refused as error:
            answer, status = {"error": str(error)}, error.status
            self.close_connection = True  # the body was not read
        page = isinstance(answer, bytes)
        content = answer if page else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if page else "application/json")
        self.send_header("Content-Length", str(len(content)))
        took = 1000 * (time.perf_counter() - start)
        self.send_header("Server-Timing", f"all;dur={took:.1f}")  # for the browser's own tools
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Requests are not told: a stroke is many of them."""


def listen(choices: Sequence[viewer.Choice], port: int = PORT) -> Server:
    """A server on `port`, or on the next one that is free, which is said.

    Raises RunError if there is none, or ports may not be taken here.
    """
    for tried in range(port, min(port + TRIED, 2**16)):
        try:
            server = Server((HOST, tried), choices)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            raise RunError(f"port {tried} on {HOST} cannot be taken: {error.strerror}") from None
        if tried != port:
            logger.info(f"port {port} is in use; taking {tried}")
        return server
    raise RunError(f"--port: all from {port} to {tried} are in use. Name another one")


def serve(server: Server, *, show: bool = False) -> None:
    """Answer until Ctrl-C; `show` opens the page in the user's browser."""
    try:
        logger.info(f"loading {server.choices[0].title}")
        with server.busy, suppress(ConvaeError):  # of a damaged run, which the page tells of
            viewer.viewer(server.choices[0])
        print(server.url, flush=True)
        logger.info("Ctrl-C ends it")
        if show:
            webbrowser.open(server.url)
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        logger.info("ended")
    finally:
        server.server_close()
