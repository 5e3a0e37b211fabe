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
from msrf_monai.metrics.calibration import CalibrationBins, calibration_bins, expected_calibration_error
from msrf_monai.metrics.cumulative import (
    BatchPooledScore,
    BatchPooledScoreHandler,
    MacroScore,
    MacroScoreHandler,
    PooledScore,
    PooledScoreHandler,
)
from msrf_monai.metrics.field_of_view import FieldOfViewScore, FieldOfViewScoreHandler
from msrf_monai.metrics.overlap import (
    OVERLAP_SCORES,
    PIXEL_SCORES,
    Confusion,
    accuracy,
    confusion,
    dice,
    iou,
    iou_from_dice,
    matthews,
    mean_iou,
    npv,
    precision,
    recall,
    specificity,
)
from msrf_monai.metrics.published import ScoreConsistency, accuracy_and_f1_at, published_scores_consistency
from msrf_monai.metrics.regions import pixels_inside
from msrf_monai.metrics.roc import KerasAUC, KerasAUCHandler, average_precision, exact_auc, keras_auc
from msrf_monai.metrics.surface import hausdorff95
from msrf_monai.metrics.threshold import choose_threshold
from msrf_monai.metrics.topology import BettiErrors, betti_errors, betti_numbers, centreline_dice
from msrf_monai.metrics.vessels import (
    VESSEL_MASK_SCORES,
    VESSEL_PIXEL_SCORES,
    VESSEL_POOLED_SCORES,
    VESSEL_SCORES,
    VESSEL_TOPOLOGY_SCORES,
    mask_scores,
    pooled_vessel_scores,
    vessel_pixel_scores,
    vessel_scores,
)

__all__ = [
    "OVERLAP_SCORES",
    "PIXEL_SCORES",
    "VESSEL_MASK_SCORES",
    "VESSEL_PIXEL_SCORES",
    "VESSEL_POOLED_SCORES",
    "VESSEL_SCORES",
    "VESSEL_TOPOLOGY_SCORES",
    "BatchPooledScore",
    "BatchPooledScoreHandler",
    "BettiErrors",
    "CalibrationBins",
    "Confusion",
    "FieldOfViewScore",
    "FieldOfViewScoreHandler",
    "KerasAUC",
    "KerasAUCHandler",
    "MacroScore",
    "MacroScoreHandler",
    "PooledScore",
    "PooledScoreHandler",
    "ScoreConsistency",
    "accuracy",
    "accuracy_and_f1_at",
    "average_precision",
    "batch_pooled",
    "batch_pooled_dice",
    "betti_errors",
    "betti_numbers",
    "bootstrap_interval",
    "calibration_bins",
    "centreline_dice",
    "choose_threshold",
    "confusion",
    "dice",
    "exact_auc",
    "expected_calibration_error",
    "hausdorff95",
    "iou",
    "iou_from_dice",
    "keras_auc",
    "macro_dsc",
    "mask_scores",
    "matthews",
    "mean_iou",
    "npv",
    "pixels_inside",
    "pooled_accuracy",
    "pooled_dice",
    "pooled_iou",
    "pooled_mean_iou",
    "pooled_precision",
    "pooled_recall",
    "pooled_specificity",
    "pooled_vessel_scores",
    "precision",
    "published_scores_consistency",
    "recall",
    "specificity",
    "vessel_pixel_scores",
    "vessel_scores",
]
