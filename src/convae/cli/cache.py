"""`convae cache`: build, list, verify and clear the cache of decoded images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from convae.cli.options import Json, Overrides, split_overrides
from convae.console import logger, printable, suggest
from convae.errors import ConfigError

if TYPE_CHECKING:
    from convae.data.cache import CacheEntry

cache_app = typer.Typer(
    help="Manage the cache of decoded images.",
    no_args_is_help=True,
)
Folder = Annotated[
    str | None, Argument(metavar="FOLDER", help="Only entries of this folder of images.")
]
CacheDir = Annotated[
    str | None, Option(metavar="FOLDER", help="The cache: data.cache, by default ~/.cache/convae.")
]


@cache_app.command()
def build(
    source: Annotated[
        str | None, Argument(metavar="FOLDER|CONFIG", help="Images, or the YAML that names them.")
    ] = None,
    overrides: Overrides = None,
    config: Annotated[
        str, Option(metavar="CONFIG", help="The YAML of the model that FOLDER is for.")
    ] = "images",
    as_json: Json = False,
) -> None:
    """Decode a folder of images in advance."""
    from convae.config import shipped

    source, words = split_overrides(source, overrides)
    if source and not Path(source).is_dir() and shipped.find(source).is_file():
        config = source
    elif source:
        words.append(f"data.path={json.dumps(source)}")
    _print(build_entries(config, words), as_json)
    suggest("convae train CONFIG, with data.path: the folder", silent=as_json)


def build_entries(config: str, overrides: list[str]) -> list[dict[str, Any]]:
    """Build the cache entries of all splits of the folder `data.path`, and describe them."""
    from convae.config.loader import load_config
    from convae.data.cache import cache_folder, get_entry
    from convae.data.loading import load_test, load_training
    from convae.data.readers import is_idx_folder

    settings = load_config(config, overrides)
    data, shape = settings.data, settings.model.input_shape
    folder = Path(data.path or "").expanduser()
    if not data.path or not folder.is_dir() or is_idx_folder(folder):
        raise ConfigError(f"data.path: must be a folder of images. Received: {data.path}")
    load_training(data, shape)  # builds all, and finds the mistakes that training would find
    load_test(data, shape)
    first, listing = get_entry(folder, "train", shape, data)
    others = listing.splits.keys() - {"train"}
    entries = [first, *(get_entry(folder, name, shape, data)[0] for name in sorted(others))]
    return list({e.key: describe_entry(e, cache_folder(data)) for e in entries}.values())


@cache_app.command("list")
def list_(folder: Folder = None, cache_dir: CacheDir = None, as_json: Json = False) -> None:
    """List the cached images."""
    entries, cache = find_entries(folder, cache_dir)
    _print([describe_entry(entry, cache) for entry in entries], as_json)


@cache_app.command()
def verify(folder: Folder = None, cache_dir: CacheDir = None, as_json: Json = False) -> None:
    """Check every byte; remove damaged entries, and exit with 1."""
    entries, cache = find_entries(folder, cache_dir)
    rows = []
    for entry in entries:
        complete = entry.verify(cache)
        rows.append({**describe_entry(entry, cache), "ok": complete})
        if not complete and entry.remove(cache):
            logger.warning(f"{entry.path(cache)}: damaged, and removed: it is built again on use")
    _print(rows, as_json)
    if not all(row["ok"] for row in rows):
        raise SystemExit(1)


@cache_app.command()
def clear(folder: Folder = None, cache_dir: CacheDir = None, as_json: Json = False) -> None:
    """Remove cached images; the image files stay."""
    found, cache = find_entries(folder, cache_dir)
    entries = [entry for entry in found if entry.remove(cache)]
    _print([describe_entry(entry, cache) for entry in entries], as_json)
    logger.info(f"removed {len(entries):,} cache entries")


def find_entries(folder: str | None, cache_dir: str | None) -> tuple[list[CacheEntry], Path]:
    """Return the entries of images in `folder`, by default all, and the cache they are in."""
    from convae.config.schema import Data
    from convae.data.cache import cache_folder, list_entries

    cache = cache_folder(Data(cache=cache_dir))
    entries = list_entries(cache)
    if folder is not None:
        top = Path(folder).resolve()
        entries = [entry for entry in entries if Path(entry.folder).is_relative_to(top)]
    return entries, cache


def describe_entry(entry: CacheEntry, cache: Path) -> dict[str, Any]:
    """Return what `--json` prints of an entry."""
    return {
        "folder": printable(entry.folder),
        "outdated": entry.is_outdated,
        "images": entry.count,
        "shape": entry.settings[:3],
        "classes": len(entry.classes or ()),
        "bytes": entry.bytes,
        "path": str(entry.path(cache)),
        "sha256": entry.images_sha256,
    }


def _print(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        outdated = ": of another version of convae, not used" if row["outdated"] else ""
        print(
            f"{row['folder']}{outdated}\n"
            f"  {row['images']:,} images of {'x'.join(map(str, row['shape']))}, {row['classes']} "
            f"classes, {row['bytes'] / 2**20:,.1f} MiB\n  {row['path']}\n  sha256 {row['sha256']}"
        )
    if not rows:
        logger.info("nothing is cached")
