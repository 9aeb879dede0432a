"""The progress of a training on stderr: bars on a terminal, and a line for each epoch.

With --quiet nothing is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from convae.console import logger, progress_bar
from convae.runtime.backend import keras

if TYPE_CHECKING:
    from convae.config.schema import Config
    from convae.training.resume import TrainingState


class Progress(keras.callbacks.Callback):  # type: ignore[misc]
    """A Keras callback with two bars: the epochs, and the images of the current epoch.

    Args:
        config: The config of the training.
        state: Its position; of a resumed run, where it continues.
        samples_per_epoch: The number of images in an epoch.
        floor: The entropy lower bound of the loss.
    """

    def __init__(
        self, config: Config, state: TrainingState, samples_per_epoch: int, floor: float
    ) -> None:
        super().__init__()
        self._training, self._state = config.training, state
        self._samples_per_epoch, self._floor = samples_per_epoch, floor
        self._bars: list[Any] = []  # over the epochs, and over the images of the current one

    def on_train_begin(self, logs: Any = None) -> None:
        """Open the bar over epochs."""
        self._open(self._training.epochs, self._state.epoch, desc="epochs", leave=True)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Open the bar over the epoch's images."""
        done = self._state.step * self._training.batch_size
        desc = f"epoch {epoch + 1}/{self._training.epochs}"
        self._open(self._samples_per_epoch, done, desc=desc, unit=" images")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Move the bar over images by one batch."""
        self._bars[-1].update(int(logs["size"]))
        losses = "".join(f" {k} {v:.5f}" for k, v in logs.items() if k != "size")
        self._bars[-1].set_postfix_str(losses.strip(), refresh=False)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Log the losses and the speed of the epoch."""
        logs = logs or {}
        line = (
            f"epoch {epoch + 1}/{self._training.epochs}  loss {logs['loss']:.5f}  "
            f"val_loss {logs['val_loss']:.5f}  excess {logs['val_excess']:.5f} "
            f"over the floor {self._floor:.5f}{self._format_terms(logs)}  "
            f"{logs['images_per_second']:,.0f} images/s  "
            f"{logs['seconds']:.1f} s"
        )
        self._bars.pop().close()
        logger.info(line)
        self._bars[0].set_postfix_str(
            f"val_loss {logs['val_loss']:.5f}, excess {logs['val_excess']:.5f}", refresh=False
        )
        self._bars[0].update()

    @staticmethod
    def _format_terms(logs: Mapping[str, float]) -> str:
        """Return the terms of the validation loss, the columns val_NAME beside a column NAME."""
        names = [key for key in logs if f"val_{key}" in logs and key != "loss"]
        return "".join(f"  val_{name} {logs[f'val_{name}']:.5f}" for name in names)

    def close(self, _: str = "") -> None:
        """Close the bars, also after an error."""
        while self._bars:
            self._bars.pop().close()

    def _open(self, total: int, done: int, **options: Any) -> None:
        position = len(self._bars)
        options = {"initial": done, "position": position, "delay": 0, **options}
        self._bars.append(progress_bar(total=total, **options))
