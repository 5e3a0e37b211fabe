"""Networks as MONAI components, their blocks, and loaders for the weights of the original implementations."""

from __future__ import annotations

from msrf_monai.networks.nets import (
    IMFFNet,
    IMFFNetOutput,
    MSRFNet,
    MSRFNetOutput,
    RecalibratedUNet,
    SEUNet,
    SSRUNet,
)

__all__ = ["IMFFNet", "IMFFNetOutput", "MSRFNet", "MSRFNetOutput", "RecalibratedUNet", "SEUNet", "SSRUNet"]
