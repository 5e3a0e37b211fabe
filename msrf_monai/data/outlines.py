"""Outlines of objects in the XML of Aperio ImageScope, as MoNuSeg hands them out, and the masks inside them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from msrf_monai.errors import DataError

__all__ = ["Outlines", "fill_outlines", "read_outlines"]

_ROOT = "Annotations"
_LARGEST_OVERHANG = 0.05
"""How far outlines may reach over the picture's rim, as a share of its side; more means another picture."""


@dataclass(frozen=True)
class Outlines:
    """The outlines of one picture.

    Attributes:
        polygons: corners of each object, ``(N, 2)``, x then y in pixels, (0, 0) the outer corner of the first pixel.
        holes: corners of regions that are marked as negative, which belong to no object.
        spacing_mm: side of a pixel, or None when the file does not say it.
        unclosed: number of regions that have fewer than three corners, and so no area.
    """

    polygons: tuple[NDArray[np.float64], ...]
    holes: tuple[NDArray[np.float64], ...] = ()
    spacing_mm: float | None = None
    unclosed: int = 0


@dataclass
class _Reader:
    """What the parser has seen so far."""

    path: Path
    depth: int = 0
    regions: int = 0
    is_hole: bool = False
    corners: list[tuple[float, float]] | None = None
    polygons: list[NDArray[np.float64]] = field(default_factory=list)
    holes: list[NDArray[np.float64]] = field(default_factory=list)
    spacing_mm: float | None = None
    unclosed: int = 0

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        if self.depth == 0 and name != _ROOT:
            raise DataError(f"{self.path}: begins with <{name}>; expected <{_ROOT}> of Aperio ImageScope")
        if self.depth == 0:
            microns = _number(attributes.get("MicronsPerPixel", ""))
            self.spacing_mm = microns / 1000 if microns is not None and microns > 0 else None
        self.depth += 1
        if name == "Region":
            self.regions += 1
            self.corners, self.is_hole = [], attributes.get("NegativeROA") == "1"
        elif name == "Vertex" and self.corners is not None:
            x, y = (_number(attributes.get(axis, "")) for axis in "XY")
            if x is None or y is None:
                raise DataError(
                    f"{self.path}: region {self.regions} has a vertex {dict(attributes)}; expected numbers X, Y"
                )
            self.corners.append((x, y))

    def end(self, name: str) -> None:
        self.depth -= 1
        if name != "Region" or self.corners is None:
            return
        if len(self.corners) < 3:
            self.unclosed += 1
        else:
            (self.holes if self.is_hole else self.polygons).append(np.array(self.corners))
        self.corners = None

    def refuse_entities(self, *_: object) -> None:
        raise DataError(f"{self.path}: declares XML entities, which annotations do not need; it is not read")


def read_outlines(content: bytes, path: Path) -> Outlines:
    """Read the outlines of an annotation file; all its layers count.

    Args:
        content: the bytes of the file.
        path: where they come from, for the message of an error.

    Returns:
        The outlines.

    Raises:
        DataError: when the file is no XML of ImageScope, is cut short, declares entities, or a corner is no number.
    """
    reader = _Reader(path)
    parser = expat.ParserCreate()
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.EntityDeclHandler = reader.refuse_entities
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise DataError(f"{path}: cannot be read as XML ({error}); the file is damaged: get it again") from error
    return Outlines(tuple(reader.polygons), tuple(reader.holes), reader.spacing_mm, reader.unclosed)


def fill_outlines(outlines: Outlines, shape: tuple[int, int], path: Path) -> NDArray[np.bool_]:
    """Return the union of the objects: the pixels whose centre lies inside an outline and in no hole.

    An outline that crosses itself is filled wherever it winds around.

    Args:
        outlines: see ``read_outlines``.
        shape: rows and columns of the picture.
        path: the annotation file, for the message of an error.

    Returns:
        bool, ``shape``.

    Raises:
        DataError: when outlines reach far over the picture's rim, so that they belong to another one.
    """
    mask, holes = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    if outlines.polygons:
        corners = np.concatenate(outlines.polygons)
        overhang = np.maximum(-corners.min(axis=0), corners.max(axis=0) - shape[::-1])
        if (overhang > _LARGEST_OVERHANG * np.array(shape[::-1])).any():
            raise DataError(
                f"{path}: its outlines reach from {corners.min(axis=0).round(1).tolist()} to "
                f"{corners.max(axis=0).round(1).tolist()}; expected them within {shape[1]} x {shape[0]} pixels"
            )
    for polygon in outlines.polygons:
        _fill(polygon, mask)
    for polygon in outlines.holes:
        _fill(polygon, holes)
    filled: NDArray[np.bool_] = mask & ~holes
    return filled


def _fill(polygon: NDArray[np.float64], mask: NDArray[np.bool_]) -> None:
    """Mark the pixels around whose centre the polygon winds."""
    height, width = mask.shape
    low, high = polygon.min(axis=0), polygon.max(axis=0)
    left, right = max(math.floor(low[0]), 0), min(math.ceil(high[0]), width)
    top, bottom = max(math.floor(low[1]), 0), min(math.ceil(high[1]), height)
    if left >= right or top >= bottom:
        return
    x, y = polygon.T
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    centres = np.arange(top, bottom) + 0.5
    row, edge = np.nonzero((y <= centres[:, None]) != (next_y <= centres[:, None]))
    crossing = x[edge] + (centres[row] - y[edge]) * (next_x[edge] - x[edge]) / (next_y[edge] - y[edge])
    # the first pixel whose centre is not left of the crossing
    column = np.clip(np.ceil(crossing - 0.5).astype(int) - left, 0, right - left)
    turns = np.zeros((bottom - top, right - left + 1), np.int32)
    np.add.at(turns, (row, column), np.where(next_y[edge] > y[edge], 1, -1))
    mask[top:bottom, left:right] |= np.cumsum(turns, axis=1)[:, :-1] != 0


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
