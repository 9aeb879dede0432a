"""convae: train, understand and use convolutional autoencoders with Keras and TensorFlow.

    import convae

    config = convae.load_config("mnist", ["training.epochs=1"])
    run = convae.train(config)
    metrics = convae.evaluate(run)
    codes = convae.load("mnist").encode(images)

`import convae` is quick: TensorFlow and Keras are imported when a name that needs them is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convae.config.loader import load_config as load_config
    from convae.errors import CheckpointError as CheckpointError
    from convae.errors import ConfigError as ConfigError
    from convae.errors import ConvaeError as ConvaeError
    from convae.errors import DataError as DataError
    from convae.errors import FileError as FileError
    from convae.errors import RunError as RunError
    from convae.errors import UnsupportedError as UnsupportedError
    from convae.evaluation.evaluate import evaluate as evaluate
    from convae.inference.autoencoder import Autoencoder as Autoencoder
    from convae.inference.autoencoder import load as load
    from convae.inference.sklearn import ConvAutoencoder as ConvAutoencoder
    from convae.runs.run import Run as Run
    from convae.training.trainer import train as train

__version__ = "0.1.0"

_MODULES = {
    "Autoencoder": "inference.autoencoder",
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "ConvAutoencoder": "inference.sklearn",
    "ConvaeError": "errors",
    "DataError": "errors",
    "FileError": "errors",
    "Run": "runs.run",
    "RunError": "errors",
    "UnsupportedError": "errors",
    "evaluate": "evaluation.evaluate",
    "load": "inference.autoencoder",
    "load_config": "config.loader",
    "train": "training.trainer",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
