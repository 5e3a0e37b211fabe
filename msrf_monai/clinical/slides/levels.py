"""What is known of a slide before a tile is decoded: its levels, their sizes and their resolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from msrf_monai.clinical.case import SopReference

__all__ = ["LevelPixels", "SlideInfo", "SlideKind", "SlideLevel", "plausible_mpp"]

SlideKind = Literal["dicom-wsi", "tiff", "openslide"]
"""What the slide is; told by content."""

Tile = npt.NDArray[np.uint8]

_LEAST_MPP, _MOST_MPP = 0.01, 100.0


@dataclass(frozen=True)
class SlideLevel:
    """One resolution of a slide."""

    rows: int
    """Height in pixels."""
    columns: int
    """Width in pixels."""
    tile_rows: int
    """Height of a stored tile; those at the lower edge reach beyond the level."""
    tile_columns: int
    """Width of a stored tile."""
    mpp: tuple[float, float] | None = None
    """Micrometres per pixel, from row to row and from column to column; None when the file does not tell."""
    sop: SopReference | None = None
    """The DICOM object that holds the level."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of stored tiles."""
        return -(-self.rows // self.tile_rows), -(-self.columns // self.tile_columns)


@dataclass(frozen=True)
class SlideInfo:
    """What is known of a slide. Nothing here names a patient."""

    kind: SlideKind
    levels: tuple[SlideLevel, ...]
    """From the finest to the coarsest."""
    mpp: tuple[float, float] | None = None
    """Micrometres per pixel of the finest level."""
    photometric: str = ""
    """As stored, such as ``"YBR_FULL_422"`` or ``"RGB"``."""
    is_lossy: bool = False
    """Slides in makers' formats count as lossy: OpenSlide does not tell, and nearly all are."""
    notes: tuple[str, ...] = ()
    """Stable words for what was unusual and tolerated, such as ``"grey_to_rgb"``."""
    maker: str = ""
    """Whose format it is, as OpenSlide calls it, such as ``"hamamatsu"``; empty for the other kinds."""


class LevelPixels(Protocol):
    """Where the tiles of one level come from; each kind of slide has one."""

    def tile(self, row: int, column: int) -> Tile | None:
        """Decode one stored tile.

        Args:
            row: its row among the tiles.
            column: its column.

        Returns:
            RGB ``(tile_rows, tile_columns, 3)``; None where the file has no tile, which means empty glass.
        """
        ...  # pragma: no cover


def plausible_mpp(rows: float, columns: float) -> tuple[float, float] | None:
    """Return a resolution in micrometres per pixel, or None when no microscope has it: such values are defaults."""
    if all(np.isfinite(value) and _LEAST_MPP <= value <= _MOST_MPP for value in (rows, columns)):
        return float(rows), float(columns)
    return None
