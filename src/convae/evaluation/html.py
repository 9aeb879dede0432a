"""HTML pages from templates: one file each, with everything in it.

Whatever is filled in is escaped; pictures become data URIs. The pages forbid themselves, by a
content security policy, to run scripts and to load anything.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convae import __version__

DOTS = 2  # pixels a point in the figures' files (style.DOTS, without importing matplotlib)


@dataclass(frozen=True)
class Picture:
    """A PNG file inside a page."""

    uri: str
    width: int  # on the page
    height: int
    title: str
    caption: str
    alt: str


def picture(path: Path, title: str, caption: str) -> Picture:
    """The PNG at `path`, at the size for which it was drawn."""
    from PIL import Image  # here, as jinja2 below: `convae runs` needs neither

    with Image.open(path) as image:
        width, height = (side // DOTS for side in image.size)
    uri = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
    return Picture(uri, width, height, title, caption, f"{title}: {caption}" if caption else title)


def render(template: str, **values: Any) -> str:
    """The page `template` with `values` filled in. A name that is missing is an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [
                jinja2.PackageLoader("convae.evaluation"),
                jinja2.PackageLoader("convae.demo", ""),
                jinja2.PackageLoader("convae.explain", ""),
            ]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "words": words}
    environment.globals["version"] = __version__
    return environment.get_template(template).render(**values)


def number(value: Any) -> str:
    """A number in four significant digits, whole ones whole; nothing for None."""
    if value is None:
        return ""
    if not isinstance(value, int | float):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1e3:
        return f"{value:,.0f}"
    return f"{value:.5f}" if 1e-3 <= abs(value) < 1 else f"{value:#.4g}"


def words(key: str) -> str:
    """A key as words: `mean_image` is the mean image."""
    return key.replace("_", " ")


def duration(seconds: float) -> str:
    """Such as 8.2 s, 3:28 min, 2:05 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"
