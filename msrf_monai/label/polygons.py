"""A mask as polygons, for viewers that take outlines and no masks: QuPath and the Digital Slide Archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from msrf_monai.clinical.writing.contours import outlines

__all__ = ["annotation_of", "polygons"]

Points = npt.NDArray[np.float64]


def polygons(mask: npt.NDArray[np.bool_], least_area: float = 0.0) -> list[Points]:
    """Return simple polygons that fill exactly the pixels of a mask by the even-odd rule.

    A hole is joined to what surrounds it by a cut of no width, since the formats know of no holes: as polygons of
    their own, which MONAI Label's own ``FindContoursd`` makes of them, they would be filled.

    Args:
        mask: ``(H, W)``, True inside.
        least_area: smaller polygons, in pixels, are left out.

    Returns:
        One ``(N, 2)`` array of x and y for each connected part, the first point not repeated. The upper left corner of
        the upper left pixel is (0, 0).
    """
    rings = [ring[:-1].astype(np.float64) for ring in outlines(mask)]
    outer = [ring for ring in rings if _area(ring) > 0]
    holes = sorted((ring for ring in rings if _area(ring) < 0), key=lambda ring: float(ring[:, 0].min()))
    for hole in holes:
        _join(outer, hole)
    return [ring for ring in outer if _area(ring) >= least_area]


def annotation_of(
    mask: npt.NDArray[Any], labels: Mapping[str, int], colours: Mapping[str, Sequence[int]], least_area: float = 0.0
) -> dict[str, Any]:
    """Return what MONAI Label's writers of ASAP's XML and of DSA's JSON take for one image.

    Args:
        mask: ``(H, W)`` class numbers.
        labels: class numbers by name.
        colours: RGB 0..255 by name.
        least_area: smaller polygons, in pixels, are left out.
    """
    elements = []
    for name, number in labels.items():
        found = [ring.tolist() for ring in polygons(np.asarray(mask == number), least_area)]
        if found:
            elements.append({"label": name, "contours": found})
    return {"annotation": {"location": [0, 0], "size": [0, 0], "labels": dict(colours), "elements": elements}}


def _area(ring: Points) -> float:
    """Return the area, positive where the ring runs clockwise as seen, with y downwards."""
    x, y = ring[:, 0], ring[:, 1]
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _join(outer: list[Points], hole: Points) -> None:
    """Join a hole to the ring on its left; holes further to the left have been joined before."""
    left = hole[:, 0].min()
    at_left = np.flatnonzero((hole[:, 0] == left) & (np.roll(hole, -1, axis=0)[:, 0] == left))
    first = int(at_left[0])
    # the middle of a row, where no corner of any ring lies
    height = min(hole[first, 1], hole[(first + 1) % len(hole), 1]) + 0.5
    index, edge, reached = _nearest(outer, float(left), float(height))
    ring = outer[index]
    around = np.roll(hole, -(first + 1), axis=0)
    bridge, start = np.array([[reached, height]]), np.array([[left, height]])
    outer[index] = np.concatenate([ring[: edge + 1], bridge, start, around, start, bridge, ring[edge + 1 :]])


def _nearest(rings: Sequence[Points], left: float, height: float) -> tuple[int, int, float]:
    """Return the ring and its edge that a walk to the left meets first, and where."""
    best = (0, 0, -np.inf)
    for index, ring in enumerate(rings):
        after = np.roll(ring, -1, axis=0)
        low, high = np.minimum(ring[:, 1], after[:, 1]), np.maximum(ring[:, 1], after[:, 1])
        met = np.flatnonzero((low < height) & (height < high) & (ring[:, 0] < left))
        if len(met):
            edge = int(met[np.argmax(ring[met, 0])])
            if ring[edge, 0] > best[2]:
                best = (index, edge, float(ring[edge, 0]))
    return best
