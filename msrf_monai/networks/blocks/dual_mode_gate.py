"""Dual-mode attention gate of Hi-gMISnet: one half of a skip is gated by foreground, the other by background."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from msrf_monai.errors import InputError
from msrf_monai.networks.blocks.feature_norm import FeatureNorm, conv_norm_relu

__all__ = ["DualModeAttentionGate"]


class _GateMode(nn.Module):
    """The layers of one mode: skip and gate are brought to one size and width, and one map to a single channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.theta = nn.Conv2d(channels, channels, kernel_size=2, stride=2)
        self.phi = nn.Sequential(
            nn.Conv2d(channels, channels, kernel_size=1),
            nn.ConvTranspose2d(channels, channels, kernel_size=3, padding=1),
        )
        self.psi = nn.Conv2d(channels, 1, kernel_size=1)

    def forward(self, skip: torch.Tensor, gate: torch.Tensor, sign: float) -> torch.Tensor:
        logits: torch.Tensor = self.psi(F.relu(self.theta(skip) + sign * self.phi(gate)))
        return logits


class DualModeAttentionGate(nn.Module):
    """Gate the halves of a skip connection by an additive and a reversed, subtractive attention map.

    Showrav and Hasan, "Hi-gMISnet", Physics in Medicine and Biology 69 (2024) 115019, doi:10.1088/1361-6560/ad3cb3.
    Skip x and gate g are split in halves (a, b). The foreground map is ``α = σ(ψ(ReLU(θ x_a + φ g_a)))``, the
    background map ``β = 1 - σ(ψ(ReLU(θ x_b - φ g_b)))``; both have half the size, are enlarged by repetition and
    multiply their half; a 1x1 convolution with norm and ReLU joins the halves.

    Args:
        channels: channels F of skip and gate; even.
        norm: see ``feature_norm``.

    Raises:
        InputError: when ``channels`` is odd or less than 2, or ``norm`` unknown.

    Example:
        >>> attend = DualModeAttentionGate(8)
        >>> out, alpha, beta = attend(torch.rand(1, 8, 12, 20), torch.rand(1, 8, 6, 10))
        >>> tuple(out.shape), tuple(alpha.shape), tuple(beta.shape)
        ((1, 8, 12, 20), (1, 1, 12, 20), (1, 1, 12, 20))
    """

    def __init__(self, channels: int, *, norm: FeatureNorm = "instance") -> None:
        super().__init__()
        if channels < 2 or channels % 2:
            raise InputError(f"channels is {channels}; expected an even number of at least 2, to be split in halves")
        self.foreground = _GateMode(channels // 2)
        self.background = _GateMode(channels // 2)
        self.join = conv_norm_relu(channels, channels, 1, norm=norm)

    def forward(self, skip: torch.Tensor, gate: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Gate the skip.

        Args:
            skip: ``(B, F, H, W)``, H and W even.
            gate: ``(B, F, H/2, W/2)``.

        Returns:
            The gated skip ``(B, F, H, W)``, and the maps α and β in [0, 1], each ``(B, 1, H, W)``.
        """
        skip_a, skip_b = torch.chunk(skip, 2, dim=1)
        gate_a, gate_b = torch.chunk(gate, 2, dim=1)
        alpha = torch.sigmoid(self.foreground(skip_a, gate_a, 1.0))  # (B, 1, H/2, W/2)
        beta = 1.0 - torch.sigmoid(self.background(skip_b, gate_b, -1.0))
        size = [2 * alpha.shape[2], 2 * alpha.shape[3]]
        alpha = F.interpolate(alpha, size=size, mode="nearest")  # (B, 1, H, W)
        beta = F.interpolate(beta, size=size, mode="nearest")
        gated: torch.Tensor = self.join(torch.cat([alpha * skip_a, beta * skip_b], dim=1))
        return gated, alpha, beta
