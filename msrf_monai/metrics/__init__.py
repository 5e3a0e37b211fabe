"""What a segmentation is worth: pure functions, their averages and intervals, and MONAI metrics around them."""

from __future__ import annotations

from msrf_monai.metrics.averages import macro_dsc, pooled_dice, pooled_iou, pooled_precision, pooled_recall
from msrf_monai.metrics.bootstrap import bootstrap_interval
from msrf_monai.metrics.cumulative import MacroScore, MacroScoreHandler, PooledScore, PooledScoreHandler
from msrf_monai.metrics.overlap import (
    OVERLAP_SCORES,
    Confusion,
    confusion,
    dice,
    iou,
    iou_from_dice,
    precision,
    recall,
)
from msrf_monai.metrics.surface import hausdorff95

__all__ = [
    "OVERLAP_SCORES",
    "Confusion",
    "MacroScore",
    "MacroScoreHandler",
    "PooledScore",
    "PooledScoreHandler",
    "bootstrap_interval",
    "confusion",
    "dice",
    "hausdorff95",
    "iou",
    "iou_from_dice",
    "macro_dsc",
    "pooled_dice",
    "pooled_iou",
    "pooled_precision",
    "pooled_recall",
    "precision",
    "recall",
]
