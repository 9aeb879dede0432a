"""The JSON files of a run: keys of earlier versions, and values of an unexpected kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convae import archive

RENAMED_KEYS = {  # of the JSON files that earlier versions wrote
    "baseline_words": "baseline_descriptions",
    "detected": "recall",
    "false_alarms": "fpr",
    "false_alarms_wanted": "target_fpr",
    "images_per_epoch": "samples_per_epoch",
    "micro_batch": "micro_batch_size",
    "neighbours_same_class": "neighbors_same_class",
    "neighbours_same_class_pixels": "neighbors_same_class_pixels",
    "strands": "threads",
    "verdict": "summary",
}
KINDS: dict[str, dict[str, Any]] = {  # of the values that are read; others count as not known
    "manifest.json": {
        **dict.fromkeys(("status", "started", "command", "precision", "data_sha256"), str),
        **dict.fromkeys(("seconds", "peak_memory_mib", "parameters"), int | float),
        "resumptions": list,
        "runtime": {},
        "versions": {},
        "data": {"name": str, "samples_per_epoch": int},
    },
    "metrics.json": {
        **{key: {} for key in ("test", "units", "weights", "baselines", "threshold")},
        "data": {"examples": int},
    },
}


def parse(name: str, data: bytes) -> dict[str, Any]:
    """Return the content of the file `name`, by the keys and kinds of today.

    Raises:
        ValueError: It is no JSON object.
    """
    return _fitting(_rename_keys(archive.mapping(data)), KINDS[name])


def _rename_keys(tree: dict[str, Any]) -> dict[str, Any]:
    return {
        RENAMED_KEYS.get(key, key): _rename_keys(value) if isinstance(value, dict) else value
        for key, value in tree.items()
    }


def _fitting(tree: Mapping[str, Any], kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Return `tree` without the values that are not of the kind that `kinds` has for their key."""
    result = {}
    for key, value in tree.items():
        kind = kinds.get(key, object)
        if isinstance(value, dict if isinstance(kind, dict) else kind):
            result[key] = _fitting(value, kind) if isinstance(kind, dict) else value
    return result
