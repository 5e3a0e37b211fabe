"""A cheap and careful test for tissue, on a small version of the slide."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from msrf_monai.clinical.slides.grid import SlideGrid
from msrf_monai.clinical.slides.levels import Tile
from msrf_monai.clinical.slides.reading import Slide
from msrf_monai.clinical.slides.resample import read_grid

__all__ = ["Tissue", "find_tissue", "thumbnail", "tissue_mask"]

_MOST_READ = 1 << 24
_LONGEST = 2048
_CHROMA, _BRIGHTNESS = (4, 20), (215, 235)
"""Between what the limits of glass lie, whatever the slide shows."""
_MARGIN = 0.25


@dataclass(frozen=True)
class Tissue:
    """Where a slide shows more than glass, with a margin of one pixel of the thumbnail all round."""

    mask: npt.NDArray[np.bool_] = field(repr=False)
    """``(h, w)``; a pixel stands for the same part of the slide's height and width."""
    _sums: npt.NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        sums = np.pad(self.mask.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        object.__setattr__(self, "_sums", sums)

    def is_in(self, top: float, left: float, bottom: float, right: float) -> bool:
        """Tell whether a rectangle shows tissue.

        Args:
            top: its upper edge, as a part of the slide's height.
            left: its left edge, as a part of the slide's width.
            bottom: its lower edge.
            right: its right edge.
        """
        rows, columns = self.mask.shape
        y0, y1 = (min(max(round_(edge * rows), 0), rows) for edge, round_ in ((top, math.floor), (bottom, math.ceil)))
        x0, x1 = (
            min(max(round_(edge * columns), 0), columns) for edge, round_ in ((left, math.floor), (right, math.ceil))
        )
        found = self._sums[y1, x1] - self._sums[y0, x1] - self._sums[y1, x0] + self._sums[y0, x0]
        return bool(found > 0)


def thumbnail(slide: Slide) -> Tile | None:
    """Return a small version of the slide, at most 2048 pixels long; None when no level is small enough to read."""
    sizes = [level.rows * level.columns for level in slide.info.levels]
    readable = [number for number, size in enumerate(sizes) if size <= _MOST_READ]
    if not readable:
        return None
    level = slide.info.levels[readable[0]]
    factor = max(1.0, max(level.rows, level.columns) / _LONGEST)
    rows, columns = max(1, int(level.rows / factor)), max(1, int(level.columns / factor))
    # the whole level is covered, so that parts of its height are parts of the thumbnail's
    grid = SlideGrid(readable[0], rows, columns, (level.rows / rows, level.columns / columns))
    return read_grid(slide, grid, 0, 0, rows, columns)


def tissue_mask(small: Tile) -> npt.NDArray[np.bool_]:
    """Tell tissue from glass on a small version of a slide.

    Glass is bright and has no colour. Otsu's method divides chroma (largest less smallest channel) and mean brightness
    into two kinds each; the limit lies a quarter of the way from the mean of the glassier kind to that of the other. It
    is kept within 4 to 20 for chroma and 215 to 235 for brightness, since Otsu's method cuts a slide full of tissue, or
    of glass, into two halves. All that is not glass in both is tissue, and so is the pixel beside it: a mistake costs
    time, not a finding.

    Args:
        small: RGB ``(h, w, 3)`` uint8.

    Returns:
        ``(h, w)``, True for tissue.
    """
    red, green, blue = small[..., 0], small[..., 1], small[..., 2]
    chroma = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    dullness = (255 - (red.astype(np.uint16) + green + blue) // 3).astype(np.uint8)
    tissue = (chroma > _limit(chroma, *_CHROMA)) | (
        dullness > _limit(dullness, *(255 - end for end in _BRIGHTNESS[::-1]))
    )
    return cv2.dilate(tissue.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)


def _limit(values: npt.NDArray[np.uint8], least: float, most: float) -> float:
    is_low = values <= cv2.threshold(values, 0, 255, cv2.THRESH_OTSU)[0]
    if is_low.all() or not is_low.any():
        return most
    low, high = float(values[is_low].mean()), float(values[~is_low].mean())
    return min(max(low + _MARGIN * (high - low), least), most)


def find_tissue(slide: Slide) -> Tissue | None:
    """Find where a slide shows tissue.

    Args:
        slide: the slide.

    Returns:
        Where it does; None when no level is small enough to look at (16 million pixels), so that nothing is known.

    Raises:
        RefusedInput: when a tile of the small level is damaged.
    """
    small = thumbnail(slide)
    return None if small is None else Tissue(tissue_mask(small))
