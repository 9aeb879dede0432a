"""What a training shows while it runs, on stderr: bars on a terminal, else a line an epoch.

With --quiet it shows nothing.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from tqdm import tqdm

from convae.console import logger
from convae.runtime.backend import keras


class Progress(keras.callbacks.Callback):  # type: ignore[misc]
    """A Keras callback: epochs with their ETA, inside them images, loss, val_loss and excess."""

    def __init__(
        self, epochs: int, first_epoch: int, samples_per_epoch: int, first_image: int, floor: float
    ) -> None:
        super().__init__()
        self._epochs, self._first, self._images = epochs, first_epoch, samples_per_epoch
        self._seen = first_image  # in the epoch that a resumed run goes on in
        self._floor = floor
        self._terminal = sys.stderr.isatty() and logger.isEnabledFor(logging.INFO)
        self._outer: Any = None
        self._inner: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Open the bar over epochs."""
        if self._terminal:
            self._outer = tqdm(total=self._epochs, initial=self._first, desc="epochs", position=0)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Open the bar over the epoch's images."""
        if self._terminal:
            self._inner = tqdm(
                total=self._images,
                initial=self._seen,
                desc=f"epoch {epoch + 1}/{self._epochs}",
                unit=" images",
                position=1,
                leave=False,
            )

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Move the inner bar by one batch."""
        if self._inner is not None:
            self._inner.update(int(logs["size"]))
            self._inner.set_postfix_str(f"loss {logs['loss']:.5f}", refresh=False)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Say what the epoch came to."""
        logs = logs or {}
        self._seen = 0
        line = (
            f"epoch {epoch + 1}/{self._epochs}  loss {logs['loss']:.5f}  "
            f"val_loss {logs['val_loss']:.5f}  excess {logs['val_excess']:.5f} "
            f"over the floor {self._floor:.5f}  {logs['images_per_second']:,.0f} images/s  "
            f"{logs['seconds']:.1f} s"
        )
        if self._inner is None:
            logger.info(line)
            return
        self._inner.close()
        self._inner = None
        tqdm.write(line, file=sys.stderr)
        self._outer.set_postfix_str(
            f"val_loss {logs['val_loss']:.5f}, excess {logs['val_excess']:.5f}", refresh=False
        )
        self._outer.update()

    def close(self, _: str = "") -> None:
        """Leave the terminal tidy, also after an error."""
        for bar in (self._inner, self._outer):
            if bar is not None:
                bar.close()
        self._inner = self._outer = None
