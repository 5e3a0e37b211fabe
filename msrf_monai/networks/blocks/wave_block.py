"""Wavelet block of Hi-gMISnet: maps go one scale down by a Haar transform and are mixed by 3x3 and 5x5 convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from msrf_monai.errors import InputError
from msrf_monai.networks.blocks.feature_norm import FeatureNorm, conv_norm_relu

__all__ = ["WaveBlock"]


class WaveBlock(nn.Module):
    """Haar transform, 1x1 convolution over all sub-bands, 3x3 and 5x5 convolutions side by side, 1x1 convolution.

    Showrav and Hasan, "Hi-gMISnet", Physics in Medicine and Biology 69 (2024) 115019, doi:10.1088/1361-6560/ad3cb3.
    The two 1x1 convolutions have no norm and no activation.

    The sub-bands are never built: four sums of a 2x2 cell with a 1x1 convolution after them are one 2x2 convolution of
    stride 2, whose kernel ``cell_kernel`` makes from the weights of ``project``. Results differ by rounding only.

    Args:
        in_channels: channels C of the input.
        width: channels of each of the two branches; the result has twice as many.
        norm: of the two branches, see ``feature_norm``.

    Raises:
        InputError: when ``width`` is less than 1, or ``norm`` unknown.

    Example:
        >>> tuple(WaveBlock(8, width=4)(torch.rand(1, 8, 12, 20)).shape)
        (1, 8, 6, 10)
    """

    def __init__(self, in_channels: int, width: int, *, norm: FeatureNorm = "instance") -> None:
        super().__init__()
        if width < 1:
            raise InputError(f"width is {width}; expected at least 1 channel a branch")
        self.project = nn.Conv2d(4 * in_channels, 2 * width, 1)
        self.fine = conv_norm_relu(2 * width, width, 3, norm=norm)
        self.coarse = conv_norm_relu(2 * width, width, 5, norm=norm)
        self.join = nn.Conv2d(2 * width, 2 * width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, C, H, W)`` with even H and W to ``(B, 2 * width, H/2, W/2)``."""
        y = F.conv2d(x, self.cell_kernel(), self.project.bias, stride=2)
        out: torch.Tensor = self.join(torch.cat([self.fine(y), self.coarse(y)], dim=1))
        return out

    def cell_kernel(self) -> torch.Tensor:
        """Return the kernel ``(2 * width, C, 2, 2)`` that does the Haar transform and ``project`` in one."""
        low, rows, columns, both = torch.chunk(self.project.weight, 4, dim=1)  # of LL, LH, HL and HH
        top, bottom = (low + rows) * 0.5, (low - rows) * 0.5
        top_step, bottom_step = (columns + both) * 0.5, (columns - both) * 0.5
        upper = torch.cat([top + top_step, top - top_step], dim=3)
        lower = torch.cat([bottom + bottom_step, bottom - bottom_step], dim=3)
        return torch.cat([upper, lower], dim=2)
