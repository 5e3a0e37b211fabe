"""Dual-scale dense fusion: two dense branches at neighbouring resolutions that exchange their features."""

from __future__ import annotations

import copy
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
        self.high_widths = [*high, growth]  # channels of what high_conv reads, in the order in which it is joined
        self.low_widths = [*low, growth]

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

    @torch.jit.unused
    def inference_form(self) -> nn.Module:
        """Return a module for evaluation only that computes the same sums in fewer, wider convolutions.

        It shares no weights with this block, and its results differ from this block's by rounding only.
        """
        return _MergedDenseFusion(self)


class _MergedStep(nn.Module):
    """One of the steps 2 to 4 of both branches, where the newest layer is convolved once for all later steps.

    ``pending`` holds, for each branch, what older layers add to this step (its first ``growth`` channels) and to the
    steps after it.
    """

    def __init__(self, layer: int, steps: list[_ExchangeStep], growth: int) -> None:
        super().__init__()
        step = steps[0]
        self.source = step.source
        self.growth = growth
        self.act = step.act
        self.up = copy.deepcopy(step.up)
        self.down = copy.deepcopy(step.down)
        high, low = _high_parts(steps), _low_parts(steps)
        self.high_layer = _stacked_convolution(high, layer)
        self.low_layer = _stacked_convolution(low, layer)
        self.high_exchange = _stacked_convolution(high[:1], -1)
        self.low_exchange = _stacked_convolution(low[:1], -1)

    def forward(
        self, xs: list[torch.Tensor], ys: list[torch.Tensor], pending_x: torch.Tensor, pending_y: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        g = self.growth
        from_low = self.act(self.up(ys[self.source]))
        from_high = self.act(self.down(xs[self.source]))
        pending_x = pending_x + self.high_layer(xs[-1])
        pending_y = pending_y + self.low_layer(ys[-1])
        x = self.act(pending_x[:, :g] + self.high_exchange(from_low))
        y = self.act(pending_y[:, :g] + self.low_exchange(from_high))
        return x, y, pending_x[:, g:], pending_y[:, g:]


class _SummedConvolution(nn.Module):
    """A convolution of joined layers as the sum of each layer's convolution, which OpenVINO adds up in place."""

    def __init__(self, part: _Part) -> None:
        super().__init__()
        layers = range(len(part[1]))
        self.layers = nn.ModuleList(_stacked_convolution([part], layer, bias=layer == 0) for layer in layers)

    def forward(self, xs: list[torch.Tensor]) -> torch.Tensor:
        terms = [layer(xs[i]) for i, layer in enumerate(self.layers)]
        total: torch.Tensor = terms[0]
        for term in terms[1:]:
            total = total + term
        return total


class _SummedStep(nn.Module):
    """The last step of both branches with summed instead of joined layers."""

    def __init__(self, step: _ExchangeStep) -> None:
        super().__init__()
        self.source = step.source
        self.act = step.act
        self.up = copy.deepcopy(step.up)
        self.down = copy.deepcopy(step.down)
        self.high_conv = _SummedConvolution((step.high_conv, step.high_widths))
        self.low_conv = _SummedConvolution((step.low_conv, step.low_widths))

    def forward(self, xs: list[torch.Tensor], ys: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        from_low = self.act(self.up(ys[self.source]))
        from_high = self.act(self.down(xs[self.source]))
        x = self.act(self.high_conv(xs + [from_low]))  # noqa: RUF005 (TorchScript)
        y = self.act(self.low_conv(ys + [from_high]))  # noqa: RUF005 (TorchScript)
        return x, y


class _MergedDenseFusion(nn.Module):
    """The sums of ``DualScaleDenseFusion`` in wider convolutions, without joining layers.

    The convolution of joined layers is the sum of each layer's convolution. So the narrow convolutions of steps 1 to 4
    (``growth`` outputs each) are taken apart by the layer that they read, and the parts that read the same layer are
    stacked into one: a CPU needs about half the time for one convolution with 64 outputs that it needs for four with
    16. The last step is wide already; its parts are summed, which saves the copy that joining makes.
    """

    def __init__(self, block: DualScaleDenseFusion) -> None:
        super().__init__()
        *narrow, last = (step for step in block.steps if isinstance(step, _ExchangeStep))
        growth = block.high_first.out_channels
        high_first: list[_Part] = [(block.high_first, [block.high_first.in_channels])]
        low_first: list[_Part] = []
        if isinstance(block.low_first, nn.Conv2d):
            low_first.append((block.low_first, [block.low_first.in_channels]))
        self.residual_scale = block.residual_scale
        self.act = block.act
        self.growth = growth
        self.low_first_conv = bool(low_first)
        self.high_input = _stacked_convolution(high_first + _high_parts(narrow), 0, bias=True)
        self.low_input = _stacked_convolution(low_first + _low_parts(narrow), 0, bias=True)
        self.steps = nn.ModuleList(
            _MergedStep(layer, narrow[layer - 1 :], growth) for layer in range(1, len(narrow) + 1)
        )
        self.last = _SummedStep(last)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        g = self.growth
        pending_x, pending_y = self.high_input(x), self.low_input(y)
        xs, ys = [x, self.act(pending_x[:, :g])], [y]
        pending_x = pending_x[:, g:]
        if self.low_first_conv:
            ys.append(self.act(pending_y[:, :g]))
            pending_y = pending_y[:, g:]
        else:
            ys.append(self.act(y))
        for step in self.steps:
            next_x, next_y, pending_x, pending_y = step(xs, ys, pending_x, pending_y)
            xs.append(next_x)
            ys.append(next_y)
        last_x, last_y = self.last(xs, ys)
        return x + self.residual_scale * last_x, y + self.residual_scale * last_y


_Part = tuple[nn.Conv2d, list[int]]  # a convolution of joined layers, and the channels of each of these layers


def _high_parts(steps: list[_ExchangeStep]) -> list[_Part]:
    return [(step.high_conv, step.high_widths) for step in steps]


def _low_parts(steps: list[_ExchangeStep]) -> list[_Part]:
    return [(step.low_conv, step.low_widths) for step in steps]


def _stacked_convolution(parts: list[_Part], layer: int, *, bias: bool = False) -> nn.Conv2d:
    """Return one convolution of a single layer that gives its share of each part's outputs, one after the other."""
    weight = torch.cat([torch.split(conv.weight.detach(), widths, dim=1)[layer] for conv, widths in parts])
    stacked = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, bias=bias).to(weight)
    stacked.weight.data.copy_(weight)
    if stacked.bias is not None:
        biases = [conv.bias.detach() for conv, _ in parts if conv.bias is not None]
        stacked.bias.data.copy_(torch.cat(biases))
    return stacked.eval()
