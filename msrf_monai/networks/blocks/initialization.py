"""The initialisations of the Keras originals, for networks that are trained from scratch."""

from __future__ import annotations

import math

from torch import nn

__all__ = ["glorot_uniform_", "he_truncated_normal_", "normal_weights_"]

# The standard deviation of a unit normal that is cut at two standard deviations.
_CUT_NORMAL_STD = 0.87962566103423978

_Weighted = nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.Linear


def glorot_uniform_(module: nn.Module) -> None:
    """Set every convolution, transposed convolution and linear layer to Glorot uniform weights and zero biases.

    Args:
        module: the network or block; changed in place. Norm layers keep their weight 1 and bias 0.
    """
    for layer in module.modules():
        if isinstance(layer, _Weighted):
            nn.init.xavier_uniform_(layer.weight)
            _zero_bias_(layer)


def he_truncated_normal_(layer: _Weighted) -> None:
    """Set one layer to Keras' ``he_normal``: a normal cut at two standard deviations whose final std is √(2/fan_in).

    Args:
        layer: the layer; changed in place.
    """
    fan_in = layer.weight[0].numel()
    std = math.sqrt(2.0 / fan_in) / _CUT_NORMAL_STD
    nn.init.trunc_normal_(layer.weight, std=std, a=-2.0 * std, b=2.0 * std)
    _zero_bias_(layer)


def normal_weights_(layer: _Weighted, std: float) -> None:
    """Set one layer's weights to a normal distribution and its bias to zero.

    Args:
        layer: the layer; changed in place.
        std: standard deviation of the weights.
    """
    nn.init.normal_(layer.weight, std=std)
    _zero_bias_(layer)


def _zero_bias_(layer: _Weighted) -> None:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
