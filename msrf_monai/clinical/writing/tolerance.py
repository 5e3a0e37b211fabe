"""Deal with headers that break the standard, without quoting what stands in them."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pydicom.errors import BytesLengthException, InvalidDicomError

from msrf_monai.clinical.shared_setting import SharedSetting, ignoring_validation
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


without_validation = ignoring_validation
"""A block in which pydicom reads values that break the standard; blocks of several threads may overlap."""


def _hush(undo: ExitStack) -> None:
    logger = logging.getLogger("highdicom")
    undo.callback(logger.setLevel, logger.level)
    logger.setLevel(logging.ERROR)


_hushed = SharedSetting(_hush).held


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """Turn what the libraries raise into an ``InputError``, and keep their chatter, which quotes UIDs, out of the log.

    Args:
        what: what is being done, for the message.

    Raises:
        InputError: when a library refuses.
    """
    try:
        with _hushed(), without_validation():
            yield
    except MsrfError:
        raise
    except REFUSALS as error:
        # "from None": the libraries' errors may quote names and numbers of the source
        raise InputError(
            f"cannot {what}: the library refused with {type(error).__name__}; the source's header is likely to break "
            "the standard"
        ) from None
