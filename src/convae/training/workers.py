"""Several workers and one run: what must be the same for all, and who has the run's folder."""

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

OWN = {"path", "download", "allow_sample", "cache"}  # how a worker comes to the data
# What TensorFlow raises when its memory or a shape is at fault, and no peer.
NO_PEERS_FAULT = (tf.errors.ResourceExhaustedError, tf.errors.InvalidArgumentError)


class PeerLost(Exception):  # noqa: N818 - not this worker's error
    """Another worker has ended, or cannot be reached any more."""


@contextmanager
def peers_watched(plan: Plan) -> Iterator[None]:
    """Tell in words what TensorFlow raises when another worker is gone. Raises PeerLost."""
    try:
        yield
    except tf.errors.OpError as error:
        if plan.workers == 1 or isinstance(error, NO_PEERS_FAULT):
            raise
        text = str(error.message)
        named = re.search(r"Collective ops is aborted by: (.*)", text)
        reason = named[1] if named else text.strip().splitlines()[-1]
        raise PeerLost(
            f"worker {plan.worker} of {plan.workers} has lost another worker, and no "
            "worker goes on without the others. What was saved before stays whole: start all of "
            f"them again with --resume RUN. TensorFlow says: {reason:.200}"
        ) from error


def facts(config: Config, data: TrainingData, plan: Plan) -> dict[str, Any]:
    """What must be the same on all workers, as JSON.

    Where data and outputs lie, how many threads there are and who does the logging need not be.
    """
    exclude: Any = {"output": True, "runtime": True, "data": OWN}
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
        "versions": versions(),
    }


def share_run(config: Config, replicas: Replicas, resume: Run | None) -> Run:
    """The one run of all workers: the chief makes or has it, the others look on. A collective."""
    if replicas.workers == 1:
        return resume or Run.create(config)
    if not replicas.is_chief:
        return ReadOnlyRun(Path(replicas.all_gather_text("")[0]))
    run = resume or Run.create(config)
    replicas.all_gather_text(str(run.path.absolute()))
    return run
