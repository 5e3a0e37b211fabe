"""Padding to the sizes that a network can take, and the crop that undoes it."""

from __future__ import annotations

import torch
import torch.nn.functional as F

__all__ = ["pad_to_multiple"]


def pad_to_multiple(x: torch.Tensor, multiple: int) -> torch.Tensor:
    """Repeat the last row and column until height and width are multiples of ``multiple``.

    Nothing is added before the first row and column, so that ``y[..., :H, :W]`` undoes it. It can be scripted, traced
    and exported with dynamic sizes.

    Args:
        x: ``(B, C, H, W)``.
        multiple: the number that the new height and width are multiples of.

    Returns:
        ``(B, C, H', W')`` with H <= H' < H + multiple, and the same for W.
    """
    height, width = x.shape[-2], x.shape[-1]
    return F.pad(x, [0, -width % multiple, 0, -height % multiple], mode="replicate")
