"""Going on with a run: what may have changed since, and what that does to its bits."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from convae.config.diff import differences
from convae.config.loader import parse_config
from convae.config.schema import Config
from convae.console import logger
from convae.data.loading import TrainingData
from convae.errors import ConfigError
from convae.runs.provenance import command_line, versions
from convae.runs.run import Run
from convae.runtime.plan import Plan

# The keys that may change from one part of a training to the next; a section stands for its keys.
MAY_CHANGE = (
    "training.epochs",  # but for one_cycle, whose learning rate depends on it from the first step
    "training.checkpoint_interval",
    "runtime",  # what changes the arithmetic is recorded as not bit-identical
    "output",
    "data.path",  # wherever the images are now: they are compared by their hash
    "data.download",
    "data.allow_sample",
)
ARITHMETIC = (
    "device", "device_name", "precision", "jit_compile", "threads", "micro_batch_size", "strategy",
    "replicas", "workers",
)  # fmt: skip

Changes = dict[str, tuple[Any, Any]]  # key -> what it was, what it is now


def reopen(
    run: Run, config: Config, data: TrainingData, plan: Plan
) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Where `run` stopped, and the values of its variables; both empty if it saved nothing yet.

    What changed is refused, or told and recorded: in config.yaml, and as one of the manifest's
    `resumptions`. Raises ConfigError.
    """
    manifest = run.manifest
    state: dict[str, Any] = {}
    arrays: list[NDArray[Any]] = []
    changes: Changes = {}
    if run.has_checkpoint:
        state, arrays, notice = run.load_checkpoint()
        if notice:
            logger.info(notice)
        # Not config.yaml but what the weights were made with: nobody edits a checkpoint by hand.
        before = parse_config(state.pop("config"), str(run.path))
        changes = differences(before.model_dump(mode="json"), config.model_dump(mode="json"))
        check_changes(run, config, changes)
        check_epochs(run, config, state)
    check_data(run, manifest, data)
    for key, (old, new) in changes.items():
        logger.info(f"{key}: {old} -> {new}")
    reasons = why_not_identical(manifest, plan) if state else []
    if reasons:
        logger.info(
            f"going on with other arithmetic than before ({'; '.join(reasons)}): the weights will "
            "not be bit-identical to those of an unbroken run. manifest.json records it"
        )
    resumption = {
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": command_line(),
        "epoch": state.get("epoch", 0),
        "step": state.get("step", 0),
        "changed": changes,
        "bit_identical": not reasons,
        "why_not": reasons,
    }
    run.update_manifest(resumptions=[*manifest.get("resumptions", []), resumption])
    if config != run.config:
        run.write_config(config)
    return state, arrays


def check_data(run: Run, manifest: Mapping[str, Any], data: TrainingData) -> None:
    """Refuse images other than those that the run began with, or another number in an epoch."""
    if manifest.get("data_sha256", data.sha256) != data.sha256:
        raise ConfigError(
            f"{run.path} began with {manifest['data']['name']}, but the data found now are "
            f"{data.name}: other images. Make the same data available, or start a new run"
        )
    before = manifest.get("data", {}).get("samples_per_epoch", data.samples_per_epoch)
    if before != data.samples_per_epoch:  # the sample goes 15 times into an epoch if it stands in
        raise ConfigError(
            f"{run.path} began with {before:,} images an epoch, and these data give "
            f"{data.samples_per_epoch:,}: the same images, but found in another way. Let them be "
            "found as they were then (data.path, CONVAE_DATA), or start a new run"
        )


def check_changes(run: Run, config: Config, changes: Changes) -> None:
    """Refuse changes that would make another training of it. Raises ConfigError."""
    refused = [key for key in changes if not may_change(key, config)]
    if not refused:
        return
    lines = [f"  {key}: {changes[key][0]} -> {changes[key][1]}" for key in refused]
    if "training.epochs" in refused:
        lines.append("  (one_cycle's learning rate depends on training.epochs from the first step)")
    raise ConfigError(
        f"{run.path} cannot go on with another config than it began with:\n"
        + "\n".join(lines)
        + f"\nThese may change: {', '.join(MAY_CHANGE)}. For the rest, start a new run"
    )


def may_change(key: str, config: Config) -> bool:
    """Whether `key` may differ from what a run began with."""
    if key == "training.epochs":
        return config.training.schedule.type != "one_cycle"
    return any(key == free or key.startswith(f"{free}.") for free in MAY_CHANGE)


def check_epochs(run: Run, config: Config, state: Mapping[str, Any]) -> None:
    """Refuse fewer epochs than have begun. Raises ConfigError."""
    begun = state["epoch"] + (state["step"] > 0)
    if config.training.epochs < begun:
        raise ConfigError(
            f"training.epochs: {run.path} has already begun epoch {begun}. "
            f"Received: {config.training.epochs}"
        )


def why_not_identical(manifest: Mapping[str, Any], plan: Plan) -> list[str]:
    """What is not as it was when the run was last written, and may change the last bits."""
    now = plan.record()
    before = manifest.get("runtime", now)
    # What a run of an earlier version does not name was not there to be decided.
    pairs = [(key, before[key], now[key]) for key in ARITHMETIC if key in before]
    current = versions()
    pairs += [(f"{p} version", v, current[p]) for p, v in manifest["versions"].items()]
    return [f"{what}: {old} -> {new}" for what, old, new in pairs if old != new]
