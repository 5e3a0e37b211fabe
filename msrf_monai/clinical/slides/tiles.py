"""Where the network's windows lie on a slide, and which of them show nothing but glass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from msrf_monai.clinical.slides.background import Tissue, find_tissue
from msrf_monai.clinical.slides.grid import SlideGrid, choose_grid
from msrf_monai.clinical.slides.reading import Slide
from msrf_monai.errors import ConfigError

__all__ = ["TileOptions", "TilePlan", "plan_tiles", "window_starts"]


@dataclass(frozen=True)
class TileOptions:
    """How a slide is cut into windows and put together again; the defaults are MONAI's sliding window's.

    Raises:
        ConfigError: when a number is out of range.
    """

    tile: tuple[int, int] = (512, 512)
    """Height and width of the network's input."""
    mpp: float | None = None
    """Micrometres per pixel that the network was trained at; None with ``level`` for that level."""
    level: int | None = None
    """The level to read; None with ``mpp`` None for the finest."""
    mpp_tolerance: float = 0.05
    """How far a level's resolution may be from ``mpp``, as a part of it, and still be taken as it is."""
    overlap: float = 0.25
    """Part of a window (less its halo) that its neighbour covers too."""
    halo: int = 0
    """Pixels at each side of a window whose prediction is not used, except at the slide's own border."""
    blend: Literal["gaussian", "constant"] = "gaussian"
    """How overlapping predictions are weighted."""
    sigma_scale: float = 0.125
    """Standard deviation of the Gaussian weights, as a part of the window."""
    batch: int = 4
    """Windows that the network gets at once."""
    skip_background: bool = True
    """Leave out windows without tissue; their pixels are background. See ``find_tissue``."""
    threshold: float | None = None
    """Probability from which a pixel is foreground; None for 0.5 with one class, and for the most probable of the
    background and the classes with several."""

    def __post_init__(self) -> None:
        if len(self.tile) != 2 or min(self.tile) < 1 or self.batch < 1:
            raise ConfigError(f"tile sizes and batch are at least 1, got {self.tile} and {self.batch}")
        if not 0 <= self.overlap < 1 or self.sigma_scale <= 0:
            raise ConfigError(
                f"overlap is within [0, 1) and sigma_scale above 0, got {self.overlap}, {self.sigma_scale}"
            )
        if self.halo < 0 or 2 * self.halo >= min(self.tile):
            raise ConfigError(f"the halo leaves some of the window {self.tile}, got {self.halo} pixels at each side")
        if self.blend not in ("gaussian", "constant"):
            raise ConfigError(f"blend is gaussian or constant, got {self.blend!r}")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ConfigError(f"threshold must lie between 0 and 1, got {self.threshold}")


@dataclass(frozen=True)
class TilePlan:
    """Every window of a slide, row by row."""

    grid: SlideGrid
    tile: tuple[int, int]
    tops: tuple[int, ...]
    """First row of each row of windows; below 0 when the slide is smaller than a window."""
    lefts: tuple[int, ...]
    kept: npt.NDArray[np.bool_] = field(compare=False)
    """``(len(tops), len(lefts))``: the windows that are predicted."""
    notes: tuple[str, ...] = ()
    """``"no_thumbnail"`` when no level is small enough to look for tissue, so that nothing is skipped."""

    @property
    def skipped(self) -> int:
        """Number of windows that are left out."""
        return int(self.kept.size - np.count_nonzero(self.kept))

    def rows(self) -> Iterator[tuple[int, list[int]]]:
        """Yield the top of each row of windows and the left edges of those that are predicted."""
        for top, kept in zip(self.tops, self.kept, strict=True):
            yield top, [left for left, keep in zip(self.lefts, kept, strict=True) if keep]


def window_starts(length: int, tile: int, *, overlap: float = 0.0, halo: int = 0) -> tuple[int, ...]:
    """Return where windows begin along one axis: as MONAI's sliding window places them when there is no halo.

    Args:
        length: pixels along the axis.
        tile: pixels of a window.
        overlap: part of a window, less its halo, that the next one covers too.
        halo: pixels at each side of a window that are not used.

    Returns:
        The starts; the last window ends with the axis. One that is longer than the axis is centred on it.
    """
    if length <= tile:
        return (-((tile - length) // 2),)
    step = max(1, int((tile - 2 * halo) * (1 - overlap)))
    starts = list(range(0, length - tile, step))
    return (*starts, length - tile)


def plan_tiles(slide: Slide, options: TileOptions) -> TilePlan:
    """Plan the windows of a slide.

    Args:
        slide: the slide.
        options: size, resolution, overlap, and whether glass is skipped.

    Returns:
        The plan.

    Raises:
        ConfigError: when ``mpp`` and ``level`` are both given.
        InputError: when the slide has no such resolution.
        RefusedInput: when a tile of the level that tissue is looked for in is damaged.
    """
    grid = choose_grid(slide.info, mpp=options.mpp, level=options.level, tolerance=options.mpp_tolerance)
    tops, lefts = (
        window_starts(length, tile, overlap=options.overlap, halo=options.halo)
        for length, tile in zip((grid.rows, grid.columns), options.tile, strict=True)
    )
    tissue = find_tissue(slide) if options.skip_background else None
    if tissue is None:
        notes = ("no_thumbnail",) if options.skip_background else ()
        return TilePlan(grid, options.tile, tops, lefts, np.ones((len(tops), len(lefts)), dtype=bool), notes)
    kept = np.array([[_has_tissue(tissue, grid, options.tile, top, left) for left in lefts] for top in tops])
    return TilePlan(grid, options.tile, tops, lefts, kept)


def _has_tissue(tissue: Tissue, grid: SlideGrid, tile: tuple[int, int], top: int, left: int) -> bool:
    return tissue.is_in(
        top / grid.rows, left / grid.columns, (top + tile[0]) / grid.rows, (left + tile[1]) / grid.columns
    )
