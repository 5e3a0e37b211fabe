"""Our network in the form that the fixture's comparison script calls: net(image, canny) with four outputs."""

from __future__ import annotations

import torch
from torch import nn

from msrf_monai.networks import MSRFNet


class TwoInputMSRFNet(nn.Module):
    """Takes the image and the edge map apart and always gives four outputs."""

    def __init__(self, wiring: str) -> None:
        super().__init__()
        self.net = MSRFNet(features=32, wiring=wiring)  # type: ignore[arg-type]

    def forward(self, image: torch.Tensor, canny: torch.Tensor) -> dict[str, torch.Tensor]:
        out = self.net.forward_all(torch.cat([image, canny], dim=1))
        return {"x": out.mask, "edge_out": out.edge, "pred2": out.half, "pred4": out.quarter}


def build(wiring: str = "chain10") -> TwoInputMSRFNet:
    """Make the network for ``compare_torch.py --factory``."""
    return TwoInputMSRFNet(wiring)
