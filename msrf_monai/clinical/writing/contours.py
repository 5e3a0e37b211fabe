"""The outlines of a mask along the edges of its pixels, so that an outline encloses the mask's pixels and no other."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["filled", "outlines"]

Outline = npt.NDArray[np.float32]
_RIGHT, _DOWN, _LEFT, _UP = (1, 0), (0, 1), (-1, 0), (0, -1)
_CLOCKWISE = (_RIGHT, _DOWN, _LEFT, _UP)


def outlines(mask: npt.NDArray[np.bool_]) -> list[Outline]:
    """Return the closed outlines of a mask, those of holes too.

    Args:
        mask: ``(H, W)``, True inside.

    Returns:
        One ``(N, 2)`` array of x and y for each outline, the first point repeated at the end. The upper left corner of
        the upper left pixel is (0, 0) and its lower right one (1, 1), as in DICOM's presentation states. Outer
        outlines run clockwise as seen, holes the other way, and pixels that touch at a corner only have outlines of
        their own, so that the mask is what the even-odd rule fills.
    """
    steps = _steps(np.asarray(mask, dtype=bool))
    found = []
    while steps:
        start = next(iter(steps))
        found.append(np.array(list(_walk(steps, start)), dtype=np.float32))
    return found


def filled(lines: Iterable[npt.NDArray[Any]], rows: int, columns: int) -> npt.NDArray[np.bool_]:
    """Return the mask that outlines enclose by the even-odd rule, the reverse of ``outlines``.

    Args:
        lines: ``(N, 2)`` arrays of x and y on corners of pixels, whole outlines or pieces of them.
        rows: height of the mask.
        columns: width of the mask.

    Returns:
        ``(rows, columns)``, True inside.
    """
    crossings = np.zeros((rows, columns + 1), dtype=np.int32)
    for line in lines:
        for (x, y), (_, end) in itertools.pairwise(np.rint(line).astype(int).tolist()):
            crossings[min(y, end) : max(y, end), x] += 1
    return np.asarray(np.cumsum(crossings, axis=1)[:, :columns] % 2 == 1)


def _steps(mask: npt.NDArray[np.bool_]) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Return, for each corner that an outline passes, the directions in which it goes on, the inside on its right."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    edges = (
        (inside & ~padded[:-2, 1:-1], (0, 0), _RIGHT),
        (inside & ~padded[1:-1, 2:], (1, 0), _DOWN),
        (inside & ~padded[2:, 1:-1], (1, 1), _LEFT),
        (inside & ~padded[1:-1, :-2], (0, 1), _UP),
    )
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for border, (dx, dy), direction in edges:
        for y, x in np.argwhere(border).tolist():
            steps.setdefault((x + dx, y + dy), []).append(direction)
    return steps


def _walk(steps: dict[tuple[int, int], list[tuple[int, int]]], start: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yield the corners of one outline, only those where it turns, and take its steps out of ``steps``."""
    at, before = start, None
    while True:
        choices = steps[at]
        if before is None or len(choices) == 1:
            direction = choices[0]
        else:
            # two pixels meet here at their corners: turning to the right stays with the one that we came along
            direction = _CLOCKWISE[(_CLOCKWISE.index(before) + 1) % 4]
        choices.remove(direction)
        if not choices:
            del steps[at]
        if direction != before:
            yield at
        at, before = (at[0] + direction[0], at[1] + direction[1]), direction
        if at == start:
            yield start
            return
