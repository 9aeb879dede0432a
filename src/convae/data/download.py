"""Download one file: complete and verified, or not at all."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from convae.console import no_bar
from convae.errors import DataError

_CHUNK = 1 << 16


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
        timeout: Seconds to wait for a connection, and for each answer after it. The system has its
            own, similar limit for looking up the name of the server.
        deadline: Seconds after which a download is stopped.
        limit: The largest size in bytes.

    Raises:
        DataError: The download failed. No file is left.
    """
    if not url.startswith(("https://", "http://")):
        raise DataError(f"{url}: must be an http or https address")
    import pooch  # here, because this import takes 0.2 seconds
    import requests
    import urllib3

    end = time.monotonic() + deadline

    def stream(url: str, output: str, _: Any) -> None:
        """Write the file to `output`, as pooch asks its downloaders to."""
        with (
            requests.get(
                url, stream=True, timeout=timeout, headers={"Accept-Encoding": "identity"}
            ) as response,
            Path(output).open("wb") as file,
            tqdm(
                desc=target.name,
                total=int(response.headers.get("Content-Length", 0)) or None,
                unit="B",
                unit_scale=True,
                leave=False,
                disable=no_bar(),
            ) as bar,
        ):
            response.raise_for_status()
            # read1 returns what is there: read would wait for a complete block, past the deadline
            while chunk := response.raw.read1(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
                if file.tell() > limit:
                    raise DataError(f"{url}: larger than the {limit:,} bytes allowed")
                if time.monotonic() > end:
                    raise DataError(f"{url}: not complete after {deadline:g} s")
        Path(output).chmod(0o644)  # other users may read Keras' cache; pooch's file is private

    pooch.get_logger().setLevel("WARNING")
    try:
        pooch.retrieve(url, f"sha256:{sha256}", target.name, target.parent, downloader=stream)
    except requests.HTTPError as error:
        answer = f"{error.response.status_code} {error.response.reason}"
        raise DataError(f"{url}: the server answered {answer}") from None
    except (requests.Timeout, urllib3.exceptions.TimeoutError):
        raise DataError(f"{url}: no answer within {timeout:g} s") from None
    except requests.ConnectionError as error:
        reason = getattr(error.args[0], "reason", error)  # without urllib3's frame around it
        raise DataError(f"{url}: {reason}") from None
    except DataError:
        raise
    except (OSError, urllib3.exceptions.HTTPError, ValueError) as error:
        raise DataError(f"{url}: {error or type(error).__name__}") from None
