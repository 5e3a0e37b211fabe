"""Channel and spatial attention over a skip connection and the enlarged coarser map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from msrf_monai.networks.blocks.keras_norm import keras_batch_norm
from msrf_monai.networks.blocks.squeeze_excitation import SqueezeExcitation

__all__ = ["DualAttention"]


class DualAttention(nn.Module):
    """Join a skip and a coarser map, then weigh channels (squeeze-excitation) and places (1 + sigmoid map).

    Part of the "triple attention" of MSRF-Net's decoder (Srivastava et al., IEEE JBHI 2022).

    Args:
        skip_channels: channels of the skip connection and of the result.
        low_channels: channels of the coarser map.
        up_kernel: size of the transposed convolution that enlarges the coarser map: 4 as in the authors' code
            (padding 1), or 2.

    Example:
        >>> import torch
        >>> block = DualAttention(skip_channels=8, low_channels=16).eval()
        >>> tuple(block(torch.rand(1, 8, 16, 24), torch.rand(1, 16, 8, 12)).shape)
        (1, 8, 16, 24)
    """

    foldable = (("up", "up_norm"), ("conv", "norm"), ("place1", "place_norm"))

    def __init__(self, skip_channels: int, low_channels: int, *, up_kernel: int = 4) -> None:
        super().__init__()
        hidden = max(1, skip_channels // 4)
        self.up = nn.ConvTranspose2d(
            low_channels, skip_channels, kernel_size=up_kernel, stride=2, padding=(up_kernel - 2) // 2
        )
        self.up_norm = keras_batch_norm(skip_channels)
        self.conv = nn.Conv2d(2 * skip_channels, skip_channels, kernel_size=3, padding=1)
        self.norm = keras_batch_norm(skip_channels)
        self.channel = SqueezeExcitation(skip_channels)
        self.place1 = nn.Conv2d(skip_channels, hidden, kernel_size=1)
        self.place_norm = keras_batch_norm(hidden)
        self.place2 = nn.Conv2d(hidden, 1, kernel_size=1)

    def forward(self, skip: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
        """Attend.

        Args:
            skip: ``(B, skip_channels, H, W)``, H and W even.
            low: ``(B, low_channels, H/2, W/2)``.

        Returns:
            ``(B, skip_channels, H, W)``.
        """
        enlarged = F.relu(self.up_norm(self.up(low)))
        joined = F.relu(self.norm(self.conv(torch.cat([skip, enlarged], dim=1))))
        place = torch.sigmoid(self.place2(F.relu(self.place_norm(self.place1(joined)))))  # (B, 1, H, W)
        attended: torch.Tensor = self.channel(joined) * (1.0 + place)
        return attended
