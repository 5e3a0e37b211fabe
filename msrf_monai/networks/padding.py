"""Padding to the sizes that a network can take, and the crop that undoes it."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F

__all__ = ["Padding", "crop_from_multiple", "pad_to_multiple"]


Padding = Literal["edge", "zeros"]
"""What sizes are filled up with: the last row and column again, or zeros."""


def pad_to_multiple(x: torch.Tensor, multiple: int, fill: str = "edge") -> torch.Tensor:
    """Append rows, columns (and slices) until every spatial size is a multiple of ``multiple``.

    Nothing is added before the first ones; ``crop_from_multiple`` undoes it. Both can be scripted, traced
    and exported with dynamic sizes.

    Args:
        x: ``(B, C, H, W)`` or ``(B, C, D, H, W)``.
        multiple: the number that the new sizes are multiples of.
        fill: one of ``Padding`` (a plain string, for TorchScript).

    Returns:
        ``(B, C, H', W')`` with H <= H' < H + multiple, and the same for the other axes.
    """
    padding: list[int] = []
    for axis in range(1, x.dim() - 1):
        padding += [0, _missing(x.shape[-axis], multiple)]
    return F.pad(x, padding, mode="replicate" if fill == "edge" else "constant")


def crop_from_multiple(y: torch.Tensor, spatial_size: list[int], multiple: int) -> torch.Tensor:
    """Drop the rows, columns (and slices) that ``pad_to_multiple`` added.

    The crop is written as a negative padding: a slice would tie an exported program to sizes that are multiples, or
    to sizes that are not.

    Args:
        y: ``(B, C, H', W')`` or ``(B, C, D', H', W')``, the padded size.
        spatial_size: the sizes before the padding, ``x.shape[2:]``.
        multiple: what was given to ``pad_to_multiple``.

    Returns:
        y in those sizes.
    """
    padding: list[int] = []
    for axis in range(1, len(spatial_size) + 1):
        padding += [0, -_missing(spatial_size[-axis], multiple)]
    return F.pad(y, padding)


def _missing(size: int, multiple: int) -> int:
    # Not "-size % multiple": torch.compile cannot reason about that with dynamic sizes.
    return (size + multiple - 1) // multiple * multiple - size
