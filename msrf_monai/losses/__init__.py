"""Losses as MONAI components."""

from __future__ import annotations

from msrf_monai.losses.dice_bce_loss import BatchDiceBCELoss, ImageDiceBCELoss
from msrf_monai.losses.msrf_loss import MSRFLoss, clipped_cross_entropy

__all__ = ["BatchDiceBCELoss", "ImageDiceBCELoss", "MSRFLoss", "clipped_cross_entropy"]
