"""Squeeze-and-excitation with a hidden layer that never vanishes."""

from __future__ import annotations

from monai.networks.blocks import ChannelSELayer

__all__ = ["SqueezeExcitation"]


class SqueezeExcitation(ChannelSELayer):
    """Weigh each channel by a sigmoid of its own global averages: MONAI's ``ChannelSELayer`` for any width.

    Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018. The hidden layer has ``max(1, channels // reduction)``
    units, so that narrow networks keep one.

    Args:
        channels: channels of the map ``(B, channels, H, W)``, which keeps its shape.
        reduction: how much narrower than the map the hidden layer is.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__(spatial_dims=2, in_channels=channels, r=min(reduction, channels))
