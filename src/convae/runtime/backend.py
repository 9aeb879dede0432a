"""The one place where TensorFlow is imported: with its settings made first, and without its noise.

    from convae.backend import keras, tf

TensorFlow logs several lines to file descriptor 2 from C++ before any level can be set, so they are
caught in a temporary file and shown only if the import fails.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors stay
# TensorFlow leaves oneDNN off where it finds no AVX-512; on such processors, too, its convolutions
# are about twice as fast as the alternative.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


@contextmanager
def quiet() -> Iterator[IO[bytes]]:
    """File descriptor 2 goes to a temporary file; what it holds is shown if an error escapes."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as caught:
        saved = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            yield caught
        except BaseException:
            os.dup2(saved, 2)
            caught.seek(0)
            os.write(2, caught.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


with quiet() as _caught:
    import tensorflow as tf

    # A graph for each model is meant, and no reason to warn of "5 out of the last 5 calls".
    tf.get_logger().setLevel("ERROR")
    GPUS = tf.config.list_physical_devices("GPU")
    import keras

    _caught.seek(0)
    IMPORT_LOG = _caught.read().decode(errors="replace")

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"convae runs on Keras with the TensorFlow backend. Received: KERAS_BACKEND="
        f"{keras.backend.backend()}"
    )

__all__ = ["GPUS", "IMPORT_LOG", "keras", "quiet", "tf"]
