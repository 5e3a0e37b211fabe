"""What takes a mask that comes band by band from the top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from msrf_monai.clinical.slides.grid import SlideGrid
from msrf_monai.clinical.writing import Written

__all__ = ["MaskSink", "SinkGroup"]


class MaskSink(Protocol):
    """A result that is written while the slide is predicted: ``begin``, ``write`` …, then ``finish`` or ``abort``."""

    def begin(self, grid: SlideGrid) -> None:
        """Prepare for a mask on ``grid``."""
        ...  # pragma: no cover

    def write(self, rows: npt.NDArray[np.uint8]) -> None:
        """Take the next rows of class numbers, ``(h, grid.columns)`` uint8."""
        ...  # pragma: no cover

    def finish(self) -> tuple[Written, ...]:
        """Put the result in its place, verified; until then nothing has its name."""
        ...  # pragma: no cover

    def abort(self) -> None:
        """Leave nothing behind."""
        ...  # pragma: no cover


class SinkGroup:
    """Several results of one slide.

    Args:
        sinks: each gets every row.
    """

    def __init__(self, sinks: Sequence[MaskSink]) -> None:
        self._sinks = tuple(sinks)

    def begin(self, grid: SlideGrid) -> None:
        """Prepare every result."""
        for sink in self._sinks:
            sink.begin(grid)

    def write(self, rows: npt.NDArray[np.uint8]) -> None:
        """Give the rows to every result."""
        for sink in self._sinks:
            sink.write(rows)

    def finish(self) -> tuple[Written, ...]:
        """Finish every result, in order."""
        return tuple(written for sink in self._sinks for written in sink.finish())

    def abort(self) -> None:
        """Leave nothing of what is not finished behind."""
        for sink in self._sinks:
            sink.abort()
