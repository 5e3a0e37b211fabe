"""The gate that channel recalibrations share: two dense layers from a channel's description to its weight."""

from __future__ import annotations

import torch
from torch import nn

from msrf_monai.errors import InputError
from msrf_monai.networks.blocks.initialization import glorot_uniform_

__all__ = ["ChannelExcitation", "hidden_channels", "per_channel"]


def hidden_channels(channels: int, reduction: int) -> int:
    """Return the width of a gate's hidden layer, ``channels // reduction``.

    Args:
        channels: channels of the map.
        reduction: how much narrower the hidden layer is.

    Raises:
        InputError: when the hidden layer would have no unit.
    """
    if not 1 <= reduction <= channels:
        raise InputError(
            f"reduction is {reduction} for {channels} channels; expected 1 to {channels}, so that the hidden layer "
            "has at least one unit"
        )
    return channels // reduction


class ChannelExcitation(nn.Module):
    """Turn one number a channel into one weight a channel: dense, ReLU, dense, sigmoid.

    Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, equation 3. Weights start Glorot uniform and biases at 0,
    as in the Keras originals. Under autocast the layers keep their own precision: they cost next to nothing, and a
    description that is a sum over a map exceeds float16.

    Args:
        channels: channels of the map.
        reduction: how much narrower the hidden layer is.

    Raises:
        InputError: when the hidden layer would have no unit.
    """

    def __init__(self, channels: int, reduction: int = 2) -> None:
        super().__init__()
        hidden = hidden_channels(channels, reduction)
        self.fc = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())
        glorot_uniform_(self.fc)

    def forward(self, description: torch.Tensor) -> torch.Tensor:
        """Map ``(B, channels)`` of any values to weights ``(B, channels)`` in [0, 1], of the layers' own type."""
        if not torch.jit.is_scripting():  # noqa: SIM102 (TorchScript leaves out the branch of this condition alone)
            if torch.is_autocast_enabled(description.device.type):
                with torch.autocast(description.device.type, enabled=False):
                    return self._weigh(description.to(next(self.fc.parameters()).dtype))
        return self._weigh(description)

    def _weigh(self, description: torch.Tensor) -> torch.Tensor:
        weights: torch.Tensor = self.fc(description)
        return weights


def per_channel(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """View ``(B, C)`` as ``(B, C, 1, …)``, which broadcasts against the map ``(B, C, *spatial)``."""
    shape: list[int] = [values.shape[0], values.shape[1]] + [1] * (x.dim() - 2)
    return values.reshape(shape)
