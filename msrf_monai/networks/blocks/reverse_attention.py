"""Reverse attention: a prediction is refined by what a map holds where the prediction is background."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from msrf_monai.networks.blocks.feature_norm import FeatureNorm, conv_norm_relu

__all__ = ["ReverseAttention"]


class ReverseAttention(nn.Module):
    """Add to logits m what convolutions find in ``(1 - σ(m)) · s``, where s is a map of the same size.

    After Fan et al., "PraNet", MICCAI 2020. In Hi-gMISnet's form every convolution, the last one too, is followed by a
    norm and ReLU, so a refinement can only raise logits. The convolutions have no biases.

    Args:
        in_channels: channels of the map s.
        channels: channels of the hidden layers.
        kernels: kernel sizes of all convolutions, the first one's and the last one's included.
        norm: see ``feature_norm``.

    Raises:
        InputError: when ``norm`` is unknown.

    Example:
        >>> refine = ReverseAttention(16, 8, kernels=(1, 3, 3, 3))
        >>> tuple(refine(torch.zeros(1, 1, 9, 12), torch.rand(1, 16, 9, 12)).shape)
        (1, 1, 9, 12)
    """

    def __init__(
        self, in_channels: int, channels: int, *, kernels: Sequence[int], norm: FeatureNorm = "instance"
    ) -> None:
        super().__init__()
        widths = [in_channels] + [channels] * (len(kernels) - 1) + [1]
        self.convs = nn.Sequential(
            *(
                conv_norm_relu(inputs, outputs, kernel, norm=norm, bias=False)
                for inputs, outputs, kernel in zip(widths[:-1], widths[1:], kernels, strict=True)
            )
        )

    def forward(self, logits: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Refine logits ``(B, 1, H, W)`` by features ``(B, in_channels, H, W)``; returns logits of the same shape."""
        refined: torch.Tensor = logits + self.convs((1.0 - torch.sigmoid(logits)) * features)
        return refined
