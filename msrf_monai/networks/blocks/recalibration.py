"""Blocks that weigh a map's channels or places by what the map itself says, for the encoder of any network."""

from __future__ import annotations

import torch
from torch import nn

from msrf_monai.networks.blocks.excitation import ChannelExcitation, per_channel
from msrf_monai.networks.blocks.initialization import glorot_uniform_
from msrf_monai.networks.blocks.keras_norm import BiasedBatchNorm
from msrf_monai.networks.blocks.singularity_strength import LocalSingularityStrength, NormScope

__all__ = ["SingularityStrengthRecalibration", "SpatialChannelSqueezeExcitation", "StyleRecalibration"]


class SingularityStrengthRecalibration(nn.Module):
    """Weigh each channel by the mean singularity strength of all channels (SSR, also called monofractal).

    Martins, Coimbra and Renna, EUSIPCO 2024 (IEEE 10714969); the "monofractal" block of Martins et al., "Multifractal
    Recalibration of Neural Networks for Medical Imaging Segmentation", arXiv:2512.02198, is the same. It is squeeze
    and excitation with the mean of ``LocalSingularityStrength`` in place of the mean of the map, so a channel's
    contrast decides, not its brightness. The published block takes the range of values over the whole batch; that is
    ``norm_scope="batch"``.

    Args:
        channels: channels of the map ``(B, channels, *spatial)``, which keeps its shape.
        spatial_dims: number of spatial axes, 2 or 3.
        reduction: how much narrower the hidden layer of the gate is.
        max_scale: number of box sizes, see ``LocalSingularityStrength``.
        norm_scope: "sample" or "batch", see ``LocalSingularityStrength``.
        normalize_borders: see ``LocalSingularityStrength``.
        norm_momentum: share of a new batch in the norm's running statistics.

    Example:
        >>> block = SingularityStrengthRecalibration(channels=8).eval()
        >>> x = torch.rand(2, 8, 24, 32)
        >>> bool((block(x) <= x).all())
        True
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int = 2,
        reduction: int = 2,
        max_scale: int = 3,
        norm_scope: NormScope = "sample",
        normalize_borders: bool = False,
        norm_momentum: float = 0.01,
    ) -> None:
        super().__init__()
        self.strength = LocalSingularityStrength(
            channels,
            spatial_dims,
            max_scale,
            norm_scope,
            normalize_borders=normalize_borders,
            norm_momentum=norm_momentum,
        )
        self.excite = ChannelExcitation(channels, reduction)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x with each channel multiplied by its weight in [0, 1]."""
        return x * per_channel(self.excite(self.strength.channel_means(x)), x).to(x.dtype)


class SpatialChannelSqueezeExcitation(nn.Module):
    """Weigh channels by their means and places by a 1x1 convolution, and keep the larger result (scSE).

    Roy, Navab and Wachinger, "Concurrent Spatial and Channel Squeeze & Excitation in Fully Convolutional Networks",
    MICCAI 2018, with the element-wise maximum of the two branches.

    Args:
        channels: channels of the map ``(B, channels, *spatial)``, which keeps its shape.
        spatial_dims: number of spatial axes, 2 or 3.
        reduction: how much narrower the hidden layer of the channels' gate is.
    """

    def __init__(self, channels: int, spatial_dims: int = 2, reduction: int = 2) -> None:
        super().__init__()
        conv = nn.Conv3d if spatial_dims == 3 else nn.Conv2d
        self.excite = ChannelExcitation(channels, reduction)
        self.place = conv(channels, 1, kernel_size=1)
        glorot_uniform_(self.place)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the element-wise maximum of x weighed by channel and x weighed by place."""
        means = x.flatten(2).mean(dim=2)
        by_channel = x * per_channel(self.excite(means), x).to(x.dtype)
        return torch.maximum(by_channel, x * torch.sigmoid(self.place(x)))


class StyleRecalibration(nn.Module):
    """Weigh each channel by its mean and standard deviation (SRM) as the multifractal paper compares it.

    Lee, Kim and Nam, "SRM: A Style-based Recalibration Module for Convolutional Neural Networks", ICCV 2019. The two
    numbers are joined by weights that all channels share (in the paper each channel has its own:
    ``shared_weights=False``), then a batch norm over the batch and a sigmoid.

    Args:
        channels: channels of the map ``(B, channels, *spatial)``, which keeps its shape.
        shared_weights: use one pair of weights for all channels, as the compared code does.
        norm_momentum: share of a new batch in the norm's running statistics.
    """

    def __init__(self, channels: int, shared_weights: bool = True, norm_momentum: float = 0.01) -> None:
        super().__init__()
        self.style_weights = nn.Parameter(torch.empty(1 if shared_weights else channels, 2))
        self.norm = BiasedBatchNorm(channels, momentum=norm_momentum)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew as Keras' dense layer from 2 to 1 does (Glorot uniform), and reset the norm."""
        limit = (6.0 / 3.0) ** 0.5
        nn.init.uniform_(self.style_weights, -limit, limit)
        self.norm.reset_parameters()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x with each channel multiplied by its weight in [0, 1]."""
        pixels = x.flatten(2).float()
        mean = pixels.mean(dim=2)
        deviation = torch.sqrt(torch.var(pixels, dim=2, correction=0) + 1e-12)
        style = mean * self.style_weights[:, 0] + deviation * self.style_weights[:, 1]
        return x * per_channel(torch.sigmoid(self.norm(style)), x).to(x.dtype)
