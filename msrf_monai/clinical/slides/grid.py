"""The pixels on which a slide is predicted: a level of it, or a coarser resolution made of one."""

from __future__ import annotations

from dataclasses import dataclass

from msrf_monai.clinical.slides.levels import SlideInfo
from msrf_monai.errors import ConfigError, InputError

__all__ = ["SlideGrid", "choose_grid"]


@dataclass(frozen=True)
class SlideGrid:
    """Rows and columns of the prediction and of the mask, and how they lie on the slide."""

    level: int
    """The level that is read."""
    rows: int
    columns: int
    factors: tuple[float, float] = (1.0, 1.0)
    """Height and width of a pixel in pixels of the level; 1 when the level is taken as it is."""
    mpp: tuple[float, float] | None = None
    """Micrometres per pixel, from row to row and from column to column; None when the slide does not tell."""

    @property
    def pixel_mm2(self) -> float | None:
        """Area of a pixel in mm²; None when the slide does not tell its resolution."""
        return self.mpp[0] * self.mpp[1] * 1e-6 if self.mpp else None


def choose_grid(
    info: SlideInfo, *, mpp: float | None = None, level: int | None = None, tolerance: float = 0.05
) -> SlideGrid:
    """Choose where a network is given the slide.

    A level whose resolution is within ``tolerance`` of the wanted one is taken as it is. Otherwise the coarsest level
    that is finer is averaged. Nothing is ever enlarged: a slide that is coarser than wanted is an error.

    Args:
        info: the slide.
        mpp: micrometres per pixel that the network was trained at.
        level: or the number of a level, 0 being the finest; with neither, level 0.
        tolerance: how far a level may be from ``mpp``, as a part of it.

    Returns:
        The grid.

    Raises:
        ConfigError: when both ``mpp`` and ``level`` are given, or a number is out of range.
        InputError: when the slide has no such level, no known resolution, or a coarser one.
    """
    if mpp is not None and level is not None:
        raise ConfigError(f"give either mpp or level, got mpp {mpp} and level {level}")
    if mpp is None:
        number = level or 0
        if not 0 <= number < len(info.levels):
            raise InputError(f"level {number} was asked for, and the slide has the levels 0 to {len(info.levels) - 1}")
        known = info.levels[number]
        return SlideGrid(number, known.rows, known.columns, mpp=known.mpp)
    if not mpp > 0 or not 0 <= tolerance < 1:
        raise ConfigError(f"mpp is above 0 and tolerance within [0, 1), got {mpp} and {tolerance}")
    return _at_resolution(info, mpp, tolerance)


def _at_resolution(info: SlideInfo, wanted: float, tolerance: float) -> SlideGrid:
    if any(level.mpp is None for level in info.levels):
        raise InputError(
            f"the slide does not tell its resolution, so {wanted} micrometres per pixel cannot be found; give a level"
        )
    known = [(number, level, level.mpp) for number, level in enumerate(info.levels) if level.mpp]
    for number, level, mpp in known:
        if all(abs(value / wanted - 1) <= tolerance for value in mpp):
            return SlideGrid(number, level.rows, level.columns, mpp=mpp)
    finer = [(number, level, mpp) for number, level, mpp in known if max(mpp) < wanted]
    if not finer:
        raise InputError(
            f"the slide has {max(known[0][2]):g} micrometres per pixel, and {wanted:g} were asked for; it is not "
            "enlarged: scan it finer, or give a level"
        )
    number, level, mpp = finer[-1]
    factors = (wanted / mpp[0], wanted / mpp[1])
    rows, columns = max(1, int(level.rows / factors[0])), max(1, int(level.columns / factors[1]))
    return SlideGrid(number, rows, columns, factors, (wanted, wanted))
