"""Losses as MONAI components."""

from __future__ import annotations

from msrf_monai.losses.dice_bce_loss import BatchDiceBCELoss, ImageDiceBCELoss
from msrf_monai.losses.higmis_loss import HiGMISDiscriminatorLoss, HiGMISGeneratorLoss, supervision_targets
from msrf_monai.losses.msrf_loss import MSRFLoss, clipped_cross_entropy
from msrf_monai.losses.reciprocal_loss import ReciprocalLoss
from msrf_monai.losses.vessel_loss import VesselLoss

__all__ = [
    "BatchDiceBCELoss",
    "HiGMISDiscriminatorLoss",
    "HiGMISGeneratorLoss",
    "ImageDiceBCELoss",
    "MSRFLoss",
    "ReciprocalLoss",
    "VesselLoss",
    "clipped_cross_entropy",
    "supervision_targets",
]
