"""Losses as MONAI components."""

from __future__ import annotations

from msrf_monai.losses.dice_bce_loss import BatchDiceBCELoss, ImageDiceBCELoss
from msrf_monai.losses.msrf_loss import MSRFLoss, clipped_cross_entropy
from msrf_monai.losses.vessel_loss import VesselLoss

__all__ = ["BatchDiceBCELoss", "ImageDiceBCELoss", "MSRFLoss", "VesselLoss", "clipped_cross_entropy"]
