"""Read a slide at a resolution that none of its levels has, so that a pixel never depends on which tile it is read by.

A coarser pixel is the mean of the area that it covers. The edges of those areas are rounded to 1/256 of a stored pixel
and all sums are whole numbers, so two overlapping tiles agree to the last bit where they overlap.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from msrf_monai.clinical.slides.grid import SlideGrid
from msrf_monai.clinical.slides.levels import Tile
from msrf_monai.clinical.slides.reading import GLASS, Slide

__all__ = ["read_grid"]

_PARTS = 256
_MOST_STORED = 1 << 20
"""Stored pixels that are averaged at once; each needs about 60 bytes meanwhile."""

Whole = npt.NDArray[np.int64]


def read_grid(slide: Slide, grid: SlideGrid, top: int, left: int, rows: int, columns: int) -> Tile:
    """Read a rectangle of a slide on a grid.

    Args:
        slide: the slide.
        grid: its level and resolution.
        top: first row on the grid; what lies outside of it is white.
        left: first column.
        rows: height.
        columns: width.

    Returns:
        RGB ``(rows, columns, 3)`` uint8.

    Raises:
        InputError: when the rectangle is empty.
        RefusedInput: when a tile is damaged.
    """
    if grid.factors == (1.0, 1.0):
        return slide.read_region(grid.level, top, left, rows, columns)
    region = np.full((rows, columns, 3), GLASS, dtype=np.uint8)
    y0, y1 = max(top, 0), min(top + rows, grid.rows)
    x0, x1 = max(left, 0), min(left + columns, grid.columns)
    if y0 >= y1 or x0 >= x1:
        return region
    step = max(1, int(_MOST_STORED / (grid.factors[0] * grid.factors[1] * (x1 - x0))))
    for y in range(y0, y1, step):
        end = min(y + step, y1)
        region[y - top : end - top, x0 - left : x1 - left] = _averaged(slide, grid, (y, end), (x0, x1))
    return region


def _averaged(slide: Slide, grid: SlideGrid, rows: tuple[int, int], columns: tuple[int, int]) -> Tile:
    edges = [_edges(*span, factor) for span, factor in zip((rows, columns), grid.factors, strict=True)]
    starts = [int(one[0] // _PARTS) for one in edges]
    sizes = [int(-(-one[-1] // _PARTS)) - start for one, start in zip(edges, starts, strict=True)]
    stored = slide.read_region(grid.level, starts[0], starts[1], sizes[0], sizes[1])
    inside = [one - start * _PARTS for one, start in zip(edges, starts, strict=True)]
    sums = _integrated(_integrated(stored, inside[0]).swapaxes(0, 1), inside[1]).swapaxes(0, 1)
    area = np.diff(inside[0])[:, None, None] * np.diff(inside[1])[None, :, None]
    return np.asarray((sums + area // 2) // area).astype(np.uint8)


def _edges(start: int, end: int, factor: float) -> Whole:
    return np.rint(np.arange(start, end + 1, dtype=np.float64) * (factor * _PARTS)).astype(np.int64)


def _integrated(values: npt.NDArray[Any], edges: Whole) -> npt.NDArray[np.int64]:
    """Return the sums between neighbouring edges along the first axis, in parts of a pixel."""
    below = np.zeros((len(values) + 1, *values.shape[1:]), dtype=np.int64)
    np.cumsum(values, axis=0, dtype=np.int64, out=below[1:])
    whole, part = edges // _PARTS, edges % _PARTS
    upto = below[whole] * _PARTS
    has_part = part > 0
    upto[has_part] += values[whole[has_part]].astype(np.int64) * part[has_part][:, None, None]
    return np.diff(upto, axis=0)
