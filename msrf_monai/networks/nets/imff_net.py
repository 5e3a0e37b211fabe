"""IMFF-Net: a U-Net for retinal vessels with attention-pooling skips and a side pyramid, and its ablations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import nn

from msrf_monai.errors import InputError, check_choice
from msrf_monai.networks.blocks.attention_pooling_fusion import AttentionPoolingForm, AttentionPoolingFusion
from msrf_monai.networks.blocks.convex_sum import FusionWeights
from msrf_monai.networks.blocks.double_conv import DoubleConv
from msrf_monai.networks.blocks.up_down_fusion import UpDownFusion
from msrf_monai.networks.input_check import check_channels
from msrf_monai.networks.padding import Padding, crop_from_multiple, pad_to_multiple

__all__ = ["IMFFNet", "IMFFNetOutput"]


class IMFFNetOutput(NamedTuple):
    """The output of IMFF-Net and what it is mixed from, for ``(B, C, H, W)`` input and K classes.

    Attributes:
        mask: logits of the mask, ``(B, K, H, W)``.
        head: logits of the U-Net alone, ``(B, K, H, W)``.
        side: logits of the side pyramid alone, ``(B, K, H, W)``; None in a network without one.
    """

    mask: torch.Tensor
    head: torch.Tensor
    side: torch.Tensor | None


class _DecoderStage(nn.Module):
    """Enlarge by a 2x2 transposed convolution, join the skip connection after it, convolve."""

    def __init__(self, low_channels: int, channels: int) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(low_channels, channels, kernel_size=2, stride=2)
        self.convs = DoubleConv(2 * channels, channels, nn.BatchNorm2d)

    def forward(self, low: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        decoded: torch.Tensor = self.convs(torch.cat([self.enlarge(low), skip], dim=1))
        return decoded


class IMFFNet(nn.Module):
    """IMFF-Net: U-Net with attention-pooling fusion in a skip connection and up/down-sampling fusion beside it.

    Liu, Wang, Wang, Hu, Wang, Ge, "IMFF-Net: An integrated multi-scale feature fusion network for accurate retinal
    vessel segmentation from fundus images", Biomedical Signal Processing and Control 91 (2024) 105980,
    doi:10.1016/j.bspc.2024.105980. The defaults are the network that the authors' published code describes, with
    34,684,354 parameters and PyTorch's own initialisation.

    Where this class departs from the authors' code: it returns logits (the code applies a sigmoid, which
    ``torch.sigmoid`` of the result gives); sizes that are no multiple of ``2 ** (len(features) - 1)`` are padded after
    the last row and column and cropped again (the code fails; its trainer resizes to 512x512); the attention-pooling
    fusion is computed at low resolution, with the same result (``apf_form="literal"`` is the code's way); a sub-module
    that the code defines and never calls is left out.

    The ablations are options: ``apf_levels=()`` has no attention-pooling fusion, ``apf_levels=(0, 1, 2, 3)`` has it in
    all skips, ``up_down_fusion=False`` leaves out the side pyramid, both together are the plain U-Net, and
    ``fusion_weights`` and ``pool_weights`` make the constants of the sums trainable. Narrow networks for small
    computers take ``features`` divided by 2 (8,677,090 parameters), 4 (2,172,274) or 8 (544,570).

    Args:
        spatial_dims: 2; the network is defined for images only.
        in_channels: channels of the image.
        out_channels: classes K.
        features: channels of each stage, finest first; the last is the bottom. At least two.
        apf_levels: the skip connections with attention-pooling fusion, 0 for the finest.
        up_down_fusion: whether there is a side pyramid.
        fusion_weights: shares 0.3 and 0.7 of the side pyramid's sums: "fixed" as published, or "learnable", one
            parameter a sum, which starts there.
        pool_weights: shares of max and average pooling in the attention-pooling fusion: "fixed" (one half each) as
            published, or "learnable", one parameter a fusion, which starts there.
        reduction: how much narrower the hidden layer of the attention-pooling fusion's gate is.
        apf_form: "low_resolution" or "literal": two ways to compute the same, see ``AttentionPoolingFusion``.
        padding: what sizes that do not fit are filled up with: "edge" repeats the last row and column, "zeros" is
            black.
        dropout: share of values dropped after each pooling, in training mode; none as published. Programs that
            estimate uncertainty by dropout, such as MONAI Label, set it.

    Raises:
        InputError: when an argument is none of the above, or the input has not ``in_channels`` channels.

    Example:
        >>> net = IMFFNet(features=(8, 16, 32, 64, 128)).eval()
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
        features: Sequence[int] = (64, 128, 256, 512, 1024),
        apf_levels: Sequence[int] = (1,),
        up_down_fusion: bool = True,
        fusion_weights: FusionWeights = "fixed",
        pool_weights: FusionWeights = "fixed",
        reduction: int = 4,
        apf_form: AttentionPoolingForm = "low_resolution",
        padding: Padding = "edge",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check(spatial_dims, features, apf_levels, padding, dropout)
        self.in_channels = in_channels
        self.padding: str = padding
        self.multiple = 2 ** (len(features) - 1)
        *encoder, bottom = (DoubleConv(a, b, nn.BatchNorm2d) for a, b in pairwise((in_channels, *features)))
        self.encoder = nn.ModuleList(encoder)
        self.pool: nn.Module = nn.MaxPool2d(2)
        if dropout > 0:
            self.pool = nn.Sequential(self.pool, nn.Dropout(dropout))
        self.skips = nn.ModuleList(
            AttentionPoolingFusion(width, reduction, form=apf_form, pool_weights=pool_weights)
            if level in apf_levels
            else nn.Identity()
            for level, width in enumerate(features[:-1])
        )
        self.bottom = bottom
        self.decoder = nn.ModuleList(  # coarsest first
            _DecoderStage(low, width) for low, width in zip(features[:0:-1], features[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(features[0], out_channels, kernel_size=1)
        self.fusion = UpDownFusion(features, out_channels, weights=fusion_weights) if up_down_fusion else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Segment.

        Args:
            x: float image ``(B, in_channels, H, W)`` in [0, 1], any H and W.

        Returns:
            Logits ``(B, out_channels, H, W)``, in training as in evaluation mode.
        """
        logits, _, _ = self._decode(x)
        return crop_from_multiple(logits, list(x.shape[2:]), self.multiple)

    @torch.jit.unused
    def forward_all(self, x: torch.Tensor) -> IMFFNetOutput:
        """Give the logits and the two that they are mixed from, to watch or to supervise them.

        Args:
            x: as for ``forward``.

        Returns:
            The mask's logits, the U-Net's and the side pyramid's, each of the input's size.
        """
        size = list(x.shape[2:])
        mask, head, side = self._decode(x)
        return IMFFNetOutput(
            crop_from_multiple(mask, size, self.multiple),
            crop_from_multiple(head, size, self.multiple),
            None if side is None else crop_from_multiple(side, size, self.multiple),
        )

    def _decode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Run the network at a padded size: mixed logits, the U-Net's, and the side pyramid's if there is one."""
        if not torch.jit.is_scripting():
            check_channels(x, self.in_channels)
        features = pad_to_multiple(x, self.multiple, self.padding)

        skips: list[torch.Tensor] = []
        pooled: list[torch.Tensor] = []  # features[k] channels at 1 / 2**(k + 1) of the size
        for stage, refine in zip(self.encoder, self.skips, strict=True):
            features = stage(features)
            skips.append(refine(features))
            features = self.pool(features)
            pooled.append(features)

        features = self.bottom(features)
        decoded = [features]  # coarsest first
        for i, stage in enumerate(self.decoder):
            features = stage(features, skips[len(skips) - 1 - i])
            decoded.append(features)

        head: torch.Tensor = self.head(features)
        if self.fusion is None:
            return head, head, None
        logits, side = self.fusion(head, decoded[-2::-1], pooled)
        return logits, head, side


def _check(spatial_dims: int, features: Sequence[int], apf_levels: Sequence[int], padding: str, dropout: float) -> None:
    if spatial_dims != 2:
        raise InputError(f"spatial_dims is {spatial_dims}; IMFF-Net is defined for 2-D images only, use 2")
    if len(features) < 2 or min(features) < 1:
        raise InputError(
            f"features is {tuple(features)}; expected at least two positive numbers, as (64, 128, 256, 512, 1024)"
        )
    finest_to_coarsest = range(len(features) - 1)
    if len(set(apf_levels)) != len(apf_levels) or not set(apf_levels) <= set(finest_to_coarsest):
        raise InputError(
            f"apf_levels is {tuple(apf_levels)}; expected different numbers of skip connections, from 0 for the finest "
            f"to {len(features) - 2} for the coarsest of {len(features)} stages, or none"
        )
    check_choice("padding", padding, Padding)
    if not 0.0 <= dropout < 1.0:
        raise InputError(f"dropout is {dropout}; expected a share of at least 0 and less than 1, such as 0.2")
