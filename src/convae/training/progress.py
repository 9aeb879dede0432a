"""The progress of a training on stderr: bars on a terminal, and a line for each epoch.

With --quiet nothing is shown.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from tqdm.auto import tqdm

from convae.console import logger
from convae.runtime.backend import keras


class Progress(keras.callbacks.Callback):  # type: ignore[misc]
    """A Keras callback with two bars: the epochs, and the images of the current epoch.

    Args:
        epochs: The number of epochs.
        first_epoch: The epoch that a resumed run continues, from 0.
        samples_per_epoch: The number of images in an epoch.
        first_image: The number of images of `first_epoch` that are already done.
        floor: The entropy lower bound of the loss.
    """

    def __init__(
        self, epochs: int, first_epoch: int, samples_per_epoch: int, first_image: int, floor: float
    ) -> None:
        super().__init__()
        self._epochs, self._first_epoch = epochs, first_epoch
        self._samples_per_epoch, self._first_image = samples_per_epoch, first_image
        self._floor = floor
        self._terminal = sys.stderr.isatty() and logger.isEnabledFor(logging.INFO)
        self._epoch_bar: Any = None
        self._image_bar: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Open the bar over epochs."""
        if self._terminal:
            self._epoch_bar = tqdm(
                total=self._epochs, initial=self._first_epoch, desc="epochs", position=0
            )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Open the bar over the epoch's images."""
        if self._terminal:
            self._image_bar = tqdm(
                total=self._samples_per_epoch,
                initial=self._first_image,
                desc=f"epoch {epoch + 1}/{self._epochs}",
                unit=" images",
                position=1,
                leave=False,
            )

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Move the bar over images by one batch."""
        if self._image_bar is not None:
            self._image_bar.update(int(logs["size"]))
            self._image_bar.set_postfix_str(f"loss {logs['loss']:.5f}", refresh=False)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Log the losses and the speed of the epoch."""
        logs = logs or {}
        self._first_image = 0
        line = (
            f"epoch {epoch + 1}/{self._epochs}  loss {logs['loss']:.5f}  "
            f"val_loss {logs['val_loss']:.5f}  excess {logs['val_excess']:.5f} "
            f"over the floor {self._floor:.5f}  {logs['images_per_second']:,.0f} images/s  "
            f"{logs['seconds']:.1f} s"
        )
        if self._image_bar is None:
            logger.info(line)
            return
        self._image_bar.close()
        self._image_bar = None
        tqdm.write(line, file=sys.stderr)
        self._epoch_bar.set_postfix_str(
            f"val_loss {logs['val_loss']:.5f}, excess {logs['val_excess']:.5f}", refresh=False
        )
        self._epoch_bar.update()

    def close(self, _: str = "") -> None:
        """Close the bars, also after an error."""
        for bar in (self._image_bar, self._epoch_bar):
            if bar is not None:
                bar.close()
        self._image_bar = self._epoch_bar = None
