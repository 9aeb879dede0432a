"""convae: train, understand and use convolutional autoencoders with Keras and TensorFlow.

    import convae

    config = convae.load_config("configs/mnist.yaml", ["training.epochs=1"])
    run = convae.train(config)
    metrics = convae.evaluate(run)
    codes = convae.load("mnist").encode(images)

Importing the package imports neither TensorFlow nor Keras: each name is fetched when it is used.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convae.autoencoder import Autoencoder, load
    from convae.config import load_config
    from convae.errors import UserError
    from convae.estimator import ConvAutoencoder
    from convae.evaluate import evaluate
    from convae.run import Run
    from convae.train import train

__version__ = "0.1.0"
__all__ = [
    "Autoencoder",
    "ConvAutoencoder",
    "Run",
    "UserError",
    "evaluate",
    "load",
    "load_config",
    "train",
]

_MODULES = {
    "Autoencoder": "autoencoder",
    "ConvAutoencoder": "estimator",
    "Run": "run",
    "UserError": "errors",
    "evaluate": "evaluate",
    "load": "autoencoder",
    "load_config": "config",
    "train": "train",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """A package whose names `train` and `evaluate` are functions, though modules are called so.

    Python's import puts a submodule into its package under its own name, over whatever is there.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _MODULES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
