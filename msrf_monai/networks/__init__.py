"""Networks as MONAI components, their blocks, and loaders for the weights of the original implementations."""

from __future__ import annotations

from msrf_monai.networks.nets import (
    HiGMISNet,
    HiGMISNetGenerator,
    HiGMISNetGeneratorOutput,
    HiGMISNetOutput,
    IMFFNet,
    IMFFNetOutput,
    MSRFNet,
    MSRFNetOutput,
    PatchDiscriminator,
    RecalibratedUNet,
    SEUNet,
    SSRUNet,
    fuse_probabilities,
)

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
