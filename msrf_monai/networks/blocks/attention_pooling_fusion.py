"""Attention-pooling feature fusion: a gated skip connection joined by what mixed pooling finds at twice its size."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from msrf_monai.errors import check_choice
from msrf_monai.networks.blocks.convex_sum import ConvexSum, FusionWeights
from msrf_monai.networks.blocks.excitation import hidden_channels, per_channel

__all__ = ["AttentionPoolingForm", "AttentionPoolingFusion"]

AttentionPoolingForm = Literal["low_resolution", "literal"]


class _ChannelGate(nn.Module):
    """Squeeze and excitation without biases: one weight in [0, 1] a channel from the channels' means."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = hidden_channels(channels, reduction)
        self.squeeze = nn.Linear(channels, hidden, bias=False)
        self.excite = nn.Linear(hidden, channels, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        means = x.mean(dim=[2, 3])  # (B, C)
        return torch.sigmoid(self.excite(F.relu(self.squeeze(means))))


class AttentionPoolingFusion(nn.Module):
    """Attention-pooling feature fusion block (APF) of IMFF-Net, which refines a skip connection.

    Liu et al., "IMFF-Net: An integrated multi-scale feature fusion network for accurate retinal vessel segmentation
    from fundus images", Biomedical Signal Processing and Control 91 (2024) 105980, doi:10.1016/j.bspc.2024.105980, as
    its published code runs it: squeeze-and-excitation weighs the channels; the weighed map is doubled in size by
    repetition, convolved (3x3, no norm, no activation) and halved again by equal parts of max and average pooling; a
    1x1 convolution joins the weighed map and the pooled one.

    A doubled map is constant on 2x2 cells, so each of the four pixels of a cell sees a 2x2 neighbourhood of the small
    map through sums of the 3x3 weights. ``form="low_resolution"`` convolves four times at the small size and takes the
    maximum and the mean over the four, with 4/9 of the multiplications and no large map; ``form="literal"`` follows
    the words above. Weights and results are the same up to rounding (where a cell's four pixels are equal, each form
    may send the maximum's gradient to another of them).

    Args:
        channels: channels C of the map, which it keeps.
        reduction: how much narrower the gate's hidden layer is.
        form: "low_resolution" or "literal".
        pool_weights: shares of the two poolings: "fixed" (one half each, as published) or "learnable" (one parameter,
            which starts there).

    Raises:
        InputError: when an argument is none of the above, or the gate's hidden layer would have no unit.

    Example:
        >>> block = AttentionPoolingFusion(channels=8)
        >>> tuple(block(torch.rand(1, 8, 15, 20)).shape)
        (1, 8, 15, 20)
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 4,
        *,
        form: AttentionPoolingForm = "low_resolution",
        pool_weights: FusionWeights = "fixed",
    ) -> None:
        super().__init__()
        check_choice("form", form, AttentionPoolingForm)
        self.form: str = form
        self.gate = _ChannelGate(channels, reduction)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.mix_pools = ConvexSum(0.5, pool_weights)
        self.join = nn.Conv2d(2 * channels, channels, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Refine a skip connection.

        Args:
            x: float map ``(B, C, H, W)``, any H and W.

        Returns:
            The refined map, ``(B, C, H, W)``.
        """
        gated = x * per_channel(self.gate(x), x).to(x.dtype)
        if self.form == "literal":
            large = self.conv(F.interpolate(gated, scale_factor=2.0, mode="nearest"))  # (B, C, 2H, 2W)
            pooled = self.mix_pools(F.max_pool2d(large, 2), F.avg_pool2d(large, 2))
        else:
            pooled = self._pool_four_pixels(gated)
        refined: torch.Tensor = self.join(torch.cat([gated, pooled], dim=1))
        return refined

    def _pool_four_pixels(self, x: torch.Tensor) -> torch.Tensor:
        largest = self._pixel_of_each_cell(x, 0, 0)
        total = largest
        for row, column in ((0, 1), (1, 0), (1, 1)):  # one after the other, so that never all four are held
            pixel = self._pixel_of_each_cell(x, row, column)
            largest = torch.maximum(largest, pixel)
            total = total + pixel
        mixed: torch.Tensor = self.mix_pools(largest, total / 4.0)
        return mixed

    def _pixel_of_each_cell(self, x: torch.Tensor, row: int, column: int) -> torch.Tensor:
        """Return what the convolution of the doubled map has at this row and column (0 or 1) of each 2x2 cell."""
        kernel = _sum_taps(_sum_taps(self.conv.weight, 2, row), 3, column)  # (C, C, 2, 2)
        corners = F.conv2d(x, kernel, self.conv.bias, padding=1)  # (B, C, H + 1, W + 1)
        return corners[:, :, row : row + x.shape[2], column : column + x.shape[3]]

    def extra_repr(self) -> str:
        """Return the options that the weights do not show."""
        return f"form={self.form!r}"


def _sum_taps(kernel: torch.Tensor, axis: int, place: int) -> torch.Tensor:
    """Add the two of a kernel's three taps along an axis that fall on one cell, for its first (0) or last (1) pixel."""
    taps = torch.unbind(kernel, axis)
    if place == 0:
        return torch.stack([taps[0], taps[1] + taps[2]], dim=axis)
    return torch.stack([taps[0] + taps[1], taps[2]], dim=axis)
