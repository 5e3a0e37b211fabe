"""Norms by the statistics of the map itself, and convolutions with such a norm: what Hi-gMISnet is built from."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from msrf_monai.errors import check_choice
from msrf_monai.networks.blocks.keras_norm import keras_batch_norm

__all__ = ["FeatureNorm", "ImageNorm", "LiveBatchNorm", "conv_norm", "conv_norm_relu", "feature_norm"]

FeatureNorm = Literal["instance", "batch_always", "batch"]
"""Which statistics a norm takes: of each image, of the batch even in evaluation mode, or running ones of batches."""

_EPS = 1e-3


class ImageNorm(nn.InstanceNorm2d):
    """Instance norm with weight and bias whose result for a map of one cell is the bias; PyTorch's own refuses one.

    It is computed as a group norm with one channel a group, which is the same: on a CPU PyTorch's group norm took a
    third to an eighth of the time, keeps the channels-last layout, and is a single operation in exported programs. Only
    ONNX programs have it written out, with means over columns, then a sum over rows: ONNX Runtime adds up a whole map
    one value after the other, as OpenVINO does too once it has merged two means into one, and what that loses grows a
    hundredfold through a deep network.

    Args:
        channels: channels to normalise.
        eps: added to the variance; 1e-3 is Keras'.
    """

    def __init__(self, channels: int, eps: float = _EPS) -> None:
        super().__init__(channels, eps=eps, affine=True)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Norm ``(B, C, H, W)`` by the mean and variance of each image and channel."""
        if not torch.jit.is_scripting():  # noqa: SIM102 (TorchScript leaves out the branch of this condition alone)
            if torch.onnx.is_in_onnx_export():
                return self._in_two_steps(input)
        return torch.group_norm(input, self.num_features, self.weight, self.bias, self.eps)

    @torch.jit.unused
    def _in_two_steps(self, input: torch.Tensor) -> torch.Tensor:
        centred = input - _mean(input)
        scaled = centred * torch.rsqrt(_mean(centred * centred) + self.eps)
        return scaled * self.weight[:, None, None] + self.bias[:, None, None]


def _mean(x: torch.Tensor) -> torch.Tensor:
    return x.mean(dim=3, keepdim=True).sum(dim=2, keepdim=True) / x.shape[2]


class LiveBatchNorm(nn.Module):
    """Batch norm by the statistics of the batch at hand, in evaluation mode too: one image changes another's result.

    It is no ``nn.BatchNorm2d``, whose running statistics other code may fold into convolutions: it has none.

    Args:
        channels: channels to normalise.
        eps: added to the variance; 1e-3 is Keras'.
    """

    def __init__(self, channels: int, eps: float = _EPS) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Norm ``(B, C, H, W)`` by the mean and variance of each channel over the batch."""
        return torch.batch_norm(input, self.weight, self.bias, None, None, True, 0.0, self.eps, True)


def feature_norm(kind: FeatureNorm, channels: int) -> nn.Module:
    """Make a norm with Keras' eps, 1e-3, weight 1 and bias 0.

    Args:
        kind: "instance" (statistics of each image: a batch changes nothing), "batch_always" (of the batch at hand, in
            training and in evaluation; the same as "instance" for batches of one), or "batch" (running statistics in
            evaluation, momentum as Keras).
        channels: channels to normalise.

    Returns:
        The layer for ``(B, channels, H, W)``.

    Raises:
        InputError: when ``kind`` is none of the above.
    """
    check_choice("norm", kind, FeatureNorm)
    if kind == "instance":
        return ImageNorm(channels)
    if kind == "batch_always":
        return LiveBatchNorm(channels)
    return keras_batch_norm(channels, eps=_EPS)


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int],
    *,
    norm: FeatureNorm,
    bias: bool = True,
    dilation: int = 1,
) -> nn.Sequential:
    """Make a convolution that keeps the size, and a norm.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the result.
        kernel_size: odd size of the kernel, or its two sizes (rows, columns).
        norm: see ``feature_norm``.
        bias: whether the convolution has one.
        dilation: distance of the kernel's taps.

    Returns:
        The two layers.
    """
    rows, columns = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    padding = (dilation * (rows // 2), dilation * (columns // 2))
    conv = nn.Conv2d(in_channels, out_channels, (rows, columns), padding=padding, dilation=dilation, bias=bias)
    return nn.Sequential(conv, feature_norm(norm, out_channels))


def conv_norm_relu(
    in_channels: int, out_channels: int, kernel_size: int | tuple[int, int], **options: Any
) -> nn.Sequential:
    """Make a convolution that keeps the size, a norm, and ReLU; options as for ``conv_norm``."""
    return conv_norm(in_channels, out_channels, kernel_size, **options).append(nn.ReLU(inplace=True))
