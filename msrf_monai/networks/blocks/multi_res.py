"""The two blocks of MultiResUNet: three chained convolutions seen at once, and the path of residual steps for skips."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from msrf_monai.errors import InputError
from msrf_monai.networks.blocks.feature_norm import FeatureNorm, conv_norm, conv_norm_relu, feature_norm
from msrf_monai.networks.blocks.initialization import normal_weights_

__all__ = ["MultiResBlock", "ResPath", "multi_res_channels"]

_STD = 0.02


def multi_res_channels(width: int) -> tuple[int, int, int]:
    """Return the channels of the three chained convolutions of a ``MultiResBlock``, whose sum is its output's.

    Args:
        width: the width U that the block stands for; they are about 1/6, 1/3 and 1/2 of 1.67 U, rounded down.

    Raises:
        InputError: when one of them would be 0.

    Example:
        >>> multi_res_channels(32), sum(multi_res_channels(1024))
        ((8, 17, 26), 1709)
    """
    total = 1.67 * width
    first, second, third = int(total * 0.167), int(total * 0.333), int(total * 0.5)
    if first < 1:
        raise InputError(f"width is {width}; expected at least 4, so that each convolution has a channel")
    return first, second, third


class MultiResBlock(nn.Module):
    """Three 3x3 convolutions in a chain, joined, and a 1x1 convolution beside them.

    Ibtehaz and Rahman, "MultiResUNet: Rethinking the U-Net architecture for multimodal biomedical image segmentation",
    Neural Networks 121 (2020), in the form that Hi-gMISnet's code runs: ``out = N(ReLU(N(shortcut) + N(joined)))``
    where N is a norm. Weights start normal with a standard deviation of 0.02.

    Args:
        in_channels: channels of the input.
        width: see ``multi_res_channels``.
        norm: see ``feature_norm``.

    Raises:
        InputError: when ``width`` is less than 4, or ``norm`` unknown.

    Example:
        >>> block = MultiResBlock(3, width=32)
        >>> tuple(block(torch.rand(1, 3, 10, 15)).shape), block.out_channels
        ((1, 51, 10, 15), 51)
    """

    def __init__(self, in_channels: int, width: int, *, norm: FeatureNorm = "instance") -> None:
        super().__init__()
        first, second, third = multi_res_channels(width)
        self.out_channels = first + second + third
        self.shortcut = conv_norm(in_channels, self.out_channels, 1, norm=norm)
        self.conv3 = conv_norm_relu(in_channels, first, 3, norm=norm)
        self.conv5 = conv_norm_relu(first, second, 3, norm=norm)  # together they see 5x5
        self.conv7 = conv_norm_relu(second, third, 3, norm=norm)
        self.join_norm = feature_norm(norm, self.out_channels)
        self.norm = feature_norm(norm, self.out_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights for the convolutions: normal, with biases of 0."""
        _start_small(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, H, W)``."""
        p = self.conv3(x)
        q = self.conv5(p)
        r = self.conv7(q)
        joined = self.join_norm(torch.cat([p, q, r], dim=1))
        out: torch.Tensor = self.norm(F.relu(self.shortcut(x) + joined))
        return out


class _ResidualStep(nn.Module):
    """A 3x3 convolution with norm and ReLU beside a 1x1 with norm; their sum goes through ReLU and a norm."""

    def __init__(self, in_channels: int, channels: int, norm: FeatureNorm) -> None:
        super().__init__()
        self.shortcut = conv_norm(in_channels, channels, 1, norm=norm)
        self.conv = conv_norm_relu(in_channels, channels, 3, norm=norm)
        self.norm = feature_norm(norm, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.norm(F.relu(self.shortcut(x) + self.conv(x)))
        return out


class ResPath(nn.Sequential):
    """A chain of residual steps that a skip connection goes through, as in MultiResUNet.

    Weights start normal with a standard deviation of 0.02.

    Args:
        in_channels: channels of the encoder's map.
        channels: channels of the skip.
        steps: how many residual steps; at least 1.
        norm: see ``feature_norm``.

    Raises:
        InputError: when ``steps`` is less than 1, or ``norm`` unknown.

    Example:
        >>> tuple(ResPath(51, 32, steps=4)(torch.rand(1, 51, 10, 15)).shape)
        (1, 32, 10, 15)
    """

    def __init__(self, in_channels: int, channels: int, *, steps: int, norm: FeatureNorm = "instance") -> None:
        if steps < 1:
            raise InputError(f"steps is {steps}; expected at least 1 residual step")
        widths = [in_channels] + [channels] * (steps - 1)
        super().__init__(*(_ResidualStep(width, channels, norm) for width in widths))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights for the convolutions: normal, with biases of 0."""
        _start_small(self)


def _start_small(block: nn.Module) -> None:
    for layer in block.modules():
        if isinstance(layer, nn.Conv2d):
            normal_weights_(layer, _STD)
