"""The networks."""

from __future__ import annotations

from msrf_monai.networks.nets.higmis_net import HiGMISNet, HiGMISNetOutput, fuse_probabilities
from msrf_monai.networks.nets.higmis_net_discriminator import PatchDiscriminator
from msrf_monai.networks.nets.higmis_net_generator import HiGMISNetGenerator, HiGMISNetGeneratorOutput
from msrf_monai.networks.nets.imff_net import IMFFNet, IMFFNetOutput
from msrf_monai.networks.nets.msrf_net import MSRFNet, MSRFNetOutput
from msrf_monai.networks.nets.recalibrated_unet import RecalibratedUNet, SEUNet, SSRUNet

__all__ = [
    "HiGMISNet",
    "HiGMISNetGenerator",
    "HiGMISNetGeneratorOutput",
    "HiGMISNetOutput",
    "IMFFNet",
    "IMFFNetOutput",
    "MSRFNet",
    "MSRFNetOutput",
    "PatchDiscriminator",
    "RecalibratedUNet",
    "SEUNet",
    "SSRUNet",
    "fuse_probabilities",
]
