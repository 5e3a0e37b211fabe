"""Deal with headers that break the standard, without quoting what stands in them."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError

from msrf_monai.errors import InputError, MsrfError

__all__ = ["REFUSALS", "guarded", "without_validation"]

REFUSALS = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    EOFError,
    RuntimeError,
    struct.error,
    BytesLengthException,
    InvalidDicomError,
)
"""What pydicom and highdicom raise when they cannot read a value or make an object of it."""


@contextmanager
def without_validation() -> Iterator[None]:
    """Let pydicom read values that break the standard without quoting them in a warning."""
    settings = pydicom.config.settings
    before = settings.reading_validation_mode
    settings.reading_validation_mode = pydicom.config.IGNORE
    try:
        yield
    finally:
        settings.reading_validation_mode = before


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """Turn what the libraries raise into an ``InputError``, and keep their chatter, which quotes UIDs, out of the log.

    Args:
        what: what is being done, for the message.

    Raises:
        InputError: when a library refuses.
    """
    logger = logging.getLogger("highdicom")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with without_validation():
            yield
    except MsrfError:
        raise
    except REFUSALS as error:
        # "from None": the libraries' errors may quote names and numbers of the source
        raise InputError(
            f"cannot {what}: the library refused with {type(error).__name__}; the source's header is likely to break "
            "the standard"
        ) from None
    finally:
        logger.setLevel(level)
