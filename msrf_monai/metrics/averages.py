"""The averages that papers print, under names that cannot be mixed up.

The MSRF-Net paper's Dice (DSC) is the mean of the images' scores ("macro"), while its IoU, precision and recall are
computed from the pixels of all images together ("pooled", also called micro).

Of the two papers on singularity-strength and multifractal recalibration, the first one's Dice is pooled over each batch
of the evaluation and averaged over the batches (``batch_pooled_dice``), and its IoU is the mean of object and
background (``pooled_mean_iou``); the second one's Dice is the mean of the images (``macro_dsc``) and its IoU the
object's (``pooled_iou``). Both take accuracy, IoU, precision and sensitivity from the pixels of all images, and
specificity batch by batch (``batch_pooled`` with ``score="specificity"``). So their Dice values cannot be compared
with each other.
"""

from __future__ import annotations

import torch
from torch import Tensor

from msrf_monai.errors import ConfigError, InputError
from msrf_monai.metrics.overlap import (
    PIXEL_SCORES,
    Confusion,
    accuracy,
    dice,
    iou,
    mean_iou,
    precision,
    recall,
    specificity,
)

__all__ = [
    "batch_pooled",
    "batch_pooled_dice",
    "macro_dsc",
    "pooled_accuracy",
    "pooled_dice",
    "pooled_iou",
    "pooled_mean_iou",
    "pooled_precision",
    "pooled_recall",
    "pooled_specificity",
]


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


def pooled_accuracy(counts: Confusion) -> Tensor:
    """Return the share of right pixels among those of all images; arguments and errors as ``macro_dsc``."""
    return accuracy(_some(counts).pooled())


def pooled_specificity(counts: Confusion) -> Tensor:
    """Return the specificity over the pixels of all images; arguments and errors as ``macro_dsc``."""
    return specificity(_some(counts).pooled())


def pooled_mean_iou(counts: Confusion) -> Tensor:
    """Return the mean of the object's and the background's IoU, each over the pixels of all images, as ``macro_dsc``.

    The EUSIPCO 2024 paper's IoU; where objects are small the background's part is next to 1.
    """
    return mean_iou(_some(counts).pooled())


def batch_pooled(counts: Confusion, score: str = "dice", *, batch_size: int = 16) -> Tensor:
    """Return a score pooled over each batch of images and averaged over the batches.

    Every batch counts the same, also a last one with fewer images, as when Keras averages a function of a batch. So the
    value depends on the order of the images and on the batch size.

    Args:
        counts: of ``confusion``, shape (B,) with B at least 1, in the order of the evaluation.
        score: one of ``PIXEL_SCORES``.
        batch_size: images in a batch. The EUSIPCO 2024 paper's evaluation had 16 on ISIC 2018 and 32 on Kvasir-SEG.

    Returns:
        float64 scalar in [0, 1].

    Raises:
        InputError: when there is no image, or the batch size is below 1.
        ConfigError: when the score is unknown.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; expected 1 or more")
    if score not in PIXEL_SCORES:
        raise ConfigError(f"score must be one of {', '.join(PIXEL_SCORES)}, got {score!r}")
    batches = zip(*(torch.split(count, batch_size) for count in _some(counts)), strict=True)
    return torch.stack([PIXEL_SCORES[score](Confusion(*batch).pooled()) for batch in batches]).mean()


def batch_pooled_dice(counts: Confusion, *, batch_size: int = 16) -> Tensor:
    """Return the EUSIPCO 2024 paper's Dice: pooled over each batch, then averaged; as ``batch_pooled``."""
    return batch_pooled(counts, "dice", batch_size=batch_size)


def _some(counts: Confusion) -> Confusion:
    if counts.tp.numel() == 0:
        raise InputError("there is no image to average over")
    return counts
