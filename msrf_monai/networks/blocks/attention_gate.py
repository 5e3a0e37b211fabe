"""Attention gate of MSRF-Net's decoder: a coarse map decides where the skip connection is kept."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from msrf_monai.networks.blocks.keras_norm import keras_batch_norm

__all__ = ["AttentionGate"]


class AttentionGate(nn.Module):
    """Gate a skip connection by a spatial map computed at half its resolution.

    After Oktay et al., "Attention U-Net", MIDL 2018, in the form that MSRF-Net's code executes: the sigmoid map is
    enlarged by a learned 2x2 transposed convolution (and not squashed again), multiplies the skip, and a batch norm
    with eps 1e-5 closes the block.

    Args:
        skip_channels: channels of the skip connection.
        gate_channels: channels of the coarser gating map.

    Example:
        >>> import torch
        >>> gate = AttentionGate(skip_channels=8, gate_channels=16).eval()
        >>> tuple(gate(torch.rand(1, 8, 16, 24), torch.rand(1, 16, 8, 12)).shape)
        (1, 8, 16, 24)
    """

    def __init__(self, skip_channels: int, gate_channels: int) -> None:
        super().__init__()
        self.theta = nn.Conv2d(skip_channels, skip_channels, kernel_size=2, stride=2)
        self.phi = nn.Conv2d(gate_channels, skip_channels, kernel_size=1)
        self.psi = nn.Conv2d(skip_channels, 1, kernel_size=1)
        self.up = nn.ConvTranspose2d(1, 1, kernel_size=2, stride=2)
        self.norm = keras_batch_norm(skip_channels, eps=1e-5)

    def forward(self, skip: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        """Gate the skip.

        Args:
            skip: ``(B, skip_channels, H, W)``, H and W even.
            gate: ``(B, gate_channels, H/2, W/2)``.

        Returns:
            The gated skip, ``(B, skip_channels, H, W)``.
        """
        attention = torch.sigmoid(self.psi(F.relu(self.theta(skip) + self.phi(gate))))  # (B, 1, H/2, W/2)
        gated: torch.Tensor = self.norm(skip * self.up(attention))
        return gated
