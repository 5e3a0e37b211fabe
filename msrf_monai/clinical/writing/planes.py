"""One form for every mask: ``(F, H, W, S)`` uint8, frames by rows by columns by segments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from msrf_monai.errors import InputError

__all__ = ["FRACTION_OF_ONE", "binary_planes", "fraction_planes", "label_frames"]

FRACTION_OF_ONE = 255
"""The stored value of probability 1 in a FRACTIONAL segmentation."""

Planes = npt.NDArray[np.uint8]


def binary_planes(mask: npt.NDArray[Any], shape: Sequence[int], segments: int) -> Planes:
    """Return a decided mask with one plane for each segment.

    Args:
        mask: class numbers ``(H, W)`` or ``(F, H, W)``, integer or bool, 0 for background; or, for segments that may
            overlap, ``(F, H, W, S)`` of 0 and 1.
        shape: frames, rows and columns of the source.
        segments: how many segments there are.

    Returns:
        ``(F, H, W, S)`` of 0 and 1.

    Raises:
        InputError: when the mask has another size, is not decided, or holds a class that no segment describes.
    """
    mask = np.asarray(mask)
    if mask.dtype.kind not in "biu":
        raise InputError(f"a decided mask is of integers or bool, got {mask.dtype}; apply the threshold first")
    framed = _framed(mask, shape, segments)
    largest = 1 if framed.ndim == 4 else segments
    if framed.size and (framed.min() < 0 or framed.max() > largest):
        raise InputError(
            f"the mask holds values from {framed.min()} to {framed.max()}, and 0 to {largest} are described; "
            "give every class a segment in metadata.json"
        )
    if framed.ndim == 4:
        return np.ascontiguousarray(framed, dtype=np.uint8)
    planes = np.empty((*framed.shape, segments), dtype=np.uint8)
    for index in range(segments):
        np.equal(framed, index + 1, out=planes[..., index], casting="unsafe")
    return planes


def fraction_planes(probability: npt.NDArray[Any], shape: Sequence[int], segments: int) -> Planes:
    """Return probabilities as the 8-bit numbers that a FRACTIONAL segmentation stores, half of the way rounded to even.

    Args:
        probability: ``(H, W)`` or ``(F, H, W)`` for one segment, ``(F, H, W, S)`` for several; floating, 0 to 1.
        shape: frames, rows and columns of the source.
        segments: how many segments there are.

    Returns:
        ``(F, H, W, S)``; 255 is probability 1.

    Raises:
        InputError: when the size is another, or a value lies outside [0, 1] or is no number.
    """
    probability = np.asarray(probability)
    if probability.dtype.kind != "f":
        raise InputError(f"probabilities are floating point numbers, got {probability.dtype}")
    framed = _framed(probability, shape, segments)
    framed = framed[..., None] if framed.ndim == 3 else framed
    if framed.shape[3] != segments:
        raise InputError(f"probabilities of {segments} segments need the shape (F, H, W, {segments}), got one plane")
    if framed.size and not (framed.min() >= 0 and framed.max() <= 1):
        raise InputError(f"probabilities lie in [0, 1], these in [{framed.min():g}, {framed.max():g}]")
    return np.rint(framed * np.float32(FRACTION_OF_ONE)).astype(np.uint8)


def label_frames(planes: Planes) -> npt.NDArray[np.uint8]:
    """Return class numbers ``(F, H, W)`` of decided planes.

    Raises:
        InputError: when two segments share a pixel, since one number cannot name both, or there are over 255.
    """
    if planes.shape[3] > 255:
        raise InputError(f"a label map holds up to 255 segments here, got {planes.shape[3]}")
    if planes.shape[3] > 1 and (planes.sum(axis=3, dtype=np.uint16) > 1).any():
        raise InputError("two segments share a pixel, which a label map cannot hold; write BINARY instead")
    numbers = np.arange(1, planes.shape[3] + 1, dtype=np.uint8)
    return np.asarray((planes * numbers).sum(axis=3, dtype=np.uint8))


def _framed(mask: npt.NDArray[Any], shape: Sequence[int], segments: int) -> npt.NDArray[Any]:
    framed = mask[None] if mask.ndim == 2 else mask
    expected = tuple(shape)
    if framed.shape != expected and framed.shape != (*expected, segments):
        raise InputError(
            f"the mask has the shape {mask.shape}, and its source {expected} (frames, rows, columns) with {segments} "
            "segment(s); put it back on the source's grid before it is written"
        )
    return framed
