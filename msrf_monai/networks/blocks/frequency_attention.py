"""Channel attention from a few frequencies of each channel instead of its mean."""

from __future__ import annotations

import math
from itertools import product
from typing import Literal

import torch
from torch import nn

from msrf_monai.errors import InputError, check_choice
from msrf_monai.networks.blocks.excitation import ChannelExcitation, per_channel

__all__ = ["FrequencyBasis", "FrequencyChannelAttention"]

FrequencyBasis = Literal["dct", "reference"]


class FrequencyChannelAttention(nn.Module):
    """Weigh each channel by one frequency of it: the channels are cut into equal groups, one frequency a group (FCA).

    Qin et al., "FcaNet: Frequency Channel Attention Networks", ICCV 2021: the 16 lowest of the two-dimensional discrete
    cosine transform (4 x 4). The map's own size defines the basis, so it takes any size.

    Two bases:

    - ``"dct"``: the transform (DCT-II), cos(π u (i + ½) / S), as a mean over the map times √2 for each axis with
      u > 0. So the lowest frequency is the global average, and the scale does not change with the size of the map.
    - ``"reference"``: what the multifractal paper's code compares with, cos(π i (u + ½) / S) with pixel and frequency
      exchanged, as a sum over the map. Its values run into the hundreds and saturate the gate.

    Args:
        channels: channels of the map ``(B, channels, *spatial)``, which keeps its shape; a multiple of the number of
            frequencies.
        spatial_dims: number of spatial axes, 2 or 3.
        reduction: how much narrower the hidden layer of the gate is.
        basis: "dct" or "reference".
        frequencies_per_axis: the number of frequencies is this to the power of ``spatial_dims``; None means 4 in 2-D
            (16 frequencies) and 2 in 3-D (8).

    Raises:
        InputError: when the channels cannot be cut into that many groups, or the basis has another name.

    Example:
        >>> block = FrequencyChannelAttention(channels=32)
        >>> tuple(block(torch.rand(1, 32, 24, 40)).shape)
        (1, 32, 24, 40)
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int = 2,
        reduction: int = 2,
        basis: FrequencyBasis = "dct",
        frequencies_per_axis: int | None = None,
    ) -> None:
        super().__init__()
        per_axis = frequencies_per_axis or (4 if spatial_dims == 2 else 2)
        count = per_axis**spatial_dims
        if channels % count:
            raise InputError(
                f"{channels} channels cannot be cut into {count} equal groups, one for each frequency; use a multiple "
                f"of {count} channels, or fewer frequencies_per_axis (now {per_axis})"
            )
        check_choice("basis", basis, FrequencyBasis)
        self.reference = basis == "reference"
        self.per_axis = per_axis
        groups = list(product(range(per_axis), repeat=spatial_dims))
        frequencies = [[groups[c * count // channels][axis] for c in range(channels)] for axis in range(spatial_dims)]
        self.register_buffer("frequencies", torch.tensor(frequencies, dtype=torch.float32), persistent=False)
        self.frequencies: torch.Tensor
        self.excite = ChannelExcitation(channels, reduction)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x with each channel multiplied by its weight in [0, 1]."""
        values = x.float()
        for axis in range(self.frequencies.shape[0]):  # one axis after the other: the basis is a product
            values = (values * self._waves(axis, x)).sum(dim=2)
        return x * per_channel(self.excite(values), x).to(x.dtype)

    def _waves(self, axis: int, x: torch.Tensor) -> torch.Tensor:
        """Return this axis' waves for each channel, ``(channels, size, 1, …)`` with the axes after it."""
        size = x.shape[2 + axis]
        place = torch.arange(size, device=x.device, dtype=torch.float32).unsqueeze(0)
        frequency = self.frequencies[axis].unsqueeze(1)
        if self.reference:
            waves = torch.cos(math.pi * place * (frequency + 0.5) / size)
        else:
            waves = torch.cos(math.pi * frequency * (place + 0.5) / size)
            waves = waves * torch.where(frequency > 0, 2.0**0.5, 1.0) / size
        shape: list[int] = [waves.shape[0], size] + [1] * (self.frequencies.shape[0] - 1 - axis)
        return waves.reshape(shape)
