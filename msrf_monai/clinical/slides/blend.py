"""Put overlapping predictions together band by band: what no further window reaches leaves, the rest moves up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

from msrf_monai.errors import InputError

__all__ = ["RowBlender", "window_weights"]

Floats = npt.NDArray[np.float32]

_LEAST_WEIGHT = 1e-3
_PIECE = 512
"""Columns whose probabilities are worked out at once."""


def window_weights(
    tile: tuple[int, int], blend: Literal["gaussian", "constant"] = "gaussian", sigma_scale: float = 0.125
) -> Floats:
    """Return the weights of a window's pixels, as MONAI's sliding window has them.

    Args:
        tile: height and width.
        blend: ``gaussian`` trusts the middle more, ``constant`` every pixel alike.
        sigma_scale: standard deviation as a part of the size.

    Returns:
        ``(H, W)`` float32, none below 0.001.
    """
    if blend == "constant":
        return np.ones(tile, dtype=np.float32)
    rows, columns = (
        np.exp((np.arange(size, dtype=np.float32) - (size - 1) / 2) ** 2 / (-2 * (sigma_scale * size) ** 2))
        for size in tile
    )
    weights = np.outer(rows, columns).astype(np.float32)
    return np.maximum(weights, max(float(weights.min()), _LEAST_WEIGHT))


class RowBlender:
    """Weighted sums of one band of windows over the whole width of the slide.

    Memory is proportional to classes x height of a window x width of the slide, whatever the slide's height.

    Args:
        size: rows and columns of the slide on its grid.
        tile: rows and columns of a window.
        weights: of a window's pixels.
        halo: pixels at each side of a window that do not count, except at the slide's own border.
    """

    def __init__(self, size: tuple[int, int], tile: tuple[int, int], weights: Floats, halo: int = 0) -> None:
        self._size = size
        self._tile = tile
        self._weights = weights
        self._halo = halo
        self._sums: Floats | None = None
        self._counts = np.zeros((tile[0], size[1]), dtype=np.float32)
        self.top = 0
        self._touched = [size[1], 0]

    def add(self, top: int, left: int, prediction: Floats) -> None:
        """Add the prediction of one window.

        Args:
            top: its first row; not above the rows that have left, and within one window's height of them.
            left: its first column.
            prediction: ``(K, H, W)`` float32.

        Raises:
            InputError: when the window does not lie in the band.
        """
        rows, columns = self._inside(top, 0), self._inside(left, 1)
        if not self.top <= rows[0] < rows[1] <= self.top + self._tile[0]:
            raise InputError(
                f"rows {rows[0]} to {rows[1]} were added to the band of rows {self.top} to {self.top + self._tile[0]}"
            )
        if self._sums is None:
            self._sums = np.zeros((len(prediction), self._tile[0], self._size[1]), dtype=np.float32)
        here = np.s_[rows[0] - self.top : rows[1] - self.top, columns[0] : columns[1]]
        there = np.s_[rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left]
        weights = self._weights[there]
        self._counts[here] += weights
        for sums, plane in zip(self._sums, prediction, strict=True):
            sums[here] += weights * plane[there]
        self._touched = [min(self._touched[0], columns[0]), max(self._touched[1], columns[1])]

    def leave(self, top: int) -> Iterator[tuple[int, Floats, npt.NDArray[np.bool_]]]:
        """Take out the rows above ``top``, which no further window reaches; the rest moves up when all is taken.

        Args:
            top: first row of the next window, or the slide's height at the end.

        Yields:
            Piece by piece from left to right, where any window was added: the first column, the probabilities
            ``(K, rows, columns)``, and ``(rows, columns)`` which of them any window has covered.
        """
        leaving = max(0, top - self.top)
        self.top += leaving
        if self._sums is not None and self._touched[0] < self._touched[1]:
            for first in range(self._touched[0], self._touched[1], _PIECE):
                counts = self._counts[:leaving, first : min(first + _PIECE, self._touched[1])]
                covered = counts > 0
                sums = self._sums[:, :leaving, first : first + counts.shape[1]]
                yield first, np.divide(sums, np.where(covered, counts, 1), dtype=np.float32), covered
            self._move_up(leaving, self._sums)

    def _move_up(self, leaving: int, sums: Floats) -> None:
        first, last = self._touched
        for buffer in (self._counts, *sums):
            band = buffer[:, first:last]
            band[: len(band) - leaving] = band[leaving:]
            band[len(band) - leaving :] = 0
        if not self._counts[:, first:last].any():
            self._touched = [self._size[1], 0]

    def _inside(self, start: int, axis: int) -> tuple[int, int]:
        """Return the part of a window along one axis that counts and lies on the slide."""
        end = start + self._tile[axis]
        return (
            start + self._halo if start > 0 else 0,
            end - self._halo if end < self._size[axis] else self._size[axis],
        )
