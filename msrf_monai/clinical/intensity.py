"""How the values of a case become the scale that a bundle's chain expects: one rule a case, the same for each frame.

Colour is never windowed. Grey values follow the bundle's ``intensity`` (a top-level key of ``inference.json``):

=============================  =======================================================================================
``"auto"`` (the default)       CT, MR and PET deeper than 8 bits, and DICOM values of which no file says what is white:
                               the first window of the file, or else percentiles 0.5 to 99.5; all others as full_range
``"full_range"``               0..white becomes 0..255; without a white, values within 0..1 or 0..255 are taken as such
``{"window": [c, w]}``         c - w/2 to c + w/2 becomes 0..255, clipped
``{"percentiles": [a, b]}``    percentiles a to b of the case become 0..255, clipped
``"stored"``                   the values of the file, in its own unit; the bundle's chain scales them
=============================  =======================================================================================
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from msrf_monai.clinical.case import Case, Window
from msrf_monai.clinical.reading.voi import apply_window
from msrf_monai.errors import ConfigError, DataError
from msrf_monai.transforms.picture import Picture

__all__ = ["IntensityPolicy", "IntensityScaler"]

Rule = Literal["auto", "full_range", "stored", "window", "percentiles"]

_WINDOWED = ("CT", "MR", "PT")
_DICOM = ("dicom", "dicom-volume")
_SAMPLED_FRAMES = 16
_SAMPLED_VALUES = 4_000_000
_REMEMBERED_CASES = 64
_KNOWN = '"auto", "full_range", "stored", {"window": [centre, width]} or {"percentiles": [low, high]}'


@dataclass(frozen=True)
class IntensityPolicy:
    """A bundle's rule.

    Raises:
        ConfigError: when a window or percentiles make no sense.
    """

    rule: Rule = "auto"
    window: tuple[float, float] | None = None
    """Centre and width."""
    percentiles: tuple[float, float] = (0.5, 99.5)

    def __post_init__(self) -> None:
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ConfigError(f"percentiles rise within 0..100, got {low} and {high}")
        if (self.rule == "window") != (self.window is not None) or (self.window is not None and self.window[1] <= 0):
            raise ConfigError(f"a window is a centre and a width above 0, got {self.window}")

    @classmethod
    def from_config(cls, value: Any, default: Rule = "auto") -> IntensityPolicy:
        """Read the key ``intensity`` of an ``inference.json``.

        Args:
            value: what stands there; None when nothing does.
            default: the rule for None.

        Returns:
            The policy.

        Raises:
            ConfigError: when it is none of the known rules.
        """
        if value is None:
            return cls(default)
        if value in ("auto", "full_range", "stored"):
            return cls(value)
        if isinstance(value, Mapping) and len(value) == 1:
            (name, numbers) = next(iter(value.items()))
            pair = _pair(numbers)
            if pair is not None and name == "window":
                return cls("window", window=pair)
            if pair is not None and name == "percentiles":
                return cls("percentiles", percentiles=pair)
        raise ConfigError(f"intensity in inference.json is {value!r:.100}; expected {_KNOWN}")


def _pair(numbers: Any) -> tuple[float, float] | None:
    try:
        first, second = (float(part) for part in numbers)
    except (TypeError, ValueError):
        return None
    return first, second


@dataclass(frozen=True)
class _Scale:
    """What was decided for one case: one of window and limits, or a white, or nothing for the values as stored."""

    window: Window | None = None
    limits: tuple[float, float] | None = None
    white: float | None = None


class IntensityScaler:
    """Scale the frames of cases by one policy; a case's own window or percentiles are decided once.

    It may be used from several threads at once, and what it gives for a frame does not depend on what it did before.

    Args:
        policy: the bundle's.
        read: gives a frame of a case, where percentiles need more than one; ``Case.frame`` by default.
    """

    def __init__(self, policy: IntensityPolicy, read: Callable[[Case, int], npt.NDArray[Any]] = Case.frame) -> None:
        self.policy = policy
        self._read = read
        self._lock = threading.Lock()
        self._scales: OrderedDict[str, _Scale] = OrderedDict()

    def picture(self, case: Case, pixels: npt.NDArray[Any]) -> Picture:
        """Return one frame as a bundle's loader takes it.

        Args:
            case: where the frame is from.
            pixels: the frame, as ``case.frame`` gave it.

        Returns:
            ``rows`` ``(H, W, 1)`` or ``(H, W, 3)``: on the scale 0..white as stored, or float32 in [0, 255] with
            ``white`` 255; with ``"stored"`` the values of the file.

        Raises:
            DataError: when values are not finite, or nothing says what is white and the policy is "full_range".
            RefusedInput: as ``Case.frame``, when percentiles need other frames.
        """
        rows = pixels if pixels.ndim == 3 else pixels[..., None]
        if rows.dtype.kind == "f" and not np.isfinite(rows).all():
            raise DataError("the image holds NaN or infinite values; mend it or leave it out")
        scale = self._scale(case, pixels)
        if scale.window is not None:
            return Picture(apply_window(rows, scale.window) * np.float32(255), 255.0)
        if scale.limits is not None:
            low, high = scale.limits
            factor = np.float32(255 / max(high - low, 1e-12))
            scaled = np.clip((rows.astype(np.float32) - np.float32(low)) * factor, 0, 255)
            return Picture(scaled.astype(np.float32, copy=False), 255.0)
        return Picture(rows, scale.white)

    def _scale(self, case: Case, pixels: npt.NDArray[Any]) -> _Scale:
        info, policy = case.info, self.policy
        if policy.rule == "stored" or info.samples == 3:
            return _Scale(white=info.white)
        if policy.window is not None:
            return _Scale(window=Window(*policy.window, function="LINEAR_EXACT"))
        needs_window = info.kind in _DICOM and (
            (info.modality in _WINDOWED and info.dtype != "uint8") or info.white is None
        )
        if policy.rule == "auto" and needs_window and info.windows and info.photometric != "MONOCHROME1":
            # the windows of MONOCHROME1 are meant for values that have not been turned
            return _Scale(window=info.windows[0])
        if info.white is not None and not (policy.rule == "percentiles" or (policy.rule == "auto" and needs_window)):
            return _Scale(white=info.white)
        return self._measured(case, pixels, needs_limits=needs_window or policy.rule == "percentiles")

    def _measured(self, case: Case, pixels: npt.NDArray[Any], *, needs_limits: bool) -> _Scale:
        with self._lock:
            found = self._scales.get(case.digest)
            if found is None:
                values = self._sample(case, pixels)
                white = None if needs_limits and self.policy.rule != "full_range" else _plausible_white(values)
                if white is None and self.policy.rule == "full_range":
                    raise DataError(
                        f"the image holds values from {values.min():g} to {values.max():g}, and nothing says which one "
                        'is white; set "intensity" in inference.json to a window or to percentiles'
                    )
                low, high = (float(edge) for edge in np.percentile(values, self.policy.percentiles))
                found = _Scale(white=white) if white is not None else _Scale(limits=(low, high))
                self._scales[case.digest] = found
                while len(self._scales) > _REMEMBERED_CASES:
                    self._scales.popitem(last=False)
            return found

    def _sample(self, case: Case, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the values that stand for a case: of one frame all, of a volume those of evenly spaced slices."""
        frames = case.info.frames
        if frames == 1:
            values = pixels.reshape(-1)
        else:
            chosen = np.unique(np.linspace(0, frames - 1, min(frames, _SAMPLED_FRAMES)).round().astype(int))
            share = max(1, -(-pixels.size * len(chosen) // _SAMPLED_VALUES))
            values = np.concatenate([self._read(case, int(index)).reshape(-1)[::share] for index in chosen])
        values = values[:: max(1, -(-values.size // _SAMPLED_VALUES))]
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise DataError("the image holds NaN or infinite values; mend it or leave it out")
        return values


def _plausible_white(values: npt.NDArray[Any]) -> float | None:
    """Return the white of values that nothing is known about, as ``to_intensity`` does, or None."""
    smallest, largest = float(values.min()), float(values.max())
    if smallest < 0 or largest > 255:
        return None
    return 1.0 if largest <= 1 and values.dtype.kind == "f" else 255.0
