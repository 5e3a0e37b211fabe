"""A network whose uncertainty can be calculated by hand."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["BrightnessNet"]


class BrightnessNet(nn.Module):
    """Foreground where the picture is brighter than half; dropout takes single bright pixels away.

    Args:
        dropout: share of pixels dropped in training mode; MONAI Label sets it.
    """

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.sharpness = nn.Parameter(torch.tensor(20.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits ``(B, 1, …)`` of images ``(B, C, …)`` in [0, 1]."""
        return self.sharpness * (self.dropout(x[:, :1]) - 0.5)
