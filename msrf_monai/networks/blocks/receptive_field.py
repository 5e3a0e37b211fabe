"""Receptive field block: branches of growing kernels and dilations, joined beside a shortcut."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from msrf_monai.networks.blocks.feature_norm import FeatureNorm, conv_norm_relu

__all__ = ["ReceptiveFieldBlock"]


class ReceptiveFieldBlock(nn.Module):
    """Receptive field block (RFB) as Hi-gMISnet has it.

    After Fan et al., "PraNet", MICCAI 2020. Unlike there, ReLU is applied to the input and after every norm. The
    convolutions have no biases.

    Args:
        in_channels: channels of the input.
        channels: channels of each branch and of the result.
        norm: see ``feature_norm``.

    Raises:
        InputError: when ``norm`` is unknown.

    Example:
        >>> tuple(ReceptiveFieldBlock(16, 8)(torch.rand(1, 16, 9, 12)).shape)
        (1, 8, 9, 12)
    """

    def __init__(self, in_channels: int, channels: int = 32, *, norm: FeatureNorm = "instance") -> None:
        super().__init__()

        def conv(inputs: int, kernel: int | tuple[int, int], dilation: int = 1) -> nn.Sequential:
            return conv_norm_relu(inputs, channels, kernel, norm=norm, bias=False, dilation=dilation)

        self.branches = nn.ModuleList([conv(in_channels, 1)])
        for n in (3, 5, 7):
            row, column, spread = conv(channels, (1, n)), conv(channels, (n, 1)), conv(channels, 3, dilation=n)
            self.branches.append(nn.Sequential(conv(in_channels, 1), row, column, spread))
        self.join = conv(len(self.branches) * channels, 3)
        self.shortcut = conv(in_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, channels, H, W)``, of which nothing is negative."""
        x = F.relu(x)
        seen: list[torch.Tensor] = []
        for branch in self.branches:
            seen.append(branch(x))
        return F.relu(self.join(torch.cat(seen, dim=1)) + self.shortcut(x))
