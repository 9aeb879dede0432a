"""What `convae pack` does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from convae.config import schema
from convae.config.loader import load_config
from convae.console import logger
from convae.data.cache import Pack, cache_folder, pack, packs, remove
from convae.data.loading import load_test, load_training
from convae.data.readers import SplitName, is_idx_folder
from convae.errors import ConfigError


def command(
    source: str | None,
    overrides: Sequence[str],
    config: str,
    *,
    verify: bool = False,
    listing: bool = False,
    clear: bool = False,
) -> list[dict[str, Any]]:
    """What `convae pack` does: pack `source` and describe its packs, or list or remove packs.

    `source` is a folder, which is packed for the model of the YAML `config`, or a YAML whose
    `data.path` is one; None, where packs are listed or removed, means all. Raises ConfigError.
    """

    words = list(overrides)
    if listing or clear:
        given = [word.partition("=")[2] for word in words if word.startswith("data.cache=")]
        cache = cache_folder(schema.Data(cache=given[-1] if given else None))
        top = Path(source or "/").resolve()
        found = [p for p in packs(cache) if Path(p.folder).is_relative_to(top)]
        for packed in found if clear else []:
            remove(packed, cache)
        return [_row(packed, cache) for packed in found]
    if source and Path(source).is_file():
        config = source
    elif source:
        words.append(f"data.path={json.dumps(source)}")
    if not Path(config).is_file():
        raise ConfigError(
            f"{config}: no such file. Images are packed for a model: name its YAML with --config"
        )
    settings = load_config(config, words)
    data, shape = settings.data, settings.model.input_shape
    folder = Path(data.path or "").expanduser()
    if not data.path or not folder.is_dir() or is_idx_folder(folder):
        raise ConfigError(f"data.path: only a folder of images is packed. Received: {data.path}")
    load_training(data, shape)  # as training and eval do, so that the same mistakes are found
    load_test(data, shape)
    cache, rows = cache_folder(data), {}
    for side in get_args(SplitName):
        packed, whole = pack(folder, side, shape, data)
        if verify and not packed.verify(cache):
            logger.info(f"{packed.path(cache)}: damaged; packing again")
            remove(packed, cache)
            packed, _ = pack(folder, side, shape, data)
        rows[packed.key] = _row(packed, cache)
        if whole:  # the other side has the same images
            break
    return list(rows.values())


def table(rows: Sequence[dict[str, Any]]) -> str:
    """What `command` returns, as text of a few lines each."""
    texts = [
        f"{row['folder']}\n"
        f"  {row['images']:,} images of {'x'.join(map(str, row['shape']))}, {row['classes']} "
        f"classes, {row['bytes'] / 2**20:,.1f} MiB\n  {row['path']}\n  sha256 {row['sha256']}"
        for row in rows
    ]
    return "\n".join(texts) or "nothing is packed"


def _row(packed: Pack, cache: Path) -> dict[str, Any]:
    return {
        "folder": packed.folder,
        "images": packed.count,
        "shape": packed.settings[:3],
        "classes": len(packed.classes or ()),
        "bytes": packed.bytes,
        "path": str(packed.path(cache)),
        "sha256": packed.images_sha256,
    }
