"""Losses as MONAI components."""

from __future__ import annotations

from msrf_monai.losses.msrf_loss import MSRFLoss, clipped_cross_entropy

__all__ = ["MSRFLoss", "clipped_cross_entropy"]
