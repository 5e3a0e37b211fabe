"""What is said of an input that could not be done: a stable code, and a sentence that names no patient."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import PurePath
from typing import Literal

from msrf_monai.clinical.crashes import CRASHED
from msrf_monai.clinical.reading.refusal import RefusalCode, RefusedInput
from msrf_monai.errors import MissingExtraError, MsrfError

__all__ = ["Stage", "describe", "is_fatal", "is_final"]

Stage = Literal["read", "predict", "write"]

_FATAL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.EIO: "the disk fails",
}
_MEMORY = ("MemoryError", "OutOfMemoryError")
_DOING = {"read": "reading it", "predict": "the network or its transforms", "write": "writing its results"}
_PASSING = {
    RefusalCode.MISSING,
    RefusalCode.PERMISSION_DENIED,
    RefusalCode.IO_ERROR,
    RefusalCode.CHANGED,
    RefusalCode.DECODER_MISSING,
}
"""Refusals that say nothing about the file itself: a resumed run tries again."""


def describe(error: Exception, stage: Stage, names: Iterable[str] = ()) -> tuple[str, str]:
    """Return the code and the sentence for an error that ends one input.

    Args:
        error: what was raised.
        stage: where.
        names: paths of the input's files.

    Returns:
        A refusal speaks for itself, and so does an error of this package unless it names a file. Of all other errors
        only the kind is named, since messages may quote the input.
    """
    if isinstance(error, RefusedInput):
        return error.code.value, error.sentence
    if isinstance(error, MissingExtraError):
        return "missing_extra", "a library for this kind of input or output is not installed; see msrf-monai doctor"
    kind = type(error).__name__
    if kind in _MEMORY:
        return "out_of_memory", f"there was not enough memory for {_DOING[stage]}; use a smaller device load or image"
    if isinstance(error, MsrfError) and _names_nothing(str(error), names):
        return f"{stage}_failed", str(error)
    return f"{stage}_failed", f"{_DOING[stage]} failed ({kind}); run it alone with --debug to see where"


def is_final(code: str) -> bool:
    """Return whether an input that failed with a code will fail again for as long as it does not change."""
    return code == CRASHED[0] or code in {refusal.value for refusal in RefusalCode if refusal not in _PASSING}


def is_fatal(error: BaseException) -> str:
    """Return why an error of writing ends the whole run, or nothing when it concerns one input only.

    Args:
        error: what was raised; what led to it counts too. A refusal is about the input's own disk.
    """
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, RefusedInput):
        if isinstance(seen, OSError) and seen.errno in _FATAL:
            return _FATAL[seen.errno]
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return ""


def _names_nothing(message: str, names: Iterable[str]) -> bool:
    """Return whether a message holds no path and no name of a file, with or without its ending."""
    return "/" not in message and not any(
        part in message for name in names for part in (PurePath(name).name, PurePath(name).stem) if part
    )
