"""Download one file: complete and verified, or not at all."""

from __future__ import annotations

import time
from pathlib import Path

from convae.console import progress_bar
from convae.errors import DataError


def download(
    url: str,
    target: Path,
    sha256: str,
    *,
    timeout: float = 10.0,
    deadline: float = 300.0,
    limit: int = 64 << 20,
) -> None:
    """Download `url` to `target`, which is replaced only by a complete and verified file.

    Args:
        url: An http or https address.
        target: The file; its folder is created.
        sha256: The SHA-256 of the file, in hexadecimal.
        timeout: Seconds to wait for a connection, and for each answer after it.
        deadline: Seconds after which a download is stopped.
        limit: The largest size in bytes.

    Raises:
        DataError: The download failed. No file is left.
    """
    if not url.startswith(("https://", "http://")):
        raise DataError(f"{url}: must be an http or https address")
    import pooch  # here, because these imports take 0.2 seconds
    import requests
    import urllib3

    def stream(url: str, output: str, _: object) -> None:
        _stream(url, output, timeout, deadline, limit)

    pooch.get_logger().setLevel("WARNING")
    try:
        pooch.retrieve(url, f"sha256:{sha256}", target.name, target.parent, downloader=stream)
    except requests.HTTPError as error:
        answer = f"{error.response.status_code} {error.response.reason}"
        raise DataError(f"{url}: the server answered {answer}") from None
    except (requests.Timeout, urllib3.exceptions.TimeoutError):
        raise DataError(f"{url}: no answer within {timeout:g} s") from None
    except requests.ConnectionError as error:
        reason = getattr(error.args[0], "reason", error)  # without the text that urllib3 adds
        raise DataError(f"{url}: {reason}") from None
    except DataError:
        raise
    except (OSError, urllib3.exceptions.HTTPError, ValueError) as error:
        raise DataError(f"{url}: {error or type(error).__name__}") from None


def _stream(url: str, output: str, timeout: float, deadline: float, limit: int) -> None:
    import requests

    end = time.monotonic() + deadline
    headers = {"Accept-Encoding": "identity"}  # the checksum is that of the file as published
    with (
        requests.get(url, stream=True, timeout=timeout, headers=headers) as response,
        Path(output).open("wb") as file,
        progress_bar(
            desc=url.rpartition("/")[2],
            total=int(response.headers.get("Content-Length", 0)) or None,
            unit="B",
            unit_scale=True,
        ) as bar,
    ):
        response.raise_for_status()
        # read1 returns the bytes that are there; read waits for all of them, past the deadline.
        while chunk := response.raw.read1(1 << 16):
            file.write(chunk)
            bar.update(len(chunk))
            if file.tell() > limit:
                raise DataError(f"{url}: larger than the {limit:,} bytes allowed")
            if time.monotonic() > end:
                raise DataError(f"{url}: not complete after {deadline:g} s")
    Path(output).chmod(0o644)  # other users may read Keras' cache; pooch's file is private
