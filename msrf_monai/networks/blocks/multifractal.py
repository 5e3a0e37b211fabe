"""Multifractal recalibration: soft level sets of the singularity strength, added to the map."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from msrf_monai.networks.blocks.keras_norm import BiasedBatchNorm
from msrf_monai.networks.blocks.planes import is_exporting, map_planes
from msrf_monai.networks.blocks.singularity_strength import LocalSingularityStrength, NormScope

__all__ = ["MultifractalRecalibration", "SoftLevelSets"]

# Pixels whose memberships are computed at once: in evaluation few enough that all levels stay in a core's cache, in
# training enough to keep the number of pieces low.
_EVAL_PIECE = 1 << 14
_TRAIN_PIECE = 1 << 18


class SoftLevelSets(nn.Module):
    """Sort each exponent softly into levels, norm each level, and sum what is left after a ReLU.

    The membership of level q is ``softmax_q(-relu(width_q) * (alpha - anchor_q)²)``. The norm has one statistic for
    each level over batch, places and channels. Half of the widths start at ReLU's zero and get no gradient there, as
    in the published code.

    A tensor of all memberships is ``levels`` times as large as the map. It is never made: the map is worked through in
    pieces, and training recomputes each piece in the backward pass.

    Args:
        channels: channels of the exponents ``(B, channels, *spatial)``.
        levels: number of levels.
        per_channel: anchors and widths of its own for each channel instead of shared ones.
        norm_momentum: share of a new batch in the norm's running statistics.
    """

    def __init__(self, channels: int, levels: int = 16, per_channel: bool = False, norm_momentum: float = 0.01) -> None:
        super().__init__()
        groups = channels if per_channel else 1
        self.anchors = nn.Parameter(torch.empty(groups, levels))
        self.widths = nn.Parameter(torch.empty(groups, levels))
        self.per_channel = per_channel
        self.norm = BiasedBatchNorm(levels, momentum=norm_momentum)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw anchors and widths anew, uniformly from [-0.05, 0.05], and reset the norm."""
        nn.init.uniform_(self.anchors, -0.05, 0.05)
        nn.init.uniform_(self.widths, -0.05, 0.05)
        self.norm.reset_parameters()

    def forward(self, alpha: torch.Tensor) -> torch.Tensor:
        """Return the sum over levels, not negative, in alpha's shape ``(B, channels, *spatial)``."""
        if not torch.jit.is_scripting():  # noqa: SIM102
            if not is_exporting():
                return self._piece_by_piece(alpha)
        return self._level_by_level(alpha)

    def _level_by_level(self, alpha: torch.Tensor) -> torch.Tensor:
        """Evaluation mode for exported programs: no loop depends on the size, no tensor has all levels."""
        scale, shift = self.norm.affine(self.norm.running_mean, self.norm.running_var)
        shape: list[int] = [self.anchors.shape[0]] + [1] * (alpha.dim() - 2)
        sharpness = torch.relu(self.widths)
        largest = torch.full_like(alpha, float("-inf"))
        total = torch.zeros_like(alpha)
        for q in range(self.anchors.shape[1]):
            logit = -sharpness[:, q].reshape(shape) * (alpha - self.anchors[:, q].reshape(shape)).square()
            higher = torch.maximum(largest, logit)
            total = total * torch.exp(largest - higher) + torch.exp(logit - higher)
            largest = higher
        result = torch.zeros_like(alpha)
        for q in range(self.anchors.shape[1]):
            logit = -sharpness[:, q].reshape(shape) * (alpha - self.anchors[:, q].reshape(shape)).square()
            result = result + torch.relu(torch.exp(logit - largest) / total * scale[q] + shift[q])
        return result

    @torch.jit.unused
    def _piece_by_piece(self, alpha: torch.Tensor) -> torch.Tensor:
        groups = self.anchors.shape[0]
        shared = groups == 1
        rows = alpha.reshape(1, -1) if shared else alpha.transpose(0, 1).reshape(groups, -1)
        pieces = [
            (piece, self.anchors[row].unsqueeze(1), torch.relu(self.widths[row]).unsqueeze(1))
            for row in range(groups)
            for piece in torch.split(rows[row], _TRAIN_PIECE if torch.is_grad_enabled() else _EVAL_PIECE)
        ]
        mean, variance = self.norm.running_mean, self.norm.running_var
        if self.training:
            mean, variance = self._batch_statistics(pieces, rows.numel())
            self.norm.update(mean, variance)
        scale, shift = self.norm.affine(mean, variance)
        level_sum = _level_sum if torch.is_grad_enabled() else _level_sum_in_place
        sums = [_recomputed(level_sum, *piece, scale.unsqueeze(1), shift.unsqueeze(1)) for piece in pieces]
        result = torch.cat(sums)
        if shared:
            return result.reshape(alpha.shape)
        return result.reshape(groups, alpha.shape[0], *alpha.shape[2:]).transpose(0, 1)

    def _batch_statistics(
        self, pieces: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]], count: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and biased variance of each level's membership; sums of pieces are float64."""
        sums = [_recomputed(_level_moments, *piece) for piece in pieces]
        first, second = torch.stack([s.double() for s in sums]).sum(dim=0) / count
        centre = 1.0 / self.anchors.shape[1]
        dtype = self.anchors.dtype
        return (first + centre).to(dtype), (second - first.square()).clamp_min(0.0).to(dtype)


def _level_sum_in_place(
    alpha: torch.Tensor, anchors: torch.Tensor, sharpness: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor
) -> torch.Tensor:
    """Do what ``_level_sum`` does, without gradients, in one buffer: a third of the time on a CPU.

    The division by the sum of the exponentials, which is positive, waits until the levels are summed.
    """
    levels = (alpha - anchors).square_().mul_(-sharpness)
    if bool((sharpness > 0.0).all()):  # otherwise the largest is 0 already
        levels.sub_(levels.amax(dim=0))
    total = levels.exp_().sum(dim=0)
    return levels.mul_(scale).addcmul_(shift, total).clamp_min_(0.0).sum(dim=0).div_(total)


def _memberships(alpha: torch.Tensor, anchors: torch.Tensor, sharpness: torch.Tensor) -> torch.Tensor:
    """Return the memberships of a piece, ``(levels, n)``, for exponents ``(n,)`` and ``(levels, 1)`` parameters."""
    distance = alpha - anchors
    return torch.softmax(distance.square() * -sharpness, dim=0)


def _level_sum(
    alpha: torch.Tensor, anchors: torch.Tensor, sharpness: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor
) -> torch.Tensor:
    return torch.relu(_memberships(alpha, anchors, sharpness) * scale + shift).sum(dim=0)


def _level_moments(alpha: torch.Tensor, anchors: torch.Tensor, sharpness: torch.Tensor) -> torch.Tensor:
    """Return the sums over a piece of the memberships and of their squares, both from their mean 1 / levels."""
    centred = _memberships(alpha, anchors, sharpness) - 1.0 / anchors.shape[0]
    return torch.stack([centred.sum(dim=1), centred.square().sum(dim=1)])


def _recomputed(function: Callable[..., torch.Tensor], *arguments: torch.Tensor) -> torch.Tensor:
    if not torch.is_grad_enabled():
        return function(*arguments)
    result: torch.Tensor = checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
    return result


class MultifractalRecalibration(nn.Module):
    """Add a map of soft level sets of the singularity strength to the features (multifractal recalibration).

    Martins et al., "Multifractal Recalibration of Neural Networks for Medical Imaging Segmentation",
    arXiv:2512.02198. The exponents (with learned weights of the box sizes) are sorted into soft levels, see
    ``SoftLevelSets``; the sigmoid of the levels' sum is added to x, so every value rises by 0.5 to 1. It is a map of
    places added to the features, no gate of channels. The published block takes the range of values over the whole
    batch; that is ``norm_scope="batch"``.

    Args:
        channels: channels of the map ``(B, channels, *spatial)``, which keeps its shape.
        spatial_dims: number of spatial axes, 2 or 3.
        levels: number of levels.
        per_channel: levels of its own for each channel instead of shared ones.
        max_scale: number of box sizes, see ``LocalSingularityStrength``.
        norm_scope: "sample" or "batch", see ``LocalSingularityStrength``.
        normalize_borders: see ``LocalSingularityStrength``.
        norm_momentum: share of a new batch in the norms' running statistics.
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int = 2,
        levels: int = 16,
        per_channel: bool = False,
        max_scale: int = 3,
        norm_scope: NormScope = "sample",
        normalize_borders: bool = False,
        norm_momentum: float = 0.01,
    ) -> None:
        super().__init__()
        self.strength = LocalSingularityStrength(
            channels,
            spatial_dims,
            max_scale,
            norm_scope,
            weighted=True,
            normalize_borders=normalize_borders,
            norm_momentum=norm_momentum,
        )
        self.level_sets = SoftLevelSets(channels, levels, per_channel, norm_momentum)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x raised by 0.5 to 1 at each place and channel."""
        if not torch.jit.is_scripting():  # noqa: SIM102 (see SoftLevelSets.forward)
            if not (self.training or torch.is_grad_enabled() or is_exporting() or self.level_sets.per_channel):
                affine = _evaluation_affine(self.strength.norm, x.dim())
                return x + map_planes(self._rise_of_planes, x, *affine, *self.strength.ranges(x)).to(x.dtype)
        return x + torch.sigmoid(self.level_sets(self.strength(x))).to(x.dtype)

    @torch.jit.unused
    def _rise_of_planes(
        self, planes: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, *ranges: torch.Tensor
    ) -> torch.Tensor:
        alpha = self.strength.exponent_of_planes(planes, *ranges)
        return torch.sigmoid_(self.level_sets(alpha.mul_(scale).add_(shift)))


def _evaluation_affine(norm: nn.BatchNorm2d | nn.BatchNorm3d, dims: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the scale and shift that a batch norm applies in evaluation mode, each ``(1, C, 1, …)``."""
    mean, variance = cast(torch.Tensor, norm.running_mean), cast(torch.Tensor, norm.running_var)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    shape = [1, -1] + [1] * (dims - 2)
    return scale.reshape(shape), (norm.bias - mean * scale).reshape(shape)
