"""convae: train, understand and use convolutional autoencoders with Keras and TensorFlow.

    import convae

    config = convae.load_config("configs/mnist.yaml", ["training.epochs=1"])
    run = convae.train(config)
    metrics = convae.evaluate(run)
    codes = convae.load("mnist").encode(images)

`import convae` is quick: TensorFlow and Keras are imported when a name that needs them is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convae.config.loader import load_config
    from convae.errors import (
        CheckpointError,
        ConfigError,
        ConvaeError,
        DataError,
        RunError,
        UnsupportedError,
    )
    from convae.evaluation.evaluate import evaluate
    from convae.inference.autoencoder import Autoencoder, load
    from convae.inference.sklearn import ConvAutoencoder
    from convae.runs.run import Run
    from convae.training.trainer import train

__version__ = "0.1.0"
__all__ = [
    "Autoencoder",
    "CheckpointError",
    "ConfigError",
    "ConvAutoencoder",
    "ConvaeError",
    "DataError",
    "Run",
    "RunError",
    "UnsupportedError",
    "evaluate",
    "load",
    "load_config",
    "train",
]

_MODULES = {
    "Autoencoder": "inference.autoencoder",
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "ConvAutoencoder": "inference.sklearn",
    "ConvaeError": "errors",
    "DataError": "errors",
    "Run": "runs.run",
    "RunError": "errors",
    "UnsupportedError": "errors",
    "evaluate": "evaluation.evaluate",
    "load": "inference.autoencoder",
    "load_config": "config.loader",
    "train": "training.trainer",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
