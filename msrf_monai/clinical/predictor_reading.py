"""Frames for several threads at once, of files whose parsed content only one of them may use at a time."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import numpy.typing as npt

from msrf_monai.clinical.case import Case

__all__ = ["FrameGate"]


class _Turn:
    """A lock that is forgotten when nobody holds it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


class FrameGate:
    """Decode frames; those of one file one after the other, those of different files side by side.

    The slices of a DICOM volume are files of their own.
    """

    def __init__(self) -> None:
        self._turns: weakref.WeakValueDictionary[str, _Turn] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()

    def frame(self, case: Case, index: int) -> npt.NDArray[Any]:
        """Return a frame; see ``Case.frame``."""
        if case.info.kind == "dicom-volume" or case.info.frames == 1:
            return case.frame(index)
        with self._lock:
            turn = self._turns.setdefault(case.digest, _Turn())
        with turn.lock:
            return case.frame(index)
