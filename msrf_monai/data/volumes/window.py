"""Which values of a volume become black and white."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from msrf_monai.errors import InputError

__all__ = ["BIT_DEPTHS", "Window"]

BIT_DEPTHS = (8, 16)


@dataclass(frozen=True)
class Window:
    """A range of values: fixed by level and width, or between two percentiles of each volume.

    Attributes:
        level: middle of the range in the volume's unit; None for percentiles.
        width: its width, above 0; None for percentiles.
        percentiles: lower and upper percentile of all values of a volume, where level and width are None.
        unit: unit of the values, such as "HU"; empty where they have none.
    """

    level: float | None = None
    width: float | None = None
    percentiles: tuple[float, float] = (0.5, 99.5)
    unit: str = ""

    @staticmethod
    def parse(text: str, unit: str = "") -> Window:
        """Return the window that "LEVEL,WIDTH" stands for.

        Raises:
            InputError: when the text is not two numbers, or the width is not above 0.

        Example:
            >>> Window.parse("40,80", "HU").text
            '0 to 80 HU (level 40, width 80)'
        """
        try:
            level, width = (float(part) for part in text.split(","))
        except ValueError:
            level, width = 0.0, 0.0
        if not (np.isfinite([level, width]).all() and width > 0):
            raise InputError(f"window is {text!r}; expected LEVEL,WIDTH with a width above 0, such as 40,80")
        return Window(level, width, unit=unit)

    @property
    def text(self) -> str:
        """The window in words."""
        if self.level is None or self.width is None:
            low, high = self.percentiles
            return f"percentile {low:g} to percentile {high:g} of each volume"
        low, high = self.level - self.width / 2, self.level + self.width / 2
        unit = f" {self.unit}" if self.unit else ""
        return f"{low:g} to {high:g}{unit} (level {self.level:g}, width {self.width:g})"

    def limits(self, values: npt.NDArray[Any]) -> tuple[float, float]:
        """Return the values that become black and white.

        Args:
            values: all values of a volume.

        Returns:
            Both in the volume's unit; equal where the percentiles are.
        """
        if self.level is None or self.width is None:
            low, high = np.percentile(values, self.percentiles)
            return float(low), float(high)
        return self.level - self.width / 2, self.level + self.width / 2
