"""Import TensorFlow and Keras with their environment variables set, and without their log lines.

    from convae.runtime.backend import keras, tf

No other module sets these variables. TensorFlow logs to file descriptor 2 from C++ before a log
level can be set. These lines go to a temporary file and are shown only if the import fails.
"""

import io
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import IO

from convae.errors import UnsupportedError
from convae.files import check_temporary_folder


def _check_backend(name: str, source: str) -> None:
    if name != "tensorflow":
        raise UnsupportedError(
            f"convae needs Keras with the backend tensorflow, which it sets if nothing else does. "
            f"Received: {source} {name!r:.80}"
        )


# An empty variable counts as none, and keras.json would decide.
os.environ["KERAS_BACKEND"] = os.environ.get("KERAS_BACKEND") or "tensorflow"
_check_backend(os.environ["KERAS_BACKEND"], "the environment variable KERAS_BACKEND")
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
    check_temporary_folder()
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


# TensorFlow ends the process at an unknown flag, and only its log says why.
with nullcontext(io.BytesIO()) if os.environ.get("TF_XLA_FLAGS") else quiet() as _captured:
    try:
        import tensorflow as tf

        # Each model has its own graph on purpose: no warning of "5 out of the last 5 calls".
        tf.get_logger().setLevel("ERROR")
        GPUS = tf.config.list_physical_devices("GPU")
        import keras

        _settings_are_right = True
    except AssertionError:  # how TensorFlow and Keras check keras.json
        _settings_are_right = False
    _captured.seek(0)
    IMPORT_LOG = _captured.read().decode(errors="replace")

if not _settings_are_right:
    raise UnsupportedError(
        "Keras refuses a setting in keras.json, in the folder ~/.keras or KERAS_HOME. Right are "
        "such as floatx float32, epsilon 1e-07 and image_data_format channels_last"
    )
_check_backend(keras.backend.backend(), "Keras, already imported with the backend")


@contextmanager
def float32() -> Iterator[None]:
    """Let an optimizer create and compute in float32 what has no argument for its type."""
    floatx = keras.config.floatx()
    keras.config.set_floatx("float32")
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)


__all__ = ["GPUS", "IMPORT_LOG", "float32", "keras", "quiet", "tf"]
