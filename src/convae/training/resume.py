"""Resume a run: what may have changed since it stopped, and whether that changes its bits."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convae.config.diff import differences
from convae.config.loader import parse_config
from convae.config.schema import Config
from convae.console import logger
from convae.data.loading import TrainingData
from convae.errors import CheckpointError, ConfigError
from convae.runs.provenance import command_line, versions
from convae.runs.run import Run
from convae.runtime.plan import Plan

# The keys that may change when a run is resumed; a section stands for its keys.
MAY_CHANGE = (
    "training.epochs",  # but for one_cycle, whose learning rate depends on it from the first step
    "training.checkpoint_interval",
    "runtime",  # what changes the arithmetic is recorded as not bit-identical
    "output",
    "data.path",  # the images may have moved: they are compared by their hash
    "data.download",
    "data.allow_sample",
)
# The decisions of the runtime that may change the last bits.
ARITHMETIC = (
    "device", "device_name", "precision", "jit_compile", "threads", "micro_batch_size", "strategy",
    "replicas", "workers",
)  # fmt: skip


@dataclass
class TrainingState:
    """The position of a training. A checkpoint holds it beside the weights and the optimizer."""

    epoch: int = 0  # the current epoch, from 0
    step: int = 0  # the next step of the epoch, from 0
    losses: list[list[float]] = field(default_factory=list)  # of each batch, times its size
    epoch_seconds: float = 0.0  # spent on the epoch's steps
    seconds: float = 0.0  # spent on the training, at the last checkpoint
    history: list[dict[str, float]] = field(default_factory=list)  # a row for each finished epoch

    @property
    def best(self) -> float:
        """The lowest validation loss so far."""
        return min((row["val_loss"] for row in self.history), default=math.inf)


def resume_run(
    run: Run, config: Config, data: TrainingData, plan: Plan
) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Return the state of `run` and the values of its variables; both empty without a checkpoint.

    Changes are refused, or logged and recorded: in config.yaml and in the manifest's `resumptions`.

    Raises:
        ConfigError: `config` or `data` would make it another training.
    """
    manifest = run.manifest
    state: dict[str, Any] = {}
    arrays: list[NDArray[Any]] = []
    changes: dict[str, tuple[Any, Any]] = {}  # the values before and now
    if run.has_checkpoint:
        state, arrays, notice = run.load_checkpoint()
        if notice:
            logger.info(notice)
        # The checkpoint's config and not config.yaml, which somebody may have edited.
        before = parse_config(state.pop("config"), str(run.path))
        changes = differences(before.model_dump(mode="json"), config.model_dump(mode="json"))
        _check_changes(run, config, changes)
        begun = state["epoch"] + (state["step"] > 0)
        if config.training.epochs < begun:
            raise ConfigError(
                f"training.epochs: {run.path} has already begun epoch {begun}. "
                f"Received: {config.training.epochs}"
            )
    _check_data(run, manifest, data)
    for key, (old, new) in changes.items():
        logger.info(f"{key}: {old} -> {new}")
    reasons = _why_not_identical(manifest, plan) if state else []
    if reasons:
        logger.info(
            f"resuming with other arithmetic than before ({'; '.join(reasons)}): the weights will "
            "not be bit-identical to those of an unbroken run, as far as is known. manifest.json "
            "records it"
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
    run.write_config(config)
    return state, arrays


def restore_variables(model: Any, optimizer: Any, arrays: Sequence[NDArray[Any]]) -> None:
    """Assign the arrays of a checkpoint to the variables of a model and its optimizer.

    Raises:
        CheckpointError: Their shapes differ.
    """
    variables, weights = [*model.variables, *optimizer.variables], len(model.variables)
    arrays = [*arrays[:weights], *_join_slots(arrays[weights:], optimizer.variables)]
    if [tuple(v.shape) for v in variables] != [a.shape for a in arrays]:
        raise CheckpointError(
            "the checkpoint belongs to another model or optimizer than the config's"
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _join_slots(arrays: Sequence[NDArray[Any]], variables: Sequence[Any]) -> list[NDArray[Any]]:
    """Return an optimizer's state of an older checkpoint, with each slot in one vector.

    It was held weight by weight, a slot (such as Adam's two moments) after the other for each.
    """
    slots = sum(1 for variable in variables if len(variable.shape) == 1)
    scalars = len(variables) - slots
    if len(arrays) <= len(variables) or not slots:
        return list(arrays)
    values = [array.ravel() for array in arrays[scalars:]]
    vectors = [np.concatenate(values[slot::slots]) for slot in range(slots)]
    return [*arrays[:scalars], *vectors]


def _check_data(run: Run, manifest: Mapping[str, Any], data: TrainingData) -> None:
    """Refuse other images than those of the run, or another number of them in an epoch."""
    if manifest.get("data_sha256", data.sha256) != data.sha256:
        raise ConfigError(
            f"{run.path} was trained on {manifest.get('data', {}).get('name', 'other data')}, but "
            f"the data found now are {data.name}: other images. Make the same data available, or "
            "start a new run"
        )
    before = manifest.get("data", {}).get("samples_per_epoch", data.samples_per_epoch)
    if before != data.samples_per_epoch:  # with the bundled sample an epoch repeats its images
        raise ConfigError(
            f"{run.path} was trained with {before:,} images an epoch, but the data found now give "
            f"{data.samples_per_epoch:,}: the same images from another source. Use the source of "
            "before (data.path, CONVAE_DATA), or start a new run"
        )


def _check_changes(run: Run, config: Config, changes: Mapping[str, tuple[Any, Any]]) -> None:
    one_cycle = config.training.schedule.type == "one_cycle"
    allowed = [key for key in MAY_CHANGE if not (key == "training.epochs" and one_cycle)]
    refused = [
        f"  {key}: {old} -> {new}"
        for key, (old, new) in changes.items()
        if not any(f"{key}.".startswith(f"{prefix}.") for prefix in allowed)
    ]
    if not refused:
        return
    if one_cycle and "training.epochs" in changes:
        refused.append(
            "  (one_cycle's learning rate depends on training.epochs from the first step)"
        )
    raise ConfigError(
        f"{run.path} cannot be resumed with another config than it was started with:\n"
        + "\n".join(refused)
        + f"\nThese may change: {', '.join(MAY_CHANGE)}. For other changes, start a new run"
    )


def _why_not_identical(manifest: Mapping[str, Any], plan: Plan) -> list[str]:
    """Return what may change the last bits: other decisions and versions, and those not known."""
    recorded = {"runtime": "device", "versions": "versions", "data_sha256": "data"}
    unknown = [f"{what}: not known" for key, what in recorded.items() if key not in manifest]
    now, current = plan.record(), versions()
    before = manifest.get("runtime", {})
    # An earlier version may not have recorded every decision.
    pairs = [(key, before[key], now[key]) for key in ARITHMETIC if key in before]
    then = manifest.get("versions", {})
    pairs += [(f"{p} version", v, current[p]) for p, v in then.items() if p in current]
    return unknown + [f"{what}: {old} -> {new}" for what, old, new in pairs if old != new]
