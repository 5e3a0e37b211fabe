"""Keep pydicom from speaking: its warnings, log lines and errors quote values, and values name patients."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from msrf_monai.clinical.reading.refusal import RefusalCode, RefusedInput
from msrf_monai.clinical.shared_setting import SharedSetting, ignoring_validation
from msrf_monai.errors import MissingExtraError

__all__ = ["quiet_pydicom", "refusing_bad_headers"]


def _drop(record: logging.LogRecord) -> bool:
    return False


def _silence(undo: ExitStack) -> None:
    undo.enter_context(warnings.catch_warnings())
    warnings.filterwarnings("ignore", module=r"(pydicom|highdicom)\b")
    logger = logging.getLogger("pydicom")
    logger.addFilter(_drop)
    undo.callback(logger.removeFilter, _drop)


_silent = SharedSetting(_silence).held


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence pydicom's (and highdicom's) warnings, log lines and checks of values while the block runs.

    Blocks of several threads may overlap. Nothing of other libraries is silenced.
    """
    with ignoring_validation(), _silent():
        yield


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
