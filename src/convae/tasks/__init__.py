"""What goes in and what should come out: a file a task, and here the choice between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convae.tasks.anomaly import Anomaly
from convae.tasks.denoise import Denoise
from convae.tasks.segment import Segment
from convae.tasks.task import Examples, Task
from convae.tasks.upscale import Upscale

if TYPE_CHECKING:
    from convae.config.schema import Config

__all__ = ["Examples", "Task", "build_task"]

TASKS: dict[str, type[Task]] = {
    "reconstruct": Task,
    "denoise": Denoise,
    "upscale": Upscale,
    "segment": Segment,
    "anomaly": Anomaly,
}


def build_task(config: Config) -> Task:
    """The task that `config.task` names."""
    return TASKS[config.task.type](config)
