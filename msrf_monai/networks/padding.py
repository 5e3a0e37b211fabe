"""Padding to the sizes that a network can take, and the crop that undoes it."""

from __future__ import annotations

import torch
import torch.nn.functional as F

__all__ = ["crop_from_multiple", "pad_to_multiple"]


def pad_to_multiple(x: torch.Tensor, multiple: int) -> torch.Tensor:
    """Repeat the last row and column until height and width are multiples of ``multiple``.

    Nothing is added before the first row and column; ``crop_from_multiple`` undoes it. Both can be scripted, traced
    and exported with dynamic sizes.

    Args:
        x: ``(B, C, H, W)``.
        multiple: the number that the new height and width are multiples of.

    Returns:
        ``(B, C, H', W')`` with H <= H' < H + multiple, and the same for W.
    """
    height, width = x.shape[-2], x.shape[-1]
    return F.pad(x, [0, _missing(width, multiple), 0, _missing(height, multiple)], mode="replicate")


def crop_from_multiple(y: torch.Tensor, height: int, width: int, multiple: int) -> torch.Tensor:
    """Drop the rows and columns that ``pad_to_multiple`` added.

    The crop is written as a negative padding: a slice would tie an exported program to sizes that are multiples, or
    to sizes that are not.

    Args:
        y: ``(B, C, H', W')``, the padded size.
        height: rows before the padding, H.
        width: columns before the padding, W.
        multiple: what was given to ``pad_to_multiple``.

    Returns:
        ``(B, C, H, W)``.
    """
    return F.pad(y, [0, -_missing(width, multiple), 0, -_missing(height, multiple)])


def _missing(size: int, multiple: int) -> int:
    # Not "-size % multiple": torch.compile cannot reason about that with dynamic sizes.
    return (size + multiple - 1) // multiple * multiple - size
