"""Keep pydicom from speaking: its warnings, log lines and errors quote values, and values name patients."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from msrf_monai.clinical.reading.refusal import RefusalCode, RefusedInput
from msrf_monai.errors import MissingExtraError

__all__ = ["quiet_pydicom", "refusing_bad_headers"]

_lock = threading.Lock()
_depth = 0
_undo = ExitStack()


def _drop(record: logging.LogRecord) -> bool:
    return False


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence pydicom's (and highdicom's) warnings, log lines and checks of values while the block runs.

    The settings are the process's, so blocks of several threads are counted: the first sets them, the last one puts
    them back. Nothing of other libraries is silenced.
    """
    global _depth
    with _lock:
        _depth += 1
        if _depth == 1:
            _silence()
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _undo.close()


def _silence() -> None:
    from pydicom import config

    _undo.enter_context(warnings.catch_warnings())
    warnings.filterwarnings("ignore", module=r"(pydicom|highdicom)\b")
    logger = logging.getLogger("pydicom")
    logger.addFilter(_drop)
    _undo.callback(logger.removeFilter, _drop)
    _undo.callback(setattr, config.settings, "reading_validation_mode", config.settings.reading_validation_mode)
    config.settings.reading_validation_mode = config.IGNORE


@contextmanager
def refusing_bad_headers() -> Iterator[None]:
    """Refuse what pydicom raises: it parses values only when they are asked for, and raises whatever that leads to."""
    try:
        yield
    except (RefusedInput, MissingExtraError):
        raise
    except Exception as error:
        raise RefusedInput(
            RefusalCode.BAD_HEADER, f"the header cannot be read ({type(error).__name__}); export the file again"
        ) from None
