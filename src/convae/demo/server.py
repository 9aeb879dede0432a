"""The server of the page to draw on, on 127.0.0.1 for the browsers of this machine.

    GET  /              the page, and /explorer, the page about transposed convolution
    GET  /choices       titles of the runs to choose from, in their order
    GET  /choices/2     loads that run; the options that the page offers for it
    POST /choices/2     with an image file as the body: the pictures of the model for it
         ?digit=1&corrupt=1

The page loads nothing from elsewhere. A browser names a run by its place in the list, never by a
path, and images are decoded in memory. Requests from other sites, with a foreign Origin or Host,
are refused.
"""

from __future__ import annotations

import errno
import json
import re
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from convae import __version__
from convae.console import logger
from convae.demo.session import Choice, examples, open_session
from convae.errors import ConvaeError, UnsupportedError
from convae.evaluation.html import render
from convae.explain.explorer import build_page

HOST = "127.0.0.1"
PORT = 7860
PORT_ATTEMPTS = 50
MAX_FILE = 5_000_000  # bytes
TIMEOUT = 20  # seconds for a browser to finish a request

# Scripts and styles are in the pages themselves; pictures are data URIs.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "connect-src 'self'; frame-src 'self'; frame-ancestors 'self'; base-uri 'none'; "
    "form-action 'none'"
)


class Server(ThreadingHTTPServer):
    """Serves the choices; one image at a time, so that memory stays bounded."""

    daemon_threads = True
    # On Windows this would let two servers share a port.
    allow_reuse_address = sys.platform != "win32"

    def __init__(self, address: tuple[str, int], choices: Sequence[Choice]) -> None:
        super().__init__(address, Handler)
        self.choices = choices
        self.busy = threading.Lock()
        self.pages = {
            "/": render("page.html", largest=MAX_FILE, examples=examples()).encode(),
            "/explorer": build_page().encode(),
        }
        port = self.server_address[1]
        self.hosts = {f"{name}:{port}" for name in (HOST, "localhost")}

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{HOST}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a browser that closes a connection early."""


class RequestError(Exception):
    """A request that is refused, with the status and the reason."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    """One connection of a browser."""

    server: Server
    protocol_version = "HTTP/1.1"  # keeps the connection: a stroke is many requests
    disable_nagle_algorithm = True
    timeout = TIMEOUT
    server_version, sys_version = f"convae/{__version__}", ""

    def do_GET(self) -> None:
        """Answer with a page, the choices, or the options of a run."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Answer with the pictures for an image."""
        self._answer(self._post)

    def _get(self) -> Any:
        path = urlsplit(self.path).path
        if path in self.server.pages:
            return self.server.pages[path]
        if path == "/choices":
            return [choice.title for choice in self.server.choices]
        choice = self._choice(path)
        with self.server.busy:
            return open_session(choice).options()

    def _post(self) -> Any:
        data = self._body()
        url = urlsplit(self.path)
        choice = self._choice(url.path)
        on = {key: values[-1] == "1" for key, values in parse_qs(url.query).items()}
        with self.server.busy:
            session = open_session(choice)
            if on.get("code"):
                return asdict(session.decode_view(data))
            image = session.read_image(data, as_digit=on.get("digit", False))
            return asdict(session.view(image, corrupt=on.get("corrupt", False)))

    def _choice(self, path: str) -> Choice:
        match = re.fullmatch(r"/choices/(\d{1,6})", path, re.ASCII)
        if not match or int(match[1]) >= len(self.server.choices):
            raise RequestError(HTTPStatus.NOT_FOUND, "not found")
        return self.server.choices[int(match[1])]

    def _body(self) -> bytes:
        size = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,18}", size, re.ASCII):
            raise RequestError(HTTPStatus.LENGTH_REQUIRED, "the request needs a Content-Length")
        if int(size) > MAX_FILE:
            raise RequestError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the file has {int(size):,} bytes; more than {MAX_FILE:,} are refused",
            )
        return self.rfile.read(int(size))

    def _check_origin(self) -> None:
        """Raise RequestError for another site's page in the user's browser."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if host not in self.server.hosts or origin not in {None, f"http://{host}"}:
            raise RequestError(HTTPStatus.FORBIDDEN, "requests from other sites are refused")

    def _answer(self, make: Callable[[], Any]) -> None:
        start = time.perf_counter()
        try:
            self._check_origin()
            answer, status = make(), HTTPStatus.OK
        except ConvaeError as error:
            answer, status = {"error": str(error)}, HTTPStatus.UNPROCESSABLE_ENTITY
        except RequestError as error:
            answer, status = {"error": str(error)}, error.status
            self.close_connection = True  # the body was not read
        page = isinstance(answer, bytes)
        content = answer if page else json.dumps(answer).encode()
        self.send_response(status)
        milliseconds = 1000 * (time.perf_counter() - start)
        headers = {
            "Content-Type": "text/html" if page else "application/json",
            "Content-Length": str(len(content)),
            "Server-Timing": f"all;dur={milliseconds:.1f}",  # for the browser's own tools
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Log no requests: a stroke is many of them."""


def listen(choices: Sequence[Choice], port: int = PORT) -> Server:
    """Return a server on `port`, or on the next free port, which is logged.

    Raises:
        UnsupportedError: No port is free, or this machine allows none.
    """
    for attempt in range(port, min(port + PORT_ATTEMPTS, 2**16)):
        try:
            server = Server((HOST, attempt), choices)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            reason = error.strerror
            raise UnsupportedError(f"port {attempt} on {HOST} cannot be used: {reason}") from None
        if attempt != port:
            logger.info(f"port {port} is in use; using {attempt}")
        return server
    raise UnsupportedError(f"--port: all ports from {port} to {attempt} are in use; use another")


def serve(server: Server, *, show: bool = False) -> None:
    """Serve until Ctrl-C; `show` opens the page in the user's browser."""
    try:
        logger.info(f"loading {server.choices[0].title}")
        with server.busy, suppress(ConvaeError):  # of a damaged run; the page shows it
            open_session(server.choices[0])
        print(server.url, flush=True)
        logger.info("Ctrl-C stops the server")
        if show:
            webbrowser.open(server.url)
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        logger.info("stopped")
    finally:
        server.server_close()
