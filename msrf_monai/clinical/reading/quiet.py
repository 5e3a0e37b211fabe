"""Keep pydicom from speaking: its warnings and log lines quote values, and values name patients."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

__all__ = ["quiet_pydicom"]

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
