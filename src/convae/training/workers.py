"""Several workers and one run: what must be equal on all of them, and who writes the run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from convae.config.schema import Config
from convae.data.loading import TrainingData
from convae.runs.provenance import versions
from convae.runs.run import ReadOnlyRun, Run
from convae.runtime.backend import tf
from convae.runtime.plan import Plan
from convae.runtime.replicas import Replicas

LOCAL_KEYS = {"path", "download", "allow_sample", "cache"}  # of `data`: may differ by worker
LOCAL_ERRORS = (tf.errors.ResourceExhaustedError, tf.errors.InvalidArgumentError)  # no lost worker


class PeerLost(Exception):  # noqa: N818 - not this worker's error
    """Another worker has ended, or can no longer be reached."""


@contextmanager
def peers_watched(plan: Plan) -> Iterator[None]:
    """Turn the errors of TensorFlow about a lost worker into PeerLost."""
    try:
        yield
    except tf.errors.OpError as error:
        if plan.workers == 1 or isinstance(error, LOCAL_ERRORS):
            raise
        text = str(error.message)
        named = re.search(r"Collective ops is aborted by: (.*)", text)
        reason = named[1] if named else text.strip().splitlines()[-1]
        raise PeerLost(
            f"worker {plan.worker} of {plan.workers} has lost another worker, and no worker "
            "continues without the others. What was saved before stays complete: start all of "
            f"them again with --resume RUN. TensorFlow reports: {reason:.200}"
        ) from error


def fingerprint(config: Config, data: TrainingData, plan: Plan) -> dict[str, Any]:
    """Return what must be equal on all workers, as JSON.

    Threads, output, logging and the place of the data may differ.
    """
    exclude: Any = {"output": True, "runtime": True, "data": LOCAL_KEYS}
    return {
        "config": config.model_dump(mode="json", exclude=exclude),
        "data": {
            "sha256": data.sha256,
            "training_images": len(data.train),
            "validation_images": len(data.validation),
            "samples_per_epoch": data.samples_per_epoch,
        },
        "precision": plan.precision,
        "replicas": plan.replicas,
        "steps_per_execution": plan.steps_per_execution,
        "versions": versions(),
    }


def share_run(config: Config, replicas: Replicas, resume: Run | None) -> Run:
    """Return the run of all workers: only worker 0 creates and writes it. A collective."""
    run = (resume or Run.create(config)) if replicas.is_chief else None
    path, *_ = replicas.all_gather_text(str(run.path.absolute()) if run else "")
    return run or ReadOnlyRun(Path(path))
