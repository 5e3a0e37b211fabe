"""The errors that this package raises: each message says what was given, what was expected and what to do."""

from __future__ import annotations

from typing import Any, get_args

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "EngineError",
    "InputError",
    "MissingExtraError",
    "MsrfError",
    "NonFiniteLossError",
    "PacsError",
    "StorageError",
    "check_choice",
]


class MsrfError(Exception):
    """Base of every error that a user of this package can cause and mend."""


class InputError(MsrfError, ValueError):
    """An argument or an array that a function or a network cannot take."""


class DataError(MsrfError, ValueError):
    """An image, a mask or a data set that is missing, broken or inconsistent; the message names the file."""


class CheckpointError(MsrfError, RuntimeError):
    """Weights that do not fit the network, that are damaged, or that are not the file they are said to be."""


class ConfigError(MsrfError, ValueError):
    """A bundle configuration or an override that does not say what its author meant."""


class NonFiniteLossError(MsrfError, ArithmeticError):
    """The loss or the weights became NaN or infinite; the message names the batch's files or the tensor."""


class EngineError(MsrfError, RuntimeError):
    """The processes that do the work of a run cannot start, or break down again and again."""


class StorageError(MsrfError, OSError):
    """A file could not be written whole, and what was there before is untouched."""


class PacsError(MsrfError, ConnectionError):
    """A PACS cannot be reached, refuses what it is asked or sent, or breaks off; the message names the server."""

    def __init__(self, message: str, *, is_lasting: bool = False) -> None:
        super().__init__(message)
        self.is_lasting = is_lasting
        """True when trying again cannot help: wrong address, wrong credentials, an answer that is no DICOM."""


class MissingExtraError(MsrfError, ImportError):
    """An optional library is not installed; the message names the extra that brings it."""


def check_choice(name: str, given: object, choices: Any) -> None:
    """Refuse an argument that is none of the words it may be.

    Args:
        name: the argument's name, for the message.
        given: its value.
        choices: the ``Literal`` type of its words.

    Raises:
        InputError: when ``given`` is none of them.
    """
    if given not in get_args(choices):
        raise InputError(f"{name} is {given!r}; expected one of {', '.join(map(repr, get_args(choices)))}")
