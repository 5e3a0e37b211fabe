"""The networks."""

from __future__ import annotations

from msrf_monai.networks.nets.msrf_net import MSRFNet, MSRFNetOutput

__all__ = ["MSRFNet", "MSRFNetOutput"]
