"""Overlap of two binary masks: counts of each image, and the scores that follow from them.

Conventions where a mask is empty, for every score alike: prediction and truth both empty is 1 (nothing was there and
nothing was found); a score whose denominator is 0 for another reason is 0. Scores of the background follow the same
rule with the background in the place of the object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from msrf_monai.errors import InputError

__all__ = [
    "OVERLAP_SCORES",
    "PIXEL_SCORES",
    "Confusion",
    "accuracy",
    "confusion",
    "dice",
    "iou",
    "iou_from_dice",
    "matthews",
    "mean_iou",
    "npv",
    "precision",
    "recall",
    "specificity",
]


class Confusion(NamedTuple):
    """Pixel counts, int64 tensors of one shape: true positives, false positives, false negatives, true negatives."""

    tp: Tensor
    fp: Tensor
    fn: Tensor
    tn: Tensor

    def pooled(self) -> Confusion:
        """Return the counts over all images together, tensors of shape ()."""
        return Confusion(*(count.sum() for count in self))

    def of_background(self) -> Confusion:
        """Return the counts with the background as what is sought, of the same shape."""
        return Confusion(tp=self.tn, fp=self.fn, fn=self.fp, tn=self.tp)


def confusion(pred: Tensor, label: Tensor, *, region: Tensor | None = None) -> Confusion:
    """Count the pixels of each image by what was predicted and what is true.

    Args:
        pred: decided masks (B, ...), boolean or of any type with values {0, 1}.
        label: true masks, same shape.
        region: where pixels count, same shape, such as the field of view of a fundus camera; everywhere by default.

    Returns:
        Counts (B,), int64, on the device of the masks.

    Raises:
        InputError: when shapes differ, there is no image axis, or a mask has other values than 0 and 1.
    """
    masks = {"pred": pred, "label": label} if region is None else {"pred": pred, "label": label, "region": region}
    for name, mask in masks.items():
        if mask.shape != label.shape or mask.ndim < 1:
            raise InputError(f"{name} has shape {tuple(mask.shape)}, expected (B, ...) as label {tuple(label.shape)}")
        if mask.dtype != torch.bool and not bool(((mask == 0) | (mask == 1)).all()):
            raise InputError(
                f"{name} must be a decided mask of 0 and 1, its values go from {mask.min()} to {mask.max()}"
            )
    predicted, true = pred.bool().flatten(1), label.bool().flatten(1)
    counted = torch.ones_like(true) if region is None else region.bool().flatten(1)
    return Confusion(
        tp=(predicted & true & counted).sum(1),
        fp=(predicted & ~true & counted).sum(1),
        fn=(~predicted & true & counted).sum(1),
        tn=(~predicted & ~true & counted).sum(1),
    )


def dice(counts: Confusion) -> Tensor:
    """Return the Dice score 2 TP / (2 TP + FP + FN), float64 in [0, 1], of the counts' shape."""
    return _share(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn, counts)


def iou(counts: Confusion) -> Tensor:
    """Return the intersection over union TP / (TP + FP + FN), float64 in [0, 1], of the counts' shape."""
    return _share(counts.tp, counts.tp + counts.fp + counts.fn, counts)


def precision(counts: Confusion) -> Tensor:
    """Return the precision TP / (TP + FP), float64 in [0, 1], of the counts' shape."""
    return _share(counts.tp, counts.tp + counts.fp, counts)


def recall(counts: Confusion) -> Tensor:
    """Return the recall (sensitivity) TP / (TP + FN), float64 in [0, 1], of the counts' shape."""
    return _share(counts.tp, counts.tp + counts.fn, counts)


def accuracy(counts: Confusion) -> Tensor:
    """Return the share of pixels that are right, (TP + TN) / all, float64 in [0, 1], of the counts' shape."""
    right = counts.tp + counts.tn
    return right.double() / (right + counts.fp + counts.fn).clamp(min=1).double()


def specificity(counts: Confusion) -> Tensor:
    """Return the specificity TN / (TN + FP), the recall of the background, float64 in [0, 1], of the counts' shape."""
    return recall(counts.of_background())


def npv(counts: Confusion) -> Tensor:
    """Return the negative predictive value TN / (TN + FN), the precision of the background, float64, of that shape.

    Some papers print it as specificity: see ``published_scores_consistency``.
    """
    return precision(counts.of_background())


def matthews(counts: Confusion) -> Tensor:
    """Return the Matthews correlation coefficient, float64 in [-1, 1], of the counts' shape.

    (TP TN - FP FN) / sqrt((TP + FP) (TP + FN) (TN + FP) (TN + FN)), the correlation of two masks. Masks that agree
    everywhere count 1, also both empty and both full; where else a mask is empty or full it is 0, as in scikit-learn.
    """
    tp, fp, fn, tn = (count.double() for count in counts)
    margins = ((tp + fp) * (tp + fn)).sqrt() * ((tn + fp) * (tn + fn)).sqrt()
    coefficient = (tp * tn - fp * fn) / margins.clamp(min=1)  # where the margins are 0, so is what stands above
    return torch.where(fp + fn == 0, torch.ones_like(coefficient), coefficient)


def mean_iou(counts: Confusion) -> Tensor:
    """Return the mean of the object's and the background's intersection over union, float64, of the counts' shape."""
    return (iou(counts) + iou(counts.of_background())) / 2


def iou_from_dice(score: Tensor | float) -> Tensor | float:
    """Return the intersection over union that belongs to a Dice score (F1) of the same counts: F / (2 - F)."""
    return score / (2 - score)


OVERLAP_SCORES: Mapping[str, Callable[[Confusion], Tensor]] = {
    "dice": dice,
    "iou": iou,
    "precision": precision,
    "recall": recall,
}
"""The overlap scores by name, as reports list them."""

PIXEL_SCORES: Mapping[str, Callable[[Confusion], Tensor]] = {
    **OVERLAP_SCORES,
    "accuracy": accuracy,
    "specificity": specificity,
    "npv": npv,
    "matthews": matthews,
    "mean_iou": mean_iou,
}
"""All scores by name, also those that the background makes look good where objects are small."""


def _share(part: Tensor, whole: Tensor, counts: Confusion) -> Tensor:
    both_empty = counts.tp + counts.fp + counts.fn == 0
    share = part.double() / whole.clamp(min=1).double()
    return torch.where(both_empty, torch.ones_like(share), share)
