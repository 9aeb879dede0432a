"""Import TensorFlow and Keras with their environment variables set, and without their log lines.

    from convae.runtime.backend import keras, tf

No other module sets these variables. TensorFlow logs to file descriptor 2 from C++ before a log
level can be set. These lines go to a temporary file and are shown only if the import fails.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # show errors only
# TensorFlow turns oneDNN off on processors without AVX-512, where its convolutions are about twice
# as fast, too. Dilated transposed convolutions need it on every processor.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


@contextmanager
def quiet() -> Iterator[IO[bytes]]:
    """Redirect file descriptor 2 to a temporary file, which is shown if an exception is raised.

    What Python writes to sys.stderr meanwhile, perhaps another thread, is shown at once.
    """
    python = sys.stderr
    python.flush()
    with tempfile.TemporaryFile() as captured:
        saved = os.dup(2)
        if python is sys.__stderr__:
            sys.stderr = os.fdopen(saved, "w", 1, errors="backslashreplace", closefd=False)
        os.dup2(captured.fileno(), 2)
        try:
            yield captured
        except BaseException:
            captured.seek(0)
            os.write(saved, captured.read())
            raise
        finally:
            os.dup2(saved, 2)
            sys.stderr = python
            os.close(saved)


with quiet() as _captured:
    import tensorflow as tf

    # Each model has its own graph on purpose: no warning of "5 out of the last 5 calls".
    tf.get_logger().setLevel("ERROR")
    GPUS = tf.config.list_physical_devices("GPU")
    import keras

    _captured.seek(0)
    IMPORT_LOG = _captured.read().decode(errors="replace")

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"convae runs on Keras with the TensorFlow backend. Received: KERAS_BACKEND="
        f"{keras.backend.backend()}"
    )

__all__ = ["GPUS", "IMPORT_LOG", "keras", "quiet", "tf"]
