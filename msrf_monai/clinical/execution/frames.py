"""The frames of one input: prepared by readers, inferred by the caller, in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import Executor
from typing import Any

from msrf_monai.clinical.case import Case
from msrf_monai.clinical.execution.overlap import ahead_of
from msrf_monai.clinical.execution.roles import SupportsPrediction

__all__ = ["CaseFrames"]


class CaseFrames:
    """The frames of one case on their way through the network, a few in memory at a time.

    Args:
        predictor: prepares and infers.
        case: the case.
        first: its first frame, prepared.
        readers: prepare the others.
        steps: frames that may be prepared ahead.
    """

    def __init__(
        self, predictor: SupportsPrediction, case: Case, first: dict[Any, Any], readers: Executor, steps: int
    ) -> None:
        self._predictor = predictor
        self._case = case
        self._first: dict[Any, Any] | None = first
        self._readers = readers
        self._steps = steps
        # the frames of one file share what was parsed of it, which two threads must not use at once
        self._one_at_a_time = threading.Lock()
        self.waited = 0.0
        """Seconds in which the network had no frame to work on."""
        self.reading_failed = False

    def inferred(self) -> Iterator[dict[Any, Any]]:
        """Yield what the network gives for each frame, in order."""
        first, self._first = self._first, None
        if first is None:
            raise RuntimeError("the frames of a case can be taken only once")  # pragma: no cover
        others = self._prepared()
        try:
            item: dict[Any, Any] | None = first
            del first
            while item is not None:
                yield self._predictor.infer(item)
                item = self._next(others)
        finally:
            others.close()

    def _prepared(self) -> Generator[dict[Any, Any], None, None]:
        return ahead_of(self._readers, self._prepare, range(1, self._case.info.frames), self._steps)

    def _prepare(self, index: int) -> dict[Any, Any]:
        if self._case.info.kind == "dicom-volume":
            return self._predictor.prepare(self._case, index)
        with self._one_at_a_time:
            return self._predictor.prepare(self._case, index)

    def _next(self, others: Iterator[dict[Any, Any]]) -> dict[Any, Any] | None:
        started = time.perf_counter()
        try:
            return next(others, None)
        except Exception:
            self.reading_failed = True
            raise
        finally:
            self.waited += time.perf_counter() - started
