"""Keys of configs that have another name now: old runs keep loading, and users learn the name."""

from __future__ import annotations

from typing import Any

RENAMED = {
    "data.fit": "data.resize_mode",
    "model.centred": "model.zero_center",
    "runtime.deadline": "runtime.rendezvous_timeout",
    "runtime.micro_batch": "runtime.micro_batch_size",
    "runtime.strands": "runtime.threads",
    "task.digit_weight": "task.foreground_weight",
    "task.false_alarms": "task.target_fpr",
    "task.normal": "task.normal_class",
    "training.checkpoint_every": "training.checkpoint_interval",
    "training.images_per_epoch": "training.samples_per_epoch",
}


def translate(tree: dict[str, Any]) -> None:
    """Give the keys of a run's config their present names, in place."""
    for old, new in RENAMED.items():
        section, key = old.split(".")
        keys = tree.get(section)
        if isinstance(keys, dict) and key in keys:
            value = keys.pop(key)
            keys[new.removeprefix(f"{section}.")] = "crop" if value == "cover" else value
