"""The networks."""

from __future__ import annotations

from msrf_monai.networks.nets.imff_net import IMFFNet, IMFFNetOutput
from msrf_monai.networks.nets.msrf_net import MSRFNet, MSRFNetOutput
from msrf_monai.networks.nets.recalibrated_unet import RecalibratedUNet, SEUNet, SSRUNet

__all__ = ["IMFFNet", "IMFFNetOutput", "MSRFNet", "MSRFNetOutput", "RecalibratedUNet", "SEUNet", "SSRUNet"]
