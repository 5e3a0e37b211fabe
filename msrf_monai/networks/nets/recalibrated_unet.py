"""U-Net whose encoder features are recalibrated: SSR-U-Net, its relatives, and the plain U-Net they are compared to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from monai.networks.blocks import ChannelSELayer
from monai.networks.layers import Conv, Pool
from monai.networks.layers.utils import get_norm_layer
from torch import nn

from msrf_monai.errors import InputError
from msrf_monai.networks.blocks.double_conv import DoubleConv
from msrf_monai.networks.blocks.frequency_attention import FrequencyChannelAttention
from msrf_monai.networks.blocks.initialization import glorot_uniform_, he_truncated_normal_
from msrf_monai.networks.blocks.keras_norm import keras_batch_norm
from msrf_monai.networks.blocks.multifractal import MultifractalRecalibration
from msrf_monai.networks.blocks.recalibration import (
    SingularityStrengthRecalibration,
    SpatialChannelSqueezeExcitation,
    StyleRecalibration,
)
from msrf_monai.networks.blocks.singularity_strength import NormScope
from msrf_monai.networks.input_check import check_channels
from msrf_monai.networks.padding import crop_from_multiple, pad_to_multiple

__all__ = ["RecalibratedUNet", "Recalibration", "SEUNet", "SSRUNet"]

Recalibration = Literal["cse", "scse", "srm", "fca", "ssr", "multifractal"]


class _EncoderStage(nn.Module):
    """A convolution block and the recalibration of what it found."""

    def __init__(self, convs: nn.Module, recalibrate: nn.Module) -> None:
        super().__init__()
        self.convs = convs
        self.recalibrate = recalibrate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.recalibrate(self.convs(x))
        return features


class _DecoderStage(nn.Module):
    """Enlarge linearly, join the skip connection, convolve."""

    def __init__(self, convs: nn.Module, spatial_dims: int) -> None:
        super().__init__()
        self.mode = "trilinear" if spatial_dims == 3 else "bilinear"
        self.convs = convs

    def forward(self, low: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        enlarged = F.interpolate(low, scale_factor=2.0, mode=self.mode, align_corners=False)
        decoded: torch.Tensor = self.convs(torch.cat([enlarged, skip], dim=1))
        return decoded


class RecalibratedUNet(nn.Module):
    """U-Net with a recalibration block after each encoder stage, before the skip connection and the pooling.

    The network of Martins, Coimbra and Renna, "Singularity Strength Re-calibration of Fully Convolutional Neural
    Networks for Biomedical Image Segmentation", EUSIPCO 2024 (IEEE 10714969), and of its successor Martins et al.,
    "Multifractal Recalibration of Neural Networks for Medical Imaging Segmentation", arXiv:2512.02198. There is no
    recalibration at the bottom and none in the decoder. As published the convolution blocks have no norm, and
    ``norm_scope`` is "batch", which lets one image of a batch change another's result; "sample", the default here, is
    the same for batches of one. The published networks end in a sigmoid; this one returns logits. Sizes that are no
    multiple of ``2 ** (len(features) - 1)`` are padded by repeating the last row and column, and cropped again.

    Args:
        spatial_dims: number of spatial axes, 2 or 3.
        in_channels: channels of the image.
        out_channels: classes.
        features: channels of each stage, finest first; the last is the bottom. At least two.
        recalibration: None (the plain U-Net), "cse" (squeeze and excitation), "scse", "srm", "fca", "ssr",
            "multifractal", or a function from a number of channels to a module that keeps the shape of its input.
        norm: norm in the convolution blocks: None, "batch" (with Keras' constants, as the authors' option), or what
            MONAI's ``get_norm_layer`` takes, such as "instance" or ("group", {"num_groups": 8}).
        norm_scope: "sample" or "batch", for "ssr" and "multifractal".
        reduction: how much narrower the hidden layers of the channel gates are.
        max_scale: number of box sizes (2, 4, … pixels) for "ssr" and "multifractal".
        norm_momentum: share of a new batch in the norms' running statistics. The published 0.01 needs about 450
            updates until evaluation mode is right.
        dropout: share of values dropped after each pooling, in training mode; none as published. Programs that
            estimate uncertainty by dropout, such as MONAI Label, set it.

    Raises:
        InputError: when an argument is none of the above, or the input has not ``in_channels`` channels.

    Example:
        >>> net = RecalibratedUNet(features=(4, 8, 16), recalibration="ssr")
        >>> tuple(net(torch.rand(1, 3, 50, 63)).shape)
        (1, 1, 50, 63)
    """

    requires_divisible_by = 1
    """Sizes are padded inside, so a caller may send any."""

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 3,
        out_channels: int = 1,
        features: Sequence[int] = (32, 64, 128, 256),
        recalibration: Recalibration | Callable[[int], nn.Module] | None = None,
        norm: str | tuple[str, dict[str, Any]] | None = None,
        norm_scope: NormScope = "sample",
        reduction: int = 2,
        max_scale: int = 3,
        norm_momentum: float = 0.01,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check(spatial_dims, features, dropout)
        make = _Factory(spatial_dims, norm, norm_scope, reduction, max_scale, norm_momentum)
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.multiple = 2 ** (len(features) - 1)
        widths = (in_channels, *features)
        # Convolutions first: one seed gives the same ones whatever the recalibrations draw after them.
        *encoder, bottom = (make.convs(a, b) for a, b in pairwise(widths))
        decoder = [make.convs(low + skip, skip) for low, skip in zip(features[:0:-1], features[-2::-1], strict=True)]
        head = Conv["conv", spatial_dims](features[0], out_channels, 1)
        glorot_uniform_(head)
        self.encoder = nn.ModuleList(
            _EncoderStage(convs, make.recalibration(recalibration, width))
            for convs, width in zip(encoder, features[:-1], strict=True)
        )
        self.pool: nn.Module = Pool["max", spatial_dims](2)
        if dropout > 0:
            self.pool = nn.Sequential(self.pool, nn.Dropout(dropout))
        self.bottom = bottom
        self.decoder = nn.ModuleList(_DecoderStage(convs, spatial_dims) for convs in decoder)
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Segment.

        Args:
            x: float image ``(B, in_channels, *spatial)`` in [0, 1], any size.

        Returns:
            Logits ``(B, out_channels, *spatial)``, in training as in evaluation mode.
        """
        if not torch.jit.is_scripting():
            check_channels(x, self.in_channels, spatial_dims=self.spatial_dims)
        features = pad_to_multiple(x, self.multiple)
        skips: list[torch.Tensor] = []
        for stage in self.encoder:
            features = stage(features)
            skips.append(features)
            features = self.pool(features)
        features = self.bottom(features)
        for i, stage in enumerate(self.decoder):
            features = stage(features, skips[len(skips) - 1 - i])
        return crop_from_multiple(self.head(features), list(x.shape[2:]), self.multiple)


class _Factory:
    """Makes the parts of one network, which share these options."""

    def __init__(
        self,
        spatial_dims: int,
        norm: str | tuple[str, dict[str, Any]] | None,
        norm_scope: NormScope,
        reduction: int,
        max_scale: int,
        norm_momentum: float,
    ) -> None:
        self.spatial_dims = spatial_dims
        self.norm_name = norm
        self.norm_scope: NormScope = norm_scope
        self.reduction = reduction
        self.max_scale = max_scale
        self.norm_momentum = norm_momentum

    def norm(self, channels: int) -> nn.Module:
        if self.norm_name is None:
            return nn.Identity()
        if self.norm_name == "batch":
            return keras_batch_norm(channels, spatial_dims=self.spatial_dims, momentum=self.norm_momentum)
        layer: nn.Module = get_norm_layer(self.norm_name, spatial_dims=self.spatial_dims, channels=channels)
        return layer

    def convs(self, in_channels: int, out_channels: int) -> DoubleConv:
        block = DoubleConv(in_channels, out_channels, self.norm, self.spatial_dims)
        for layer in block:
            if isinstance(layer, nn.Conv2d | nn.Conv3d):
                he_truncated_normal_(layer)  # as the authors' code draws them
        return block

    def recalibration(self, kind: str | Callable[[int], nn.Module] | None, channels: int) -> nn.Module:
        if kind is None:
            return nn.Identity()
        if callable(kind):
            return kind(channels)
        options: dict[str, Any] = {"channels": channels, "spatial_dims": self.spatial_dims}
        strength: dict[str, Any] = {
            "max_scale": self.max_scale,
            "norm_scope": self.norm_scope,
            "norm_momentum": self.norm_momentum,
        }
        if kind == "cse":
            layer = ChannelSELayer(self.spatial_dims, channels, r=self.reduction)
            glorot_uniform_(layer.fc)
            return layer
        if kind == "scse":
            return SpatialChannelSqueezeExcitation(**options, reduction=self.reduction)
        if kind == "srm":
            return StyleRecalibration(channels, norm_momentum=self.norm_momentum)
        if kind == "fca":
            return FrequencyChannelAttention(**options, reduction=self.reduction)
        if kind == "ssr":
            return SingularityStrengthRecalibration(**options, **strength, reduction=self.reduction)
        if kind == "multifractal":
            return MultifractalRecalibration(**options, **strength)
        names = ", ".join(map(repr, get_args(Recalibration)))
        raise InputError(f"recalibration is {kind!r}; expected None, {names}, or a function from channels to a module")


def _check(spatial_dims: int, features: Sequence[int], dropout: float) -> None:
    if spatial_dims not in (2, 3):
        raise InputError(f"spatial_dims is {spatial_dims}; expected 2 or 3")
    if len(features) < 2 or min(features) < 1:
        raise InputError(
            f"features is {tuple(features)}; expected at least two positive numbers, as (32, 64, 128, 256)"
        )
    if not 0.0 <= dropout < 1.0:
        raise InputError(f"dropout is {dropout}; expected a share of at least 0 and less than 1, such as 0.2")


class SSRUNet(RecalibratedUNet):
    """``RecalibratedUNet`` with singularity strength recalibration, the network of the EUSIPCO 2024 paper.

    Args:
        spatial_dims: as for ``RecalibratedUNet``, like all others.
        in_channels: channels of the image.
        out_channels: classes.
        features: channels of each stage.
        norm: norm in the convolution blocks.
        norm_scope: "sample", or "batch" as published.
        reduction: how much narrower the gates' hidden layers are.
        max_scale: number of box sizes.
        norm_momentum: share of a new batch in the norms' running statistics.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 3,
        out_channels: int = 1,
        features: Sequence[int] = (32, 64, 128, 256),
        norm: str | tuple[str, dict[str, Any]] | None = None,
        norm_scope: NormScope = "sample",
        reduction: int = 2,
        max_scale: int = 3,
        norm_momentum: float = 0.01,
    ) -> None:
        super().__init__(
            spatial_dims,
            in_channels,
            out_channels,
            features,
            recalibration="ssr",
            norm=norm,
            norm_scope=norm_scope,
            reduction=reduction,
            max_scale=max_scale,
            norm_momentum=norm_momentum,
        )


class SEUNet(RecalibratedUNet):
    """``RecalibratedUNet`` with squeeze and excitation (Hu et al., CVPR 2018) in the same places.

    Args:
        spatial_dims: as for ``RecalibratedUNet``, like all others.
        in_channels: channels of the image.
        out_channels: classes.
        features: channels of each stage.
        norm: norm in the convolution blocks.
        reduction: how much narrower the gates' hidden layers are.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 3,
        out_channels: int = 1,
        features: Sequence[int] = (32, 64, 128, 256),
        norm: str | tuple[str, dict[str, Any]] | None = None,
        reduction: int = 2,
    ) -> None:
        super().__init__(
            spatial_dims, in_channels, out_channels, features, recalibration="cse", norm=norm, reduction=reduction
        )
