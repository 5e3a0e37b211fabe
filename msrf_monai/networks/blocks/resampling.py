"""Convolutions that halve and double a map exactly as TensorFlow's "same" padding does."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["DownConv", "SparseUpConv", "UpConv"]


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


class SparseUpConv(nn.ConvTranspose2d):
    """1x1 transposed convolution with stride 2: a 1x1 convolution at the even places, the bare bias at all others.

    It is computed with the kernel padded to 2x2, which gives the same numbers. PyTorch's own backward pass of the 1x1
    form with output padding writes outside its memory in channels-last layout (seen with torch 2.13 on a CPU).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1, stride=2, output_padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, 2H, 2W)``."""
        return F.conv_transpose2d(x, F.pad(self.weight, [0, 1, 0, 1]), self.bias, stride=2)
