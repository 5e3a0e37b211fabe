"""The thin stream that predicts object edges from the coarser scales."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from msrf_monai.networks.blocks.keras_norm import keras_batch_norm

__all__ = ["EdgeFusion", "GatedShapeStream"]

_WIDTHS = (32, 16, 8, 4)


class _GateMap(nn.Module):
    """Norm, 1x1 convolution, ReLU, 1x1 convolution, norm, sigmoid: a one-channel map of a stream and a side input."""

    foldable = (("conv2", "norm_out"),)

    def __init__(self, in_channels: int, mid_channels: int) -> None:
        super().__init__()
        self.norm_in = keras_batch_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, mid_channels, kernel_size=1)
        self.conv2 = nn.Conv2d(mid_channels, 1, kernel_size=1)
        self.norm_out = keras_batch_norm(1)

    def forward(self, stream: torch.Tensor, side: torch.Tensor) -> torch.Tensor:
        z = self.norm_in(torch.cat([stream, side], dim=1))
        return torch.sigmoid(self.norm_out(self.conv2(F.relu(self.conv1(z)))))


class _GatedConv(nn.Module):
    """Gated convolution of Gated-SCNN: the map weighs the stream, and a 1x1 convolution follows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = _GateMap(channels + 1, channels + 1)
        self.conv = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, stream: torch.Tensor, side: torch.Tensor) -> torch.Tensor:
        gated: torch.Tensor = self.conv(stream * (1.0 + self.gate(stream, side)))
        return gated


class _OneConvResidual(nn.Module):
    """One convolution and a residual; a one-channel input is added to every output channel, as in the original."""

    foldable = (("conv", "norm"),)

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.norm = keras_batch_norm(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.norm(self.conv(x)) + x)


class _TwoConvResidual(nn.Module):
    """The usual residual block of two convolutions."""

    foldable = (("conv1", "norm1"), ("conv2", "norm2"))

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.norm1 = keras_batch_norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.norm2 = keras_batch_norm(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))) + x)


def _enlarge(x: torch.Tensor, scale: int) -> torch.Tensor:
    return F.interpolate(x, scale_factor=float(scale), mode="bilinear", align_corners=False)


class _Stage(nn.Module):
    """Residual block, reduction, then a gate that sees one channel of a coarser map."""

    def __init__(self, residual: nn.Module, reduction: nn.Module, gate: nn.Module, side: nn.Module, scale: int) -> None:
        super().__init__()
        self.residual = residual
        self.reduction = reduction
        self.gate = gate
        self.side = side
        self.scale = scale

    def forward(self, stream: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        gated: torch.Tensor = self.gate(self.reduction(self.residual(stream)), _enlarge(self.side(coarse), self.scale))
        return gated


class GatedShapeStream(nn.Module):
    """Predict the edges of the objects from the fused maps, at full resolution.

    MSRF-Net, Srivastava et al., IEEE JBHI 2022, after Takikawa et al., "Gated-SCNN", ICCV 2019. Two forms:

    * ``faithful_gates=False`` (the authors' code): the stream starts from the 1/2 scale; each of its two gates passes
      on only the one-channel sigmoid map; a residual block is one convolution and broadcasts that map.
    * ``faithful_gates=True`` (the paper's figure and Gated-SCNN): the stream starts from the full scale; three gates
      weigh the stream's features; residual blocks have two convolutions.

    The widths 32, 16, 8 and 4 are fixed in both.

    Args:
        features: channels of the four maps, from full to 1/8 resolution.
        faithful_gates: which of the two forms.
    """

    def __init__(self, features: tuple[int, int, int, int], *, faithful_gates: bool = False) -> None:
        super().__init__()
        w1, w2, w3, w4 = _WIDTHS
        start = 0 if faithful_gates else 1
        self.start_scale = 2**start
        self.inlet = nn.Conv2d(features[start], w1, kernel_size=1)
        stages: list[tuple[nn.Module, int, int, nn.Module]]
        if faithful_gates:
            stages = [
                (_TwoConvResidual(wide), wide, narrow, _GatedConv(narrow))
                for wide, narrow in ((w1, w2), (w2, w3), (w3, w4))
            ]
            self.last_residual: nn.Module = nn.Identity()
            self.last_reduction: nn.Module = nn.Identity()
        else:
            stages = [
                (_OneConvResidual(before, wide), wide, narrow, _GateMap(narrow + 1, 2 * narrow + 1))
                for before, wide, narrow in ((w1, w1, w2), (1, w2, w3))
            ]
            self.last_residual = _OneConvResidual(1, w3)
            self.last_reduction = nn.Conv2d(w3, w4, kernel_size=1)
        self.stages = nn.ModuleList()
        for level, (residual, wide, narrow, gate) in enumerate(stages, start=start + 1):
            reduction = nn.Conv2d(wide, narrow, kernel_size=1)
            side = nn.Conv2d(features[level], 1, kernel_size=1)
            self.stages.append(_Stage(residual, reduction, gate, side, 2**level))
        self.head = nn.Conv2d(w4, 1, kernel_size=1)

    def forward(self, n1: torch.Tensor, n2: torch.Tensor, n3: torch.Tensor, n4: torch.Tensor) -> torch.Tensor:
        """Predict edges.

        Args:
            n1: ``(B, features[0], H, W)``; used only with ``faithful_gates=True``.
            n2: ``(B, features[1], H/2, W/2)``.
            n3: ``(B, features[2], H/4, W/4)``.
            n4: ``(B, features[3], H/8, W/8)``.

        Returns:
            Edge probabilities in [0, 1], ``(B, 1, H, W)``.
        """
        if self.start_scale == 1:
            stream = self.inlet(n1)
            side_maps = [n2, n3, n4]
        else:
            stream = _enlarge(self.inlet(n2), self.start_scale)
            side_maps = [n3, n4]
        for k, stage in enumerate(self.stages):
            stream = stage(stream, side_maps[k])
        return torch.sigmoid(self.head(self.last_reduction(self.last_residual(stream))))


class EdgeFusion(nn.Module):
    """Join the predicted edges and the image's own edge map into one feature: ReLU(BN(conv(sigmoid(conv(·))))).

    It ends in a ReLU, so with unlucky weights it is zero everywhere and the edge map has no influence at all.
    """

    foldable = (("conv", "norm"),)

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2, 1, kernel_size=1)
        self.conv = nn.Conv2d(1, 1, kernel_size=1)
        self.norm = keras_batch_norm(1)

    def forward(self, predicted: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
        """Fuse.

        Args:
            predicted: edge probabilities of the shape stream, ``(B, 1, H, W)``.
            observed: edge map of the image in {0, 1}, ``(B, 1, H, W)``.

        Returns:
            ``(B, 1, H, W)``, not negative.
        """
        mixed = torch.sigmoid(self.mix(torch.cat([predicted, observed], dim=1)))
        return F.relu(self.norm(self.conv(mixed)))
