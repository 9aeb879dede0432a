"""Import TensorFlow and Keras for a command, in the time that its data take and without extras.

Only the command line does this: a program that imports convae may use all of Keras.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module

# Keras imports these wherever they are installed, for functions that no command calls. With all
# that they import they take a third of the seconds.
EXTRAS = ("IPython", "matplotlib", "pandas", "scipy", "sklearn")


def import_backend() -> None:
    """Import TensorFlow and Keras, for which EXTRAS are not installed."""
    hidden = [name for name in EXTRAS if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: not importable
    try:
        import_module("convae.runtime.backend")
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def backend_meanwhile() -> Iterator[None]:
    """Import TensorFlow and Keras in a thread during a `with` block, which imports no EXTRAS."""
    with ThreadPoolExecutor(1) as pool:
        imported = pool.submit(import_backend)
        yield
    imported.result()
