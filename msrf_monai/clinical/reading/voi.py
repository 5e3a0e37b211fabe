"""Windows: how grey values become what is shown, or what a network was trained on. The bundle says which, never we."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from msrf_monai.clinical.case import Window
from msrf_monai.errors import InputError

__all__ = ["apply_window", "proposed_windows"]

_Function = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]


def apply_window(values: npt.NDArray[Any], window: Window) -> npt.NDArray[np.float32]:
    """Map values through a window (PS3.3 C.11.2.1.2).

    Args:
        values: rescaled values, such as Hounsfield units, of any shape.
        window: centre, width and function; LINEAR has DICOM's half-pixel shifts, LINEAR_EXACT has none.

    Returns:
        float32 in [0, 1], of the same shape.

    Raises:
        InputError: when the width is too small for the function (LINEAR 1, others above 0) or the function unknown.
    """
    smallest = 1 if window.function == "LINEAR" else 0
    if window.function not in get_args(_Function) or window.width < smallest or (window.width == 0):
        raise InputError(
            f"a window needs one of the functions {', '.join(get_args(_Function))} and a width of at least 1 "
            f"(LINEAR) or above 0; got {window.function!r} and {window.width!r}"
        )
    data = values.astype(np.float64)
    if window.function == "SIGMOID":
        with np.errstate(over="ignore"):  # far below the window the exponential is infinite and the result 0
            return (1 / (1 + np.exp(-4 * (data - window.centre) / window.width))).astype(np.float32)
    shift = 0.5 if window.function == "LINEAR" else 0.0
    centre, width = window.centre - shift, window.width - 2 * shift
    if width == 0:
        return (data > centre).astype(np.float32)
    return np.clip((data - centre) / width + 0.5, 0, 1).astype(np.float32)


def proposed_windows(dataset: Any) -> tuple[Window, ...]:
    """Return the windows that a DICOM file, or one of its functional groups, proposes.

    Args:
        dataset: a data set, or an item of FrameVOILUTSequence.

    Returns:
        The windows that make sense; broken ones are left out.
    """
    centres, widths = _numbers(dataset.get("WindowCenter")), _numbers(dataset.get("WindowWidth"))
    given = str(dataset.get("VOILUTFunction") or "LINEAR")
    function: _Function = next((name for name in get_args(_Function) if name == given), "LINEAR")
    smallest = 1 if function == "LINEAR" else np.nextafter(0, 1)
    return tuple(
        Window(centre, width, function) for centre, width in zip(centres, widths, strict=False) if width >= smallest
    )


def _numbers(value: Any) -> list[float]:
    if value in (None, ""):
        return []
    try:
        numbers = [float(value)] if isinstance(value, (str, float, int)) else [float(part) for part in value]
    except (TypeError, ValueError):
        return []
    return [number for number in numbers if np.isfinite(number)]
