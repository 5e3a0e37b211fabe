"""Where a viewer painted a segmentation, measured on its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates

from support.ohif import View

Value = TypeVar("Value", bound=np.generic)

__all__ = ["colour_error", "likeness", "moved", "overlap", "painted"]

_CHANGED = 24
"""Sum over the channels from which a pixel counts as painted."""
_FRAME = 4
"""Pixels at the viewport's edges that the frame around the active viewport may cover."""


def painted(view: View) -> npt.NDArray[np.bool_]:
    """Return which pixels of the viewport differ with the segmentation, ``(H, W)``."""
    difference = np.abs(view.painted.astype(int) - view.plain.astype(int)).sum(axis=-1)
    return np.asarray(difference > _CHANGED)


def overlap(view: View, mask: npt.NDArray[np.bool_]) -> float:
    """Return the intersection over union of what is painted and a mask of the image's pixels."""
    expected, found = _on_viewport(view, mask.astype(np.uint8), order=0) > 0, painted(view)
    return float((expected & found).sum() / max(1, (expected | found).sum()))


def likeness(view: View, picture: npt.NDArray[np.float64]) -> float:
    """Return the correlation of the viewport without the segmentation and the image's grey, ``(rows, columns)``."""
    inside = np.s_[_FRAME:-_FRAME, _FRAME:-_FRAME]
    expected, found = _on_viewport(view, picture, order=1)[inside], view.plain.mean(axis=-1)[inside]
    return float(np.corrcoef(expected.ravel(), found.ravel())[0, 1])


def colour_error(view: View, colour: Sequence[int]) -> float:
    """Return how far, in grey levels, the painted pixels are from any mixture of the image and a colour: 95 in 100."""
    here = painted(view)
    before, after = view.plain[here].astype(float), view.painted[here].astype(float)
    full = np.asarray(colour) - before
    share = np.clip((full * (after - before)).sum(axis=1) / (full**2).sum(axis=1), 0, 1)
    return float(np.percentile(np.abs(after - before - share[:, None] * full).max(axis=1), 95))


def moved(values: npt.NDArray[Value]) -> dict[str, npt.NDArray[Value]]:
    """Return a mask or picture as wrong programs place it: mirrored, turned, and one pixel to each side."""
    wrong = {"left-right": values[:, ::-1], "upside-down": values[::-1], "half a turn": values[::-1, ::-1]}
    for name, step, axis in (("right", 1, 1), ("left", -1, 1), ("down", 1, 0), ("up", -1, 0)):
        wrong[name] = np.roll(values, step, axis)
    return wrong


def _on_viewport(view: View, values: npt.NDArray[np.generic], order: int) -> npt.NDArray[np.float64]:
    """Return an image's values on the pixels of the viewport, the least value outside the image.

    Order 0 takes the nearest value, as viewers do for masks; 1 interpolates, as they do for pictures.
    """
    rows, columns = values.shape
    first, end_of_row, end_of_column = (np.asarray(corner) for corner in view.corners)
    steps = np.stack([(end_of_row - first) / (columns - 1), (end_of_column - first) / (rows - 1)], axis=1)
    y, x = np.mgrid[: view.plain.shape[0], : view.plain.shape[1]] + 0.5
    place = np.linalg.solve(steps, np.stack([x.ravel() - first[0], y.ravel() - first[1]]))
    found = map_coordinates(
        values.astype(float), place[::-1], order=order, mode="grid-constant", cval=float(values.min())
    )
    return np.asarray(found.reshape(y.shape))
