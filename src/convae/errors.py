"""The errors that a user can fix, each also a built-in error that a Python user would catch.

The command line prints the message of each, without a traceback, and exits with code 2.
"""


class ConvaeError(Exception):
    """What is wrong, where, what was received, and what would be right."""


class ConfigError(ConvaeError, ValueError):
    """A key, value or layer of a config, or an argument, is wrong."""


class DataError(ConvaeError, ValueError):
    """Images or labels cannot be found, read or used."""


class RunError(ConvaeError, ValueError):
    """A run is not there, damaged, or cannot do what is asked."""


class CheckpointError(RunError):
    """There is no checkpoint that training can resume from."""


class UnsupportedError(ConvaeError, ValueError):
    """A package, device, format or option is missing here."""


class FileError(ConvaeError, OSError):
    """A file or folder cannot be read or written."""
