"""Partial decoder: the three coarse maps of a network are multiplied and joined to one coarse prediction."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from msrf_monai.networks.blocks.feature_norm import FeatureNorm, conv_norm_relu

__all__ = ["PartialDecoder"]


class PartialDecoder(nn.Module):
    """Parallel partial decoder as Hi-gMISnet has it.

    After Fan et al., "PraNet", MICCAI 2020 (and Wu et al., "Cascaded Partial Decoder", CVPR 2019), with ReLU after
    every norm. Only the last convolution has a bias.

    Args:
        channels: channels c of the three maps.
        norm: see ``feature_norm``.

    Raises:
        InputError: when ``norm`` is unknown.

    Example:
        >>> decode = PartialDecoder(8)
        >>> maps = [torch.rand(1, 8, 16 >> k, 24 >> k) for k in (0, 1, 2)]
        >>> tuple(decode(*maps).shape)
        (1, 1, 16, 24)
    """

    def __init__(self, channels: int = 32, *, norm: FeatureNorm = "instance") -> None:
        super().__init__()

        def conv(inputs: int, outputs: int) -> nn.Sequential:
            return conv_norm_relu(inputs, outputs, 3, norm=norm, bias=False)

        c = channels
        self.up1 = conv(c, c)
        self.up2 = conv(c, c)
        self.up3 = conv(c, c)
        self.up4 = conv(c, 2 * c)
        self.up5 = conv(2 * c, 2 * c)
        self.join4 = conv(3 * c, 2 * c)
        self.join3 = conv(3 * c, 3 * c)
        self.head = nn.Sequential(conv(3 * c, 3 * c), nn.Conv2d(3 * c, 1, 1))

    def forward(self, fine: torch.Tensor, middle: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """Predict.

        Args:
            fine: ``(B, c, 4h, 4w)``.
            middle: ``(B, c, 2h, 2w)``.
            coarse: ``(B, c, h, w)``.

        Returns:
            Logits, ``(B, 1, 4h, 4w)``.
        """
        coarse_up = _double(coarse)  # (B, c, 2h, 2w)
        y4 = self.up1(coarse_up) * middle
        y3 = self.up2(_double(coarse_up)) * self.up3(_double(middle)) * fine  # (B, c, 4h, 4w)
        z4 = self.join4(torch.cat([y4, self.up4(coarse_up)], dim=1))  # (B, 2c, 2h, 2w)
        z3 = self.join3(torch.cat([y3, self.up5(_double(z4))], dim=1))  # (B, 3c, 4h, 4w)
        logits: torch.Tensor = self.head(z3)
        return logits


def _double(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, size=[2 * x.shape[2], 2 * x.shape[3]], mode="bilinear", align_corners=False)
