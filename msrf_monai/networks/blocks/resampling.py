"""Convolutions that halve and double a map exactly as TensorFlow's "same" padding does."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["DownConv", "UpConv"]


class DownConv(nn.Module):
    """3x3 convolution with stride 2 that pads one row and one column after the map and none before it.

    This is TensorFlow's "same" padding for even sizes; symmetric padding would shift the result by half a cell.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, in_channels, H, W)`` with even H and W to ``(B, out_channels, H/2, W/2)``."""
        y: torch.Tensor = self.conv(F.pad(x, [0, 1, 0, 1]))
        return y


class UpConv(nn.Module):
    """3x3 transposed convolution with stride 2 whose last row and column are dropped: TensorFlow's "same".

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, 2H, 2W)``."""
        y: torch.Tensor = self.conv(x)  # (B, out_channels, 2H + 1, 2W + 1)
        return y[:, :, :-1, :-1]
