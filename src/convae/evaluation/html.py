"""HTML pages from templates: one file each, with everything in it.

All values are escaped; pictures become data URIs. A content security policy in the pages forbids
scripts and loading anything.
"""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convae import __version__
from convae.console import format_number, format_shape

PACKAGE = Path(__file__).parents[1]
FOLDERS = [PACKAGE / "evaluation/templates", PACKAGE / "demo", PACKAGE / "explain"]
DOTS = 2  # pixels a point in the figures' files (style.DOTS, without importing matplotlib)


@dataclass(frozen=True)
class Picture:
    """A picture inside a page."""

    title: str
    uri: str  # data:image/png
    caption: str = ""
    width: int | None = None  # on the page, in points
    height: int | None = None


def data_uri(png: bytes) -> str:
    """Return a PNG as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def load_picture(path: Path, title: str, caption: str) -> Picture:
    """Return the PNG at `path`, at the size in points that it was drawn for."""
    from PIL import Image  # here, as jinja2 below: `convae runs` needs neither

    with Image.open(path) as image:
        width, height = (side // DOTS for side in image.size)
    return Picture(title, data_uri(path.read_bytes()), caption, width, height)


def render(template: str, **values: Any) -> str:
    """Return the page `template` with `values`; a missing value is an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDERS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": format_number, "shape": format_shape, "words": format_key}
    environment.globals["version"] = __version__
    return environment.get_template(template).render(**values)


def format_key(key: str) -> str:
    """Return a key as words: `mean_image` is "mean image"."""
    return key.replace("_", " ")
