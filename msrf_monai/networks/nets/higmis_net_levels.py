"""The parts of a Hi-gMISnet generator: trunks' maps, levels of encoder and decoder, and the side branch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from msrf_monai.networks.backbones import DenseNet201Taps, VGG16Taps
from msrf_monai.networks.blocks.dual_mode_gate import DualModeAttentionGate
from msrf_monai.networks.blocks.feature_norm import FeatureNorm, conv_norm_relu, feature_norm
from msrf_monai.networks.blocks.haar_dwt import haar_low_pass, haar_sub_bands
from msrf_monai.networks.blocks.multi_res import MultiResBlock, ResPath
from msrf_monai.networks.blocks.partial_decoder import PartialDecoder
from msrf_monai.networks.blocks.receptive_field import ReceptiveFieldBlock
from msrf_monai.networks.blocks.reverse_attention import ReverseAttention
from msrf_monai.networks.blocks.wave_block import WaveBlock

__all__ = ["DecoderLevel", "EncoderLevel", "SideBranch", "Taps", "haar_pyramid"]

_SCALES = 4
_BANDS = 4 * 3
"""Sub-bands of an RGB image."""


def haar_pyramid(image: torch.Tensor) -> list[torch.Tensor]:
    """Return the sub-bands ``(B, 4C, …)`` of an image at 1/2, 1/4 and 1/8 of its size, each level of the LL before."""
    pyramid: list[torch.Tensor] = []
    low_pass = image
    for _ in range(3):
        low_pass, rows, columns, both = haar_sub_bands(low_pass)
        pyramid.append(torch.cat([low_pass, rows, columns, both], dim=1))
    return pyramid


class Taps(nn.Module):
    """The maps of the trunks at 1/2, 1/4, 1/8 and 1/16 of the size: for each, a list with one map a trunk."""

    def __init__(self, vgg: VGG16Taps | None, dense: DenseNet201Taps | None) -> None:
        super().__init__()
        self.vgg = vgg
        self.dense = dense
        trunks = [trunk for trunk in (vgg, dense) if trunk is not None]
        self.channels = [sum(trunk.channels[k] for trunk in trunks) for k in range(_SCALES)]

    def forward(self, image: torch.Tensor) -> list[list[torch.Tensor]]:
        """Run the trunks on ``(B, 3, H, W)``."""
        maps: list[list[torch.Tensor]] = [[], [], [], []]
        if self.vgg is not None:
            for k, tap in enumerate(self.vgg(image)):
                maps[k].append(tap)
        if self.dense is not None:
            for k, tap in enumerate(self.dense(image)):
                maps[k].append(tap)
        return maps


class EncoderLevel(nn.Module):
    """A MultiRes block, wavelet maps prepended to its result, and the path that makes the skip of both.

    Level 0 has nothing prepended, level 1 the image's sub-bands, level k > 1 a ``WaveBlock`` of three maps one scale
    finer: the image's sub-bands, the skip of level k - 1, and the low pass of the skip of level k - 2.
    """

    def __init__(self, level: int, in_channels: int, widths: Sequence[int], steps: int, norm: FeatureNorm) -> None:
        super().__init__()
        self.level = level
        self.convs = MultiResBlock(in_channels, widths[level], norm=norm)
        self.wave: WaveBlock | None = None
        prepended = _BANDS if level == 1 else 0
        if level > 1:
            self.wave = WaveBlock(_BANDS + widths[level - 1] + widths[level - 2], widths[level] // 8, norm=norm)
            prepended = widths[level] // 4
        self.out_channels = prepended + self.convs.out_channels
        self.path = ResPath(self.out_channels, widths[level], steps=steps, norm=norm)

    def forward(
        self, x: torch.Tensor, pyramid: list[torch.Tensor], skips: list[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the level's map, which is pooled for the next, and its skip; ``skips`` are those of finer levels."""
        encoded = self.convs(x)
        if self.wave is not None:
            k = self.level
            finer = torch.cat([pyramid[k - 2], skips[k - 1], haar_low_pass(skips[k - 2])], dim=1)
            encoded = torch.cat([self.wave(finer), encoded], dim=1)
        elif self.level == 1:
            encoded = torch.cat([pyramid[0], encoded], dim=1)
        return encoded, self.path(encoded)


class _Dropout(nn.Module):
    """Dropout of single values that can stay on in evaluation mode."""

    def __init__(self, p: float, always_on: bool) -> None:
        super().__init__()
        self.p = p
        self.always_on = always_on

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x, self.p, self.training or self.always_on)

    def extra_repr(self) -> str:
        return f"p={self.p}, always_on={self.always_on}"


class DecoderLevel(nn.Module):
    """Enlarge the coarser map, gate the skip by it, join and convolve."""

    def __init__(self, low_channels: int, width: int, dropout: float, always_on: bool, norm: FeatureNorm) -> None:
        super().__init__()
        self.signal = conv_norm_relu(low_channels, width, 1, norm=norm)
        self.attend = DualModeAttentionGate(width, norm=norm)
        self.enlarge = nn.Sequential(nn.ConvTranspose2d(low_channels, width, 2, stride=2), feature_norm(norm, width))
        self.dropout: nn.Module = _Dropout(dropout, always_on) if dropout > 0 else nn.Identity()
        self.convs = MultiResBlock(2 * width, width, norm=norm)

    def forward(self, low: torch.Tensor, skip: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the decoded map and the two attention maps, all of the skip's size."""
        gated, alpha, beta = self.attend(skip, self.signal(low))
        enlarged = self.dropout(self.enlarge(low))
        return self.convs(torch.cat([enlarged, gated], dim=1)), alpha, beta


class SideBranch(nn.Module):
    """A coarse prediction of the three coarse skips, refined from coarse to fine by reverse attention."""

    def __init__(self, widths: Sequence[int], channels: int, hidden: int, norm: FeatureNorm) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.field3 = ReceptiveFieldBlock(fine, channels, norm=norm)
        self.field4 = ReceptiveFieldBlock(middle, channels, norm=norm)
        self.field5 = ReceptiveFieldBlock(coarse, channels, norm=norm)
        self.decode = PartialDecoder(channels, norm=norm)
        self.refine5 = ReverseAttention(coarse, 4 * hidden, kernels=(1, 5, 5, 5, 1), norm=norm)
        self.refine4 = ReverseAttention(middle, hidden, kernels=(1, 3, 3, 3), norm=norm)
        self.refine3 = ReverseAttention(fine, hidden, kernels=(1, 3, 3, 3), norm=norm)

    def forward(self, s3: torch.Tensor, s4: torch.Tensor, s5: torch.Tensor) -> torch.Tensor:
        """Return logits ``(B, 1, 4h, 4w)`` of skips of the sizes (h, w), (h/2, w/2) and (h/4, w/4)."""
        coarse = self.decode(self.field3(s3), self.field4(s4), self.field5(s5))  # (B, 1, h, w)
        height, width = s3.shape[2], s3.shape[3]
        m5 = self.refine5(_resize(coarse, height // 4, width // 4), s5)
        m4 = self.refine4(_resize(m5, height // 2, width // 2), s4)
        m3 = self.refine3(_resize(m4, height, width), s3)
        return _resize(m3, 4 * height, 4 * width)


def _resize(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return F.interpolate(x, size=[height, width], mode="bilinear", align_corners=False)
