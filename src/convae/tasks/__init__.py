"""What a model is trained for: a file for each task, and here the table of them."""

from convae.config.schema import Config
from convae.errors import ConfigError
from convae.tasks.anomaly import Anomaly
from convae.tasks.denoise import Denoise
from convae.tasks.generate import Generate
from convae.tasks.reconstruct import Reconstruct
from convae.tasks.segment import Segment
from convae.tasks.task import REQUIRED, Evaluation, Examples, Task
from convae.tasks.upscale import Upscale

__all__ = ["Evaluation", "Examples", "Task", "build_task"]

TASKS: dict[str, type[Task]] = {
    "reconstruct": Reconstruct,
    "denoise": Denoise,
    "upscale": Upscale,
    "segment": Segment,
    "anomaly": Anomaly,
    "generate": Generate,
}


def build_task(config: Config) -> Task:
    """Return the task of `config.task`.

    Raises:
        ConfigError: If the table has no class for it, or the class lacks one of REQUIRED.
    """
    kind = config.task.type
    if kind not in TASKS:
        raise ConfigError(f"task.type: {kind} is in the schema, but not in convae.tasks.TASKS")
    if missing := [name for name in REQUIRED if not hasattr(TASKS[kind], name)]:
        raise ConfigError(f"task.type: {kind}: {TASKS[kind].__name__} lacks {', '.join(missing)}")
    return TASKS[kind](config)
