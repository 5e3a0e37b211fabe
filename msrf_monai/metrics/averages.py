"""The averages that papers print, under names that cannot be mixed up.

The MSRF-Net paper's Dice (DSC) is the mean of the images' scores ("macro"), while its IoU, precision and recall are
computed from the pixels of all images together ("pooled", also called micro).
"""

from __future__ import annotations

from torch import Tensor

from msrf_monai.errors import InputError
from msrf_monai.metrics.overlap import Confusion, dice, iou, precision, recall

__all__ = ["macro_dsc", "pooled_dice", "pooled_iou", "pooled_precision", "pooled_recall"]


def macro_dsc(counts: Confusion) -> Tensor:
    """Return the mean of the images' Dice scores: both masks empty counts 1, only the truth empty counts 0.

    Args:
        counts: of ``confusion``, shape (B,) with B at least 1.

    Returns:
        float64 scalar in [0, 1].

    Raises:
        InputError: when there is no image.
    """
    return dice(_some(counts)).mean()


def pooled_dice(counts: Confusion) -> Tensor:
    """Return Dice (F1) over the pixels of all images; arguments and errors as ``macro_dsc``."""
    return dice(_some(counts).pooled())


def pooled_iou(counts: Confusion) -> Tensor:
    """Return the foreground's IoU over the pixels of all images; arguments and errors as ``macro_dsc``."""
    return iou(_some(counts).pooled())


def pooled_precision(counts: Confusion) -> Tensor:
    """Return the foreground's precision over the pixels of all images; arguments and errors as ``macro_dsc``."""
    return precision(_some(counts).pooled())


def pooled_recall(counts: Confusion) -> Tensor:
    """Return the foreground's recall over the pixels of all images; arguments and errors as ``macro_dsc``."""
    return recall(_some(counts).pooled())


def _some(counts: Confusion) -> Confusion:
    if counts.tp.numel() == 0:
        raise InputError("there is no image to average over")
    return counts
