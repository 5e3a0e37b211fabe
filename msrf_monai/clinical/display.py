"""Frames as people see them: 8-bit RGB through the file's own window. For pictures only, never for a network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from msrf_monai.clinical.case import Case, ImageInfo, Window
from msrf_monai.clinical.reading.voi import apply_window

__all__ = ["Display"]

_MOST_SAMPLED_FRAMES = 9
_DARKEST, _BRIGHTEST = 0.5, 99.5
"""Percentiles that become black and white where the file says nothing."""


@dataclass(frozen=True)
class Display:
    """How the frames of one case are shown; the same for all frames, so that a volume does not flicker."""

    window: Window

    @classmethod
    def of_case(cls, case: Case) -> Display:
        """Choose how to show a case: its first window, else black to white, else what most of its values span.

        Args:
            case: up to nine of its frames are decoded when neither window nor white is known.

        Raises:
            RefusedInput: when a frame cannot be decoded.
        """
        frames = case.info.frames
        picked = np.unique(np.linspace(0, frames - 1, min(frames, _MOST_SAMPLED_FRAMES)).astype(int))
        return cls.of_frames(case.info, (case.frame(int(index)) for index in picked))

    @classmethod
    def of_frames(cls, info: ImageInfo, frames: Iterable[npt.NDArray[Any]]) -> Display:
        """Choose how to show frames of a case, as ``of_case`` does for all of them.

        Args:
            info: of the case.
            frames: at least one; they are looked at only when neither window nor white is known.
        """
        proposed = _proposed(info)
        if proposed is not None:
            return cls(proposed)
        if info.white is not None:
            return cls(_between(0.0, info.white))
        bounds = [_span(frame) for frame in frames]
        return cls(_between(min(low for low, _ in bounds), max(high for _, high in bounds)))

    def picture(self, frame: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Return a frame as it is shown.

        Args:
            frame: ``(H, W)`` or ``(H, W, 3)``, as ``Case.frame`` gives it.

        Returns:
            RGB ``(H, W, 3)``.
        """
        if frame.dtype == np.uint8 and self.window == _between(0.0, 255.0):
            shown = frame
        else:
            values = frame if np.isfinite(frame).all() else np.nan_to_num(frame)
            shown = np.rint(apply_window(values, self.window) * np.float32(255)).astype(np.uint8)
        return shown if shown.ndim == 3 else np.repeat(shown[..., None], 3, axis=2)


def _proposed(info: ImageInfo) -> Window | None:
    if not info.windows or info.samples == 3:
        return None
    window = info.windows[0]
    if info.photometric != "MONOCHROME1":
        return window
    # the values were turned so that larger is brighter, and the window was meant for those before
    return None if info.white is None else Window(info.white - window.centre, window.width, window.function)


def _between(low: float, high: float) -> Window:
    return Window((low + high) / 2, (high - low) or 1.0, "LINEAR_EXACT")


def _span(frame: npt.NDArray[Any]) -> tuple[float, float]:
    values = frame[np.isfinite(frame)]
    if not values.size:
        return 0.0, 0.0
    low, high = np.percentile(values, [_DARKEST, _BRIGHTEST])
    return float(low), float(high)
