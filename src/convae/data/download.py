"""One file from the network: whole and checked, or not at all."""

from __future__ import annotations

import hashlib
import http.client
import queue
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from convae import files as atomic
from convae.console import no_bar
from convae.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

CHUNK = 1 << 16


def download(
    url: str,
    target: Path,
    sha256: str,
    *,
    timeout: float = 10.0,
    deadline: float = 300.0,
    limit: int = 64 << 20,
) -> None:
    """Fetch `url` into `target`, which appears only when it is whole and its SHA-256 is `sha256`.

    `timeout`: seconds for the connection, and for any wait after it; `deadline`: seconds for all;
    `limit`: most bytes taken. Raises DataError with the reason; then nothing is left behind.
    """
    if not url.startswith(("https://", "http://")):
        raise DataError(f"{url}: must be an http or https address")
    end = time.monotonic() + deadline
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        digest, taken = hashlib.sha256(), 0
        with (
            atomic.whole(target) as temporary,
            _open(url, timeout) as response,
            temporary.open("wb") as file,
        ):
            promised = int(response.headers.get("Content-Length") or 0)
            with tqdm(
                desc=target.name,
                total=promised or None,
                unit="B",
                unit_scale=True,
                leave=False,
                disable=no_bar(),  # no bar where stderr is no terminal
            ) as bar:
                while chunk := response.read1(CHUNK):
                    taken += len(chunk)
                    if taken > limit:
                        raise DataError(f"{url}: more than the {limit:,} bytes allowed")
                    if time.monotonic() > end:
                        raise DataError(f"{url}: not done after {deadline:g} s")
                    digest.update(chunk)
                    file.write(chunk)
                    bar.update(len(chunk))
            if taken < promised:
                raise DataError(f"{url}: cut off after {taken:,} of {promised:,} bytes")
            if digest.hexdigest() != sha256:
                raise DataError(
                    f"{url}: not the expected file: its SHA-256 must be {sha256}. "
                    f"Received: {digest.hexdigest()}"
                )
    except urllib.error.HTTPError as error:
        error.close()
        raise DataError(f"{url}: the server answered {error.code} {error.reason}") from None
    except TimeoutError:
        raise DataError(f"{url}: no answer within {timeout:g} s") from None
    except urllib.error.URLError as error:
        raise DataError(f"{url}: {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(f"{url}: {error or type(error).__name__}") from None


def _open(url: str, timeout: float) -> Any:
    """The response of `urlopen`, or TimeoutError: looking up a name knows no timeout of its own."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(url, timeout=timeout))  # noqa: S310 (http or https)
        except Exception as error:  # raised again below, where it can be handled
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=timeout)
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, Exception):
        if isinstance(reason := getattr(answer, "reason", None), TimeoutError):
            raise reason
        raise answer
    return answer
