"""Up/down-sampling feature fusion: a linear pyramid beside a U-Net that carries every scale to the output."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from msrf_monai.errors import InputError
from msrf_monai.networks.blocks.convex_sum import ConvexSum, FusionWeights

__all__ = ["UpDownFusion"]


class _Rise(nn.Module):
    """One step up: enlarge the coarser sum and mix it with the sum at this scale."""

    def __init__(self, finer: int, here: int, below: int, share_from_below: float, weights: FusionWeights) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(below, here, kernel_size=2, stride=2)
        self.project = nn.Conv2d(finer, here, kernel_size=1)
        self.mix = ConvexSum(share_from_below, weights)

    def forward(self, below: torch.Tensor, decoded: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        mixed: torch.Tensor = self.mix(self.enlarge(below), decoded + self.project(pooled))
        return mixed


class UpDownFusion(nn.Module):
    """Up/down-sampling feature fusion block (UDFF) of IMFF-Net: a second way from every scale to the logits.

    Liu et al., "IMFF-Net: An integrated multi-scale feature fusion network for accurate retinal vessel segmentation
    from fundus images", Biomedical Signal Processing and Control 91 (2024) 105980, doi:10.1016/j.bspc.2024.105980, as
    its published code runs it. At each scale below the finest, the pooled encoder map is projected (1x1) and added to
    the decoder's map of the same size; from the coarsest up, the sum is enlarged by a 2x2 transposed convolution and
    mixed with the sum one scale finer, 0.3 to 0.7. The last enlargement gives the side logits, which are mixed with the
    U-Net's own in the same shares. There is no norm and no activation, so the block is linear in its inputs, and
    ``inference_form`` gives the same with a tenth of the multiplications.

    Args:
        features: channels of the U-Net's stages, finest first; the last is the bottom. At least two.
        out_channels: classes K.
        share_from_below: share of the coarser scale in each sum; the published 0.3.
        weights: "fixed", or "learnable": one parameter for each of the ``len(features) - 1`` sums, which starts at
            that share.

    Raises:
        InputError: when an argument is none of the above.

    Example:
        >>> block = UpDownFusion(features=(4, 8, 16))
        >>> decoded = [torch.rand(1, 8, 12, 20), torch.rand(1, 16, 6, 10)]
        >>> pooled = [torch.rand(1, 4, 12, 20), torch.rand(1, 8, 6, 10)]
        >>> logits, side = block(torch.rand(1, 1, 24, 40), decoded, pooled)
        >>> tuple(logits.shape), tuple(side.shape)
        ((1, 1, 24, 40), (1, 1, 24, 40))
    """

    def __init__(
        self,
        features: Sequence[int],
        out_channels: int = 1,
        *,
        share_from_below: float = 0.3,
        weights: FusionWeights = "fixed",
    ) -> None:
        super().__init__()
        if len(features) < 2 or min(features) < 1:
            raise InputError(
                f"features is {tuple(features)}; expected at least two positive numbers, as (64, 128, 256)"
            )
        self.bottom_project = nn.Conv2d(features[-2], features[-1], kernel_size=1)
        triples = zip(features[-3::-1], features[-2:0:-1], features[:1:-1], strict=True)
        self.rises = nn.ModuleList(_Rise(*triple, share_from_below, weights) for triple in triples)  # coarsest first
        self.last_enlarge = nn.ConvTranspose2d(features[1], out_channels, kernel_size=2, stride=2)
        self.mix = ConvexSum(share_from_below, weights)

    def forward(
        self, head: torch.Tensor, decoded: list[torch.Tensor], pooled: list[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix the U-Net's logits with those of the side pyramid.

        Args:
            head: the U-Net's logits, ``(B, K, H, W)``, H and W multiples of ``2 ** (len(features) - 1)``.
            decoded: the decoder's maps at 1/2, 1/4, … of the size, the bottom last: the k-th (from 1) is
                ``(B, features[k], H / 2**k, W / 2**k)``.
            pooled: the pooled encoder maps of the same sizes with the finer stage's channels: the k-th is
                ``(B, features[k - 1], H / 2**k, W / 2**k)``.

        Returns:
            The mixed logits and the side pyramid's own, each ``(B, K, H, W)``.
        """
        total = decoded[-1] + self.bottom_project(pooled[-1])
        for i, rise in enumerate(self.rises):
            k = len(decoded) - 2 - i
            total = rise(total, decoded[k], pooled[k])  # (B, features[k + 1], H / 2**(k + 1), W / 2**(k + 1))
        side = self.last_enlarge(total)
        return self.mix(side, head), side

    @torch.jit.unused
    def inference_form(self) -> nn.Module:
        """Return a module for evaluation only that reads every map straight to the pixels of the side logits.

        It shares no weights with this block, and its results differ from this block's by rounding only.
        """
        return _DirectFusion(self)


class _DirectFusion(nn.Module):
    """The block as a sum of 1x1 convolutions, one a map, whose channels are the 4**k pixels of a cell of that map.

    Transposed convolutions whose kernel equals their stride do not overlap, so a chain of them is one with a larger
    kernel; applied to a map that is a product of channels, i.e. a 1x1 convolution and a rearrangement.
    """

    def __init__(self, block: UpDownFusion) -> None:
        super().__init__()
        exact = copy.deepcopy(block).double().requires_grad_(False)
        rises = [rise for rise in exact.rises if isinstance(rise, _Rise)][::-1]  # finest first

        # How a value at each scale spreads over its cell: (channels of the scale, K, side of the cell, side).
        kernels: list[torch.Tensor] = []
        carried = exact.last_enlarge.weight
        for rise in rises:
            share = rise.mix.share()
            kernels.append((1.0 - share) * carried)
            carried = F.conv_transpose2d(rise.enlarge.weight, share * carried, stride=carried.shape[-1])
        kernels.append(carried)

        projects = [*(rise.project for rise in rises), exact.bottom_project]
        biases = [None] * len(rises) + [_answer_to_zeros(exact, projects).flatten()]
        dtype = block.last_enlarge.weight.dtype
        self.from_decoded, self.from_pooled = nn.ModuleList(), nn.ModuleList()
        for kernel, project, bias in zip(kernels, projects, biases, strict=True):
            read = kernel.flatten(1).T  # (K * pixels of the cell, channels of the scale)
            self.from_decoded.append(_pointwise(read, None, dtype))
            self.from_pooled.append(_pointwise(read @ project.weight.flatten(1), bias, dtype))
        self.mix = copy.deepcopy(block.mix)

    def forward(
        self, head: torch.Tensor, decoded: list[torch.Tensor], pooled: list[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        side = torch.zeros_like(head)
        for k, (from_decoded, from_pooled) in enumerate(zip(self.from_decoded, self.from_pooled, strict=True)):
            cells = from_decoded(decoded[k]) + from_pooled(pooled[k])  # (B, K * 4**(k + 1), H / 2**(k + 1), …)
            side = side + F.pixel_shuffle(cells, 2 << k)  # 2**(k + 1), which TorchScript takes for a float
        return self.mix(side, head), side


def _pointwise(weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> nn.Conv2d:
    """Make a 1x1 convolution of a matrix (channels out, channels in)."""
    channels_out, channels_in = weight.shape
    conv = nn.Conv2d(channels_in, channels_out, 1, bias=bias is not None, device=weight.device, dtype=dtype)
    tensors = {"weight": weight[:, :, None, None]}
    conv.load_state_dict(tensors if bias is None else {**tensors, "bias": bias})
    return conv


def _answer_to_zeros(block: UpDownFusion, projects: list[nn.Conv2d]) -> torch.Tensor:
    """Return the side logits of maps of zeros, which is what the biases add to each cell of the coarsest scale."""
    weight = block.last_enlarge.weight
    sides = [2 ** (len(projects) - k) for k in range(len(projects) + 1)]
    head = weight.new_zeros(1, weight.shape[1], sides[0], sides[0])
    decoded = [weight.new_zeros(1, p.out_channels, s, s) for p, s in zip(projects, sides[1:], strict=True)]
    pooled = [weight.new_zeros(1, p.in_channels, s, s) for p, s in zip(projects, sides[1:], strict=True)]
    _, side = block(head, decoded, pooled)
    pattern: torch.Tensor = side[0]  # (K, side of the coarsest cell, side)
    return pattern
