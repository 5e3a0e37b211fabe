"""What a segmentation is worth: pure functions, their averages and intervals, and MONAI metrics around them."""

from __future__ import annotations

from msrf_monai.metrics.averages import (
    batch_pooled,
    batch_pooled_dice,
    macro_dsc,
    pooled_accuracy,
    pooled_dice,
    pooled_iou,
    pooled_mean_iou,
    pooled_precision,
    pooled_recall,
    pooled_specificity,
)
from msrf_monai.metrics.bootstrap import bootstrap_interval
from msrf_monai.metrics.cumulative import (
    BatchPooledScore,
    BatchPooledScoreHandler,
    MacroScore,
    MacroScoreHandler,
    PooledScore,
    PooledScoreHandler,
)
from msrf_monai.metrics.overlap import (
    OVERLAP_SCORES,
    PIXEL_SCORES,
    Confusion,
    accuracy,
    confusion,
    dice,
    iou,
    iou_from_dice,
    mean_iou,
    precision,
    recall,
    specificity,
)
from msrf_monai.metrics.roc import KerasAUC, KerasAUCHandler, exact_auc, keras_auc
from msrf_monai.metrics.surface import hausdorff95

__all__ = [
    "OVERLAP_SCORES",
    "PIXEL_SCORES",
    "BatchPooledScore",
    "BatchPooledScoreHandler",
    "Confusion",
    "KerasAUC",
    "KerasAUCHandler",
    "MacroScore",
    "MacroScoreHandler",
    "PooledScore",
    "PooledScoreHandler",
    "accuracy",
    "batch_pooled",
    "batch_pooled_dice",
    "bootstrap_interval",
    "confusion",
    "dice",
    "exact_auc",
    "hausdorff95",
    "iou",
    "iou_from_dice",
    "keras_auc",
    "macro_dsc",
    "mean_iou",
    "pooled_accuracy",
    "pooled_dice",
    "pooled_iou",
    "pooled_mean_iou",
    "pooled_precision",
    "pooled_recall",
    "pooled_specificity",
    "precision",
    "recall",
    "specificity",
]
