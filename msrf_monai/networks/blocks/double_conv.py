"""The convolution block of U-Nets."""

from __future__ import annotations

from collections.abc import Callable

from monai.networks.layers import Conv
from torch import nn

__all__ = ["DoubleConv"]


class DoubleConv(nn.Sequential):
    """Twice a 3x3 convolution that keeps the size, a norm, and ReLU.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the result.
        norm: makes the layer after each convolution from a number of channels; ``nn.Identity`` for none.
        spatial_dims: number of spatial axes.
    """

    def __init__(
        self, in_channels: int, out_channels: int, norm: Callable[[int], nn.Module], spatial_dims: int = 2
    ) -> None:
        conv = Conv["conv", spatial_dims]
        super().__init__(
            conv(in_channels, out_channels, 3, padding=1),
            norm(out_channels),
            nn.ReLU(inplace=True),
            conv(out_channels, out_channels, 3, padding=1),
            norm(out_channels),
            nn.ReLU(inplace=True),
        )
