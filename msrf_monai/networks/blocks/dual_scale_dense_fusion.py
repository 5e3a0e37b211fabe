"""Dual-scale dense fusion: two dense branches at neighbouring resolutions that exchange their features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from msrf_monai.errors import InputError
from msrf_monai.networks.blocks.resampling import DownConv, UpConv

__all__ = ["DualScaleDenseFusion"]

_STEPS = 5
_SLOPE = 0.25


class _ExchangeStep(nn.Module):
    """One dense step of both branches: read a layer of the other branch, join everything so far, convolve."""

    def __init__(self, high: list[int], low: list[int], source: int, growth: int, high_out: int, low_out: int) -> None:
        super().__init__()
        self.source = source
        self.act = nn.LeakyReLU(_SLOPE)
        self.up = UpConv(low[source], growth)
        self.down = DownConv(high[source], growth)
        self.high_conv = nn.Conv2d(sum(high) + growth, high_out, 3, padding=1)
        self.low_conv = nn.Conv2d(sum(low) + growth, low_out, 3, padding=1)

    def forward(self, xs: list[torch.Tensor], ys: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        from_low = self.act(self.up(ys[self.source]))
        from_high = self.act(self.down(xs[self.source]))
        x = self.act(self.high_conv(torch.cat(xs + [from_low], dim=1)))  # noqa: RUF005 (TorchScript)
        y = self.act(self.low_conv(torch.cat(ys + [from_high], dim=1)))  # noqa: RUF005 (TorchScript)
        return x, y


class DualScaleDenseFusion(nn.Module):
    """Dual-scale dense fusion block (DSDF) of MSRF-Net.

    Srivastava et al., "MSRF-Net: A Multi-Scale Residual Fusion Network for Biomedical Image Segmentation", IEEE JBHI
    2022, figure of the DSDF block. A high-resolution branch x and a low-resolution branch y (half the size) each run
    five densely connected 3x3 convolutions; after each step a strided or transposed 3x3 convolution carries features
    to the other branch. The result is added to the input, scaled by ``residual_scale``.

    The authors' code differs from the figure in two places, and both are options here (defaults: the code):
    the first layer of the low branch only applies the activation (``low_first_conv=False``), and steps 2, 3, 4, 5 read
    layers 0, 1, 3, 4 of the other branch (``exchange_layers``; the figure says 1, 2, 3, 4; layer 0 is the input).

    Args:
        high_channels: channels of x, which it keeps.
        low_channels: channels of y, which it keeps.
        growth: channels that each dense layer adds.
        low_first_conv: give the low branch's first layer its convolution, as in the figure.
        exchange_layers: which layer of the other branch steps 2 to 5 read.
        residual_scale: factor of the residual branch.

    Raises:
        InputError: when ``exchange_layers`` has not four entries, or one asks for a layer that does not exist yet.

    Example:
        >>> import torch
        >>> block = DualScaleDenseFusion(high_channels=8, low_channels=16, growth=4)
        >>> x, y = block(torch.rand(1, 8, 16, 24), torch.rand(1, 16, 8, 12))
        >>> tuple(x.shape), tuple(y.shape)
        ((1, 8, 16, 24), (1, 16, 8, 12))
    """

    def __init__(
        self,
        high_channels: int,
        low_channels: int,
        growth: int,
        *,
        low_first_conv: bool = False,
        exchange_layers: Sequence[int] = (0, 1, 3, 4),
        residual_scale: float = 0.4,
    ) -> None:
        super().__init__()
        sources = [int(layer) for layer in exchange_layers]
        if len(sources) != _STEPS - 1 or any(not 0 <= s <= k + 1 for k, s in enumerate(sources)):
            raise InputError(
                f"exchange_layers is {tuple(exchange_layers)}; expected four layer numbers, the k-th from 0 to k, "
                "since steps 2 to 5 can only read layers that are already computed: use (0, 1, 3, 4) or (1, 2, 3, 4)"
            )
        self.residual_scale = float(residual_scale)
        self.act = nn.LeakyReLU(_SLOPE)

        # Channels of layers 0 (the input) to 4 in each branch.
        high = [high_channels] + [growth] * (_STEPS - 1)
        low = [low_channels] + [growth] * (_STEPS - 1)
        if not low_first_conv:
            low[1] = low_channels

        self.high_first = nn.Conv2d(high[0], growth, 3, padding=1)
        self.low_first = nn.Conv2d(low[0], growth, 3, padding=1) if low_first_conv else nn.Identity()
        self.steps = nn.ModuleList()
        for step, source in enumerate(sources, start=2):
            outputs = (high_channels, low_channels) if step == _STEPS else (growth, growth)
            self.steps.append(_ExchangeStep(high[:step], low[:step], source, growth, *outputs))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Fuse two neighbouring scales.

        Args:
            x: ``(B, high_channels, H, W)``, H and W even.
            y: ``(B, low_channels, H/2, W/2)``.

        Returns:
            Both maps, refined, in their own shapes.
        """
        xs = [x, self.act(self.high_first(x))]
        ys = [y, self.act(self.low_first(y))]
        for step in self.steps:
            next_x, next_y = step(xs, ys)
            xs.append(next_x)
            ys.append(next_y)
        return x + self.residual_scale * xs[-1], y + self.residual_scale * ys[-1]
