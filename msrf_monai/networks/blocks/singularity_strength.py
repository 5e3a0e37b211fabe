"""Local singularity strength: how fast a feature map's mass grows around each pixel."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from msrf_monai.errors import InputError, check_choice
from msrf_monai.networks.blocks.keras_norm import keras_batch_norm
from msrf_monai.networks.blocks.planes import is_exporting, map_planes

__all__ = ["LocalSingularityStrength", "NormScope", "box_sums", "rescale_range", "singularity_exponent"]

NormScope = Literal["sample", "batch", "none"]


def rescale_range(x: torch.Tensor, scope: str = "sample") -> torch.Tensor:
    """Stretch every channel to [1, 256], so that it can be read as a positive density.

    A constant channel becomes 1. Gradients flow through minimum and maximum and are shared by equal pixels.

    Args:
        x: float map ``(B, C, *spatial)``, any values.
        scope: "sample" takes minimum and maximum of each image alone, "batch" those of the whole batch, which lets
            images change each other's result, "none" returns x.

    Returns:
        The stretched map.
    """
    if scope == "none":
        return x
    low, gain = _low_and_gain(x, scope)
    return (x - low) * gain + 1.0


def _low_and_gain(x: torch.Tensor, scope: str) -> tuple[torch.Tensor, torch.Tensor]:
    dims = list(range(2, x.dim()))
    if scope == "batch":
        dims.append(0)
    low = _at_least_float32(torch.amin(x, dim=dims, keepdim=True))
    high = _at_least_float32(torch.amax(x, dim=dims, keepdim=True))
    return low, 255.0 / torch.clamp(high - low, 1e-7, 1e9)


def box_sums(x: torch.Tensor, max_scale: int) -> list[torch.Tensor]:
    """Sum a map in boxes of 2, 4, …, ``2 ** max_scale`` pixels around each pixel; outside the map it is zero.

    The box of k pixels reaches from ``-(k/2 - 1)`` to ``+k/2`` on every axis, so all boxes share the centre (p + 0.5).
    A box twice as large is the sum of shifted boxes, which makes this exact and fast, and keeps it in x's dtype under
    autocast.

    Args:
        x: map ``(B, C, *spatial)`` with any number of spatial axes and any size.
        max_scale: largest box as a power of 2.

    Returns:
        One map of x's size for each box, smallest box first.
    """
    if not torch.jit.is_scripting():  # noqa: SIM102 (TorchScript leaves out a branch only for this condition alone)
        if x.requires_grad and not is_exporting():
            return list(_BoxSums.apply(x, max_scale))  # type: ignore[no-untyped-call]
    return _doubled_sums(x, max_scale)


def _doubled_sums(x: torch.Tensor, max_scale: int) -> list[torch.Tensor]:
    largest = 1 << max_scale
    return _sums_inside(F.pad(x, [largest // 2 - 1, largest // 2] * (x.dim() - 2)), max_scale)


def _sums_inside(padded: torch.Tensor, max_scale: int) -> list[torch.Tensor]:
    """Return the box sums of a map with K/2 - 1 zeros before it and K/2 after it on every axis, K = 2 ** max_scale."""
    largest = 1 << max_scale
    sums = padded
    boxes: list[torch.Tensor] = []
    for scale in range(max_scale):
        shift = 1 << scale
        for axis in range(2, padded.dim()):
            length = sums.shape[axis] - shift
            sums = sums.narrow(axis, 0, length) + sums.narrow(axis, shift, length)
        box = sums
        for axis in range(2, padded.dim()):
            box = box.narrow(axis, largest // 2 - shift, padded.shape[axis] - largest + 1)
        boxes.append(box)
    return boxes


class _BoxSums(torch.autograd.Function):
    """``box_sums`` with a backward pass that is a box sum too; PyTorch's own fills a map of zeros for each shift."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, max_scale: int) -> tuple[torch.Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(_doubled_sums(x, max_scale))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, None]:
        """Sum the gradients in mirrored boxes: largest first, and each smaller box joins where its size is reached."""
        total: torch.Tensor | None = None
        for scale in range(len(gradients) - 1, -1, -1):
            gradient, shift = gradients[scale], 1 << scale
            if gradient is not None:
                padded = F.pad(gradient, [shift, shift - 1] * (gradient.dim() - 2))
                total = padded if total is None else total + padded
            if total is None:
                continue
            for axis in range(2, total.dim()):
                length = total.shape[axis] - shift
                total = total.narrow(axis, 0, length) + total.narrow(axis, shift, length)
        return total, None


def singularity_exponent(
    x: torch.Tensor,
    max_scale: int = 3,
    norm_scope: str = "sample",
    normalize_borders: bool = False,
    scale_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Estimate the singularity strength (Hölder exponent of a measure) at each pixel by box counting.

    The map is taken as a density; the exponent is the slope of the line through log(mass of a box) over log(size of
    the box). Where the density is smooth it is the number of spatial axes, at a peak it is less. By least squares and
    with three boxes the middle one has no weight: the exponent is half of log2 of the mass in 8 pixels over that in 2.

    Args:
        x: float map ``(B, C, *spatial)``; float16 and bfloat16 are computed in float32.
        max_scale: number of boxes (2, 4, …, ``2 ** max_scale`` pixels), at least 2.
        norm_scope: how ``rescale_range`` stretches x; with "none" x is the density itself and not negative.
        normalize_borders: make up for the part of a box that lies outside the map. The published layer does not, so
            its exponents fall towards the border.
        scale_weights: ``(max_scale,)``, positive; the published weighted slope, whose means are not weighted. None
            gives least squares.

    Returns:
        Exponents of x's shape, float32 or float64, finite.

    Raises:
        InputError: when ``max_scale`` is below 2: one box has no slope.
    """
    if not torch.jit.is_scripting():
        _check_max_scale(max_scale)
    values = _at_least_float32(x)
    if norm_scope == "none":
        return _slope(torch.relu(values), max_scale, normalize_borders, scale_weights, 1e-7)
    return _slope(rescale_range(values, norm_scope), max_scale, normalize_borders, scale_weights, 0.0)


def _slope(
    density: torch.Tensor,
    max_scale: int,
    normalize_borders: bool,
    scale_weights: torch.Tensor | None,
    offset: float,
) -> torch.Tensor:
    """Return the exponents of a density of at least 0; ``offset`` keeps empty boxes away from log(0)."""
    boxes = box_sums(density, max_scale)
    if offset > 0.0:
        boxes = [box + offset for box in boxes]
    if normalize_borders:
        parts = box_sums(torch.ones_like(density[:1, :1]), max_scale)
        whole = [float(2 << j) ** (density.dim() - 2) for j in range(max_scale)]
        boxes = [boxes[j] * (whole[j] / parts[j]) for j in range(max_scale)]
    if scale_weights is not None:
        return _weighted_slope(boxes, scale_weights)
    # The boxes are equally spaced on the logarithmic axis: the j-th smallest and the j-th largest box have equal and
    # opposite weights in the slope.
    centre = (max_scale - 1) / 2
    total = max_scale * (max_scale * max_scale - 1) / 12  # sum of (j - centre)²
    exponent = centre / total * torch.log2(boxes[max_scale - 1] / boxes[0])
    for j in range(1, max_scale // 2):
        exponent = exponent + (centre - j) / total * torch.log2(boxes[max_scale - 1 - j] / boxes[j])
    return exponent


def _mean_exponent(planes: torch.Tensor, max_scale: int, low: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """Return the exponents' means over space, ``(B, C)``, without gradients and without making the exponents.

    The mean of logarithms is the logarithm of a product: four masses, each at least 1 and far from float32's limit, are
    multiplied before the logarithm, the slowest step, is taken. The density is made inside its border of zeros.
    """
    before, after = (1 << max_scale) // 2 - 1, (1 << max_scale) // 2
    values = _at_least_float32(planes)
    density = values.new_zeros(*values.shape[:2], *(size + before + after for size in values.shape[2:]))
    inside = density
    for axis in range(2, values.dim()):
        inside = inside.narrow(axis, before, values.shape[axis])
    torch.sub(values, low, out=inside)
    inside.mul_(gain).add_(1.0)
    boxes = _sums_inside(density, max_scale)
    centre = (max_scale - 1) / 2
    total = max_scale * (max_scale * max_scale - 1) / 12
    mean = planes.new_zeros(planes.shape[:2], dtype=values.dtype)
    for j in range(max_scale // 2):
        mean += (centre - j) / total * _mean_log2_ratio(boxes[max_scale - 1 - j], boxes[j])
    return mean


def _mean_log2_ratio(upper: torch.Tensor, lower: torch.Tensor) -> torch.Tensor:
    """Return the mean over space of log2(upper / lower) for values in [1, 2 ** 30], ``(B, C)``."""
    rows = upper.shape[2] // 4
    count = upper.shape[2:].numel()

    def products(box: torch.Tensor) -> torch.Tensor:
        first, second, third, fourth = torch.split(box[:, :, : 4 * rows], rows, dim=2)
        return (first * second) * (third * fourth)

    result = torch.log2(products(upper) / products(lower)).flatten(2).sum(dim=2) if rows else 0.0
    rest = torch.log2(upper[:, :, 4 * rows :] / lower[:, :, 4 * rows :]).flatten(2).sum(dim=2)
    return (result + rest) / count


def _weighted_slope(boxes: list[torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
    count = len(boxes)
    centred = torch.arange(count, device=weights.device, dtype=weights.dtype) - (count - 1) / 2
    pull = weights * centred
    coefficients = (pull - pull.mean()) / (pull * centred).sum()  # the mean comes from the unweighted mean log mass
    slope = coefficients[0] * torch.log2(boxes[0])
    for j in range(1, count):
        slope = slope + coefficients[j] * torch.log2(boxes[j])
    return slope


def _at_least_float32(x: torch.Tensor) -> torch.Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _update_running(
    norm: nn.BatchNorm2d | nn.BatchNorm3d, mean: torch.Tensor, variance: torch.Tensor, count: int
) -> None:
    """Take one batch's mean and biased variance over ``count`` values into the running ones, as PyTorch does."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    share = 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    with torch.no_grad():
        norm.running_mean.lerp_(mean.detach().to(norm.running_mean.dtype), share)
        norm.running_var.lerp_((variance.detach() * (count / max(1, count - 1))).to(norm.running_var.dtype), share)


def _check_max_scale(max_scale: int) -> None:
    if max_scale < 2:
        raise InputError(f"max_scale is {max_scale}; expected at least 2, since one box size has no slope")


class LocalSingularityStrength(nn.Module):
    """Singularity strength of each pixel and channel, then a batch norm over the channels.

    Martins, Coimbra and Renna, "Singularity Strength Re-calibration of Fully Convolutional Neural Networks for
    Biomedical Image Segmentation", EUSIPCO 2024 (IEEE 10714969), the local singularity strength layer. The published
    layer takes minimum and maximum over the whole batch (``norm_scope="batch"``), which lets one image change
    another's result even in evaluation mode; the default looks at each image alone, which equals the published layer
    on batches of one.

    The exponent does not change when a channel is multiplied by a positive number or shifted. The windows have even
    sizes, so mirrored images give exponents that are mirrored and shifted by one pixel.

    Args:
        channels: channels of the map.
        spatial_dims: number of spatial axes, 2 or 3.
        max_scale: number of box sizes (2, 4, …, ``2 ** max_scale`` pixels), at least 2.
        norm_scope: "sample" or "batch" as above; "none" takes the map as a density as it is.
        weighted: learn one weight for each box size (the multifractal paper's layer) instead of least squares.
        normalize_borders: make up for what lies outside the map, so that exponents do not depend on the map's size.
        norm_momentum: share of a new batch in the norm's running statistics.

    Raises:
        InputError: when an argument is none of the above.

    Example:
        >>> layer = LocalSingularityStrength(channels=4).eval()
        >>> alpha = layer.exponent(torch.ones(1, 4, 32, 40))
        >>> alpha[0, 0, 16, 20].item()  # a constant density is as strong as the plane
        2.0
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int = 2,
        max_scale: int = 3,
        norm_scope: NormScope = "sample",
        weighted: bool = False,
        normalize_borders: bool = False,
        norm_momentum: float = 0.01,
    ) -> None:
        super().__init__()
        _check_max_scale(max_scale)
        check_choice("norm_scope", norm_scope, NormScope)
        self.max_scale = max_scale
        self.norm_scope: str = norm_scope
        self.normalize_borders = normalize_borders
        self.scale_logits: nn.Parameter | None = None
        if weighted:
            self.scale_logits = nn.Parameter(torch.empty(max_scale))
        self.norm = keras_batch_norm(channels, spatial_dims=spatial_dims, momentum=norm_momentum)
        self.spatial_axes = list(range(2, 2 + spatial_dims))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the box sizes' weights anew, uniformly from [-1, 1] before the sigmoid, and reset the norm."""
        if self.scale_logits is not None:
            nn.init.uniform_(self.scale_logits, -1.0, 1.0)
        self.norm.reset_parameters()

    @torch.jit.export
    def exponent(self, x: torch.Tensor) -> torch.Tensor:
        """Return the exponents of ``(B, channels, *spatial)`` before the norm, float32, in x's shape."""
        # Two conditions, since TorchScript leaves out a branch only when "is scripting" is its whole condition.
        if not torch.jit.is_scripting():  # noqa: SIM102
            if not is_exporting():
                return map_planes(self.exponent_of_planes, x, *self.ranges(x))
        weights: torch.Tensor | None = None
        if self.scale_logits is not None:
            weights = torch.sigmoid(self.scale_logits)
        return singularity_exponent(x, self.max_scale, self.norm_scope, self.normalize_borders, weights)

    @torch.jit.export
    def channel_means(self, x: torch.Tensor) -> torch.Tensor:
        """Return the normed exponents' spatial means, ``(B, channels)`` float32.

        The norm is a scale and a shift of each channel, so it is applied to the means; in training it needs the
        exponents' variance as well. So the map of exponents is never made as a whole.
        """
        if not torch.jit.is_scripting():  # noqa: SIM102
            if not is_exporting() and not isinstance(self.norm, nn.SyncBatchNorm):
                return self._channel_means_by_planes(x)
        alpha = self.exponent(x)
        if not self.training:
            alpha = alpha.mean(dim=self.spatial_axes, keepdim=True)
        means: torch.Tensor = self.norm(alpha).mean(dim=self.spatial_axes)
        return means

    @torch.jit.unused
    def _channel_means_by_planes(self, x: torch.Tensor) -> torch.Tensor:
        norm, centre = self.norm, float(len(self.spatial_axes))
        mean, variance = norm.running_mean, norm.running_var
        if self.training or mean is None or variance is None:
            # From the exponent of a constant density, so that the squares lose no digits.
            first, second = map_planes(partial(self._moments, centre), x, *self.ranges(x)).unbind(dim=2)
            from_centre = first.mean(dim=0)
            variance = second.mean(dim=0) - from_centre.square()
            mean = from_centre + centre
            _update_running(norm, mean, variance, count=x.numel() // x.shape[1])
            means = first + centre
        else:
            means = map_planes(self._means, x, *self.ranges(x))
        return (means - mean) * torch.rsqrt(variance + norm.eps) * norm.weight + norm.bias

    @torch.jit.unused
    def ranges(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return what ``exponent_of_planes`` cannot know of its planes alone: the batch minima and stretch factors."""
        return _low_and_gain(x, "batch") if self.norm_scope == "batch" else ()

    @torch.jit.unused
    def exponent_of_planes(self, planes: torch.Tensor, *ranges: torch.Tensor) -> torch.Tensor:
        """Return the exponents of planes ``(1, n, *spatial)`` before the norm, given their ``ranges``."""
        weights = None if self.scale_logits is None else torch.sigmoid(self.scale_logits)
        if not ranges:
            return singularity_exponent(planes, self.max_scale, self.norm_scope, self.normalize_borders, weights)
        low, gain = ranges
        density = (_at_least_float32(planes) - low) * gain + 1.0
        return _slope(density, self.max_scale, self.normalize_borders, weights, 0.0)

    @torch.jit.unused
    def _means(self, planes: torch.Tensor, *ranges: torch.Tensor) -> torch.Tensor:
        if (
            torch.is_grad_enabled()
            or self.norm_scope == "none"
            or self.normalize_borders
            or self.scale_logits is not None
        ):
            return self.exponent_of_planes(planes, *ranges).flatten(2).mean(dim=2)
        return _mean_exponent(planes, self.max_scale, *(ranges or _low_and_gain(planes, "sample")))

    @torch.jit.unused
    def _moments(self, centre: float, planes: torch.Tensor, *ranges: torch.Tensor) -> torch.Tensor:
        alpha = self.exponent_of_planes(planes, *ranges).flatten(2) - centre
        return torch.stack([alpha.mean(dim=2), (alpha * alpha).mean(dim=2)], dim=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, channels, *spatial)`` to normed exponents of the same shape, float32."""
        normed: torch.Tensor = self.norm(self.exponent(x))
        return normed

    def extra_repr(self) -> str:
        """Show what the weights do not."""
        return f"max_scale={self.max_scale}, norm_scope={self.norm_scope!r}, normalize_borders={self.normalize_borders}"
