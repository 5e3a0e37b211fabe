"""MSRF-Net: multi-scale residual fusion for biomedical image segmentation."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from msrf_monai.errors import InputError, check_choice
from msrf_monai.networks.blocks import (
    AttentionGate,
    DualAttention,
    DualScaleDenseFusion,
    EdgeFusion,
    GatedShapeStream,
    SparseUpConv,
    SqueezeExcitation,
    glorot_uniform_,
    he_truncated_normal_,
    keras_batch_norm,
    normal_weights_,
)
from msrf_monai.networks.input_check import check_channels
from msrf_monai.networks.padding import crop_from_multiple, pad_to_multiple

__all__ = ["MSRFNet", "MSRFNetOutput"]

Wiring = Literal["chain10", "head7"]
Profile = Literal["reference", "paper"]
Activation = Literal["sigmoid", "softmax"]

_Maps = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


class MSRFNetOutput(NamedTuple):
    """The four outputs of MSRF-Net for ``(B, C, H, W)`` input and K classes, all at full resolution.

    Attributes:
        mask: logits of the mask, ``(B, K, H, W)``.
        edge: probabilities of the objects' edges in [0, 1], ``(B, 1, H, W)``.
        half: probabilities of the mask predicted at 1/2 resolution and enlarged, ``(B, K, H, W)``.
        quarter: probabilities of the mask predicted at 1/4 resolution and enlarged, ``(B, K, H, W)``.
    """

    mask: torch.Tensor
    edge: torch.Tensor
    half: torch.Tensor
    quarter: torch.Tensor


class _EncoderStage(nn.Module):
    """Two convolutions with ReLU, then the norm (in this order), then squeeze-excitation except at the bottom."""

    def __init__(self, in_channels: int, out_channels: int, *, squeeze: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm = keras_batch_norm(out_channels)
        self.squeeze: nn.Module = SqueezeExcitation(out_channels) if squeeze else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        encoded: torch.Tensor = self.squeeze(self.norm(F.relu(self.conv2(F.relu(self.conv1(x))))))
        return encoded


class _Encoder(nn.Module):
    """Four stages; between them 2x2 max pooling and element-wise dropout, which the fusion does not see."""

    def __init__(self, in_channels: int, channels: tuple[int, int, int, int], dropout: float) -> None:
        super().__init__()
        c1, c2, c3, c4 = channels
        self.stage1 = _EncoderStage(in_channels, c1, squeeze=True)
        self.stage2 = _EncoderStage(c1, c2, squeeze=True)
        self.stage3 = _EncoderStage(c2, c3, squeeze=True)
        self.stage4 = _EncoderStage(c3, c4, squeeze=False)
        self.pool = nn.Sequential(nn.MaxPool2d(2), nn.Dropout(dropout))

    def forward(self, image: torch.Tensor) -> _Maps:
        e1 = self.stage1(image)  # (B, f, H, W)
        e2 = self.stage2(self.pool(e1))  # (B, 2f, H/2, W/2)
        e3 = self.stage3(self.pool(e2))  # (B, 4f, H/4, W/4)
        e4 = self.stage4(self.pool(e3))  # (B, 8f, H/8, W/8)
        return e1, e2, e3, e4


class _OuterFusion(nn.Module):
    """One round of the sub-network: the two finest scales are fused, and the two coarsest."""

    def __init__(self, top: nn.Module, bottom: nn.Module) -> None:
        super().__init__()
        self.top = top
        self.bottom = bottom

    def forward(self, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, d: torch.Tensor) -> _Maps:
        a, b = self.top(a, b)
        c, d = self.bottom(c, d)
        return a, b, c, d


class _MiddleFusion(nn.Module):
    """One round of the sub-network: the two middle scales are fused."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.middle = middle

    def forward(self, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, d: torch.Tensor) -> _Maps:
        b, c = self.middle(b, c)
        return a, b, c, d


class _FusionNetwork(nn.Module):
    """The multi-scale residual fusion sub-network: rounds of DSDF blocks and an outer residual of the same factor."""

    def __init__(
        self, channels: tuple[int, int, int, int], wiring: Wiring, profile: Profile, use_checkpoint: bool
    ) -> None:
        super().__init__()
        self.use_checkpoint = use_checkpoint
        figure = profile == "paper"

        def fuse(level: int) -> DualScaleDenseFusion:
            return DualScaleDenseFusion(
                channels[level],
                channels[level + 1],
                growth=channels[level] // 2,
                low_first_conv=figure,
                exchange_layers=(1, 2, 3, 4) if figure else (0, 1, 3, 4),
            )

        rounds = "OOMOMO" if wiring == "chain10" else "OOMO"
        self.rounds = nn.ModuleList(
            _OuterFusion(fuse(0), fuse(2)) if kind == "O" else _MiddleFusion(fuse(1)) for kind in rounds
        )

    def forward(self, e1: torch.Tensor, e2: torch.Tensor, e3: torch.Tensor, e4: torch.Tensor) -> _Maps:
        a, b, c, d = e1, e2, e3, e4
        for fuse in self.rounds:
            if not torch.jit.is_scripting() and self.use_checkpoint and self.training:
                a, b, c, d = checkpoint(fuse, a, b, c, d, use_reentrant=False)
            else:
                a, b, c, d = fuse(a, b, c, d)
        return e1 + 0.4 * a, e2 + 0.4 * b, e3 + 0.4 * c, e4 + 0.4 * d


class _DecoderStage(nn.Module):
    """Triple attention: gated skip, plain enlargement and dual attention are joined and refined."""

    def __init__(self, skip_channels: int, low_channels: int, profile: Profile) -> None:
        super().__init__()
        c = skip_channels
        self.gate = AttentionGate(c, low_channels)
        if profile == "paper":
            self.up: nn.Module = nn.ConvTranspose2d(low_channels, c, kernel_size=2, stride=2)
        else:
            self.up = SparseUpConv(low_channels, c)  # the authors' checkerboard of features and bare bias
        self.attend = DualAttention(c, low_channels, up_kernel=2 if profile == "paper" else 4)
        self.fuse = nn.Conv2d(3 * c, c, kernel_size=1)
        self.refine = nn.Sequential(
            keras_batch_norm(c),
            nn.ReLU(),
            nn.Conv2d(c, c, 3, padding=1),
            keras_batch_norm(c),
            nn.ReLU(),
            nn.Conv2d(c, c, 3, padding=1),
        )

    def forward(self, skip: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([self.up(low), self.gate(skip, low), self.attend(skip, low)], dim=1)
        fused = self.fuse(joined)
        decoded: torch.Tensor = fused + self.refine(fused)
        return decoded


class _FinalStage(nn.Module):
    """The last decoder step: enlarge, join the finest scale and the edge feature, predict the mask's logits."""

    def __init__(self, channels: int, low_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(low_channels, channels, kernel_size=4, stride=2, padding=1)
        self.fuse = nn.Conv2d(2 * channels, channels, kernel_size=1)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = keras_batch_norm(channels)
        self.refine = nn.Conv2d(channels + 1, channels, 3, padding=1)
        self.head = nn.Conv2d(channels, out_channels, kernel_size=1)

    def forward(self, skip: torch.Tensor, low: torch.Tensor, edge: torch.Tensor) -> torch.Tensor:
        r = F.relu(self.fuse(torch.cat([self.up(low), skip], dim=1)))
        r = r + self.norm(F.relu(self.conv(r)))
        logits: torch.Tensor = self.head(F.relu(self.refine(torch.cat([r, edge], dim=1))))
        return logits


class MSRFNet(nn.Module):
    """MSRF-Net with the image's edge map as one extra input channel.

    A. Srivastava et al., "MSRF-Net: A Multi-Scale Residual Fusion Network for Biomedical Image Segmentation", IEEE
    Journal of Biomedical and Health Informatics 26 (2022), doi:10.1109/JBHI.2021.3138024, arXiv:2105.07451.

    A plain encoder gives maps at 1, 1/2, 1/4 and 1/8 of the size; a sub-network of dual-scale dense fusion blocks
    lets neighbouring scales exchange features at constant resolution; a gated shape stream predicts object edges; a
    decoder with triple attention predicts the mask. Two maps from the decoder's coarser steps are supervised as well.

    Where this class departs from the authors' code: the mask comes as logits (the code applies a sigmoid), the edge
    map is the last channel of the one input tensor (the code has two inputs), and heights and widths that are no
    multiple of 8 are padded by repeating the last row and column and cropped again (the code fails). Everything else
    equals the code; ``profile="paper"`` repairs it towards the paper's figures instead (dense fusion with a
    convolution in the low branch's first layer and layers 1 to 4 exchanged; a shape stream from full resolution with
    three gates that keep their features; 2x2 transposed convolutions). No weights of the authors exist for that.

    Args:
        spatial_dims: 2; the network is defined for images only.
        in_channels: channels of the image, without the edge map.
        out_channels: classes K.
        features: channels of the finest scale; the scales have 1, 2, 4 and 8 times as many. At least 2 and even.
        wiring: ``"chain10"`` runs ten fusion blocks as the paper's figure shows; ``"head7"`` the seven that the
            published ``model.py`` really uses.
        profile: ``"reference"`` (the authors' code) or ``"paper"`` (their figures).
        dropout: probability of the element-wise dropout between encoder stages.
        activation: ``"sigmoid"`` (one class, or several that may overlap) or ``"softmax"`` (exclusive classes) for
            the two auxiliary maps.
        norm_momentum: share of a new batch in the norms' running statistics. The authors' 0.01 needs several hundred
            updates until evaluation mode is right; short schedules want 0.1. Results in training mode are the same.
        use_checkpoint: recompute the fusion blocks in the backward pass, which saves most of the memory.

    Raises:
        InputError: when an argument is none of the above, or the input's channels are not ``in_channels + 1``.

    Example:
        >>> import torch
        >>> net = MSRFNet(features=4).eval()
        >>> tuple(net(torch.rand(1, 4, 40, 52)).shape)
        (1, 1, 40, 52)
        >>> [tuple(map.shape[1:]) for map in net.train()(torch.rand(2, 4, 40, 52))]
        [(1, 40, 52), (1, 40, 52), (1, 40, 52), (1, 40, 52)]
    """

    requires_divisible_by = 1
    """Sizes are padded inside, so a caller may send any height and width."""

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 3,
        out_channels: int = 1,
        features: int = 32,
        wiring: Wiring = "chain10",
        profile: Profile = "reference",
        dropout: float = 0.2,
        activation: Activation = "sigmoid",
        norm_momentum: float = 0.01,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        check_choice("wiring", wiring, Wiring)
        check_choice("profile", profile, Profile)
        check_choice("activation", activation, Activation)
        if spatial_dims != 2:
            raise InputError(f"spatial_dims is {spatial_dims}; MSRF-Net is defined for 2-D images only, use 2")
        if features < 2 or features % 2:
            raise InputError(f"features is {features}; expected an even number of at least 2, such as 32")
        self.in_channels = in_channels
        self.activation: str = activation
        f1, f2, f3, f4 = channels = (features, 2 * features, 4 * features, 8 * features)
        self.encoder = _Encoder(in_channels, channels, dropout)
        self.fusion = _FusionNetwork(channels, wiring, profile, use_checkpoint)
        self.shape_stream = GatedShapeStream(channels, faithful_gates=profile == "paper")
        self.edge_fusion = EdgeFusion()
        self.decoder2 = _DecoderStage(f3, f4, profile)
        self.decoder3 = _DecoderStage(f2, f3, profile)
        self.decoder4 = _FinalStage(f1, f2, out_channels)
        self.quarter_head = nn.Conv2d(f3, out_channels, kernel_size=1)
        self.half_head = nn.Conv2d(f2, out_channels, kernel_size=1)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = norm_momentum
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights as the authors' code does: Glorot uniform; He normal in the encoder and the last step."""
        glorot_uniform_(self)
        for layer in (*self.encoder.modules(), self.decoder4.fuse, self.decoder4.conv, self.decoder4.refine):
            if isinstance(layer, nn.Conv2d):
                he_truncated_normal_(layer)
        for stage in (self.decoder2, self.decoder3):
            normal_weights_(stage.gate.psi, std=0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Segment.

        Args:
            x: float image and edge map, ``(B, in_channels + 1, H, W)``: the image in [0, 1], the edge map in {0, 1}
                as the last channel. Any H and W.

        Returns:
            In evaluation mode the mask's logits ``(B, out_channels, H, W)``; in training mode all four outputs as
            ``MSRFNetOutput`` (except under TorchScript, which knows only the logits).
        """
        if not torch.jit.is_scripting() and self.training:
            # The annotation is evaluation mode's: TorchScript takes one type only.
            return self.forward_all(x)  # type: ignore[return-value]
        logits, _, _, _ = self._decode(x)
        return crop_from_multiple(logits, list(x.shape[2:]), 8)

    @torch.jit.unused
    def forward_all(self, x: torch.Tensor) -> MSRFNetOutput:
        """Give all four outputs, in training as in evaluation mode.

        Args:
            x: as for ``forward``.

        Returns:
            Mask logits, edge probabilities and the two auxiliary probability maps, each of the input's size.
        """
        mask, edge, d3, d2 = self._decode(x)
        half = F.interpolate(self._activate(self.half_head(d3)), scale_factor=2.0, mode="bilinear")
        quarter = F.interpolate(self._activate(self.quarter_head(d2)), scale_factor=4.0, mode="bilinear")
        return MSRFNetOutput(*(crop_from_multiple(map_, list(x.shape[2:]), 8) for map_ in (mask, edge, half, quarter)))

    def _decode(self, x: torch.Tensor) -> _Maps:
        """Run the figure: mask logits and edges at full size (padded), and the decoder's maps at 1/2 and 1/4."""
        if not torch.jit.is_scripting():
            advice = f"{self.in_channels} of the image and its edge map last (the transform EdgeMapd appends it)"
            check_channels(x, self.in_channels + 1, advice=advice)
        padded = pad_to_multiple(x, 8)
        image, edge_map = padded[:, :-1], padded[:, -1:]

        e1, e2, e3, e4 = self.encoder(image)
        n1, n2, n3, n4 = self.fusion(e1, e2, e3, e4)
        edge = self.shape_stream(n1, n2, n3, n4)  # (B, 1, H, W)
        edge_feature = self.edge_fusion(edge, edge_map)  # (B, 1, H, W)
        d2 = self.decoder2(n3, n4)  # (B, 4f, H/4, W/4)
        d3 = self.decoder3(n2, d2)  # (B, 2f, H/2, W/2)
        mask = self.decoder4(n1, d3, edge_feature)  # (B, K, H, W)
        return mask, edge, d3, d2

    def _activate(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(logits) if self.activation == "sigmoid" else torch.softmax(logits, dim=1)
