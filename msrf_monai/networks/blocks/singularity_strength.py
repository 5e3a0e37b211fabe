"""Local singularity strength: how fast a feature map's mass grows around each pixel."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import nn

from msrf_monai.errors import InputError
from msrf_monai.networks.blocks.keras_norm import keras_batch_norm

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
    dims = list(range(2, x.dim()))
    if scope == "batch":
        dims.append(0)
    low = torch.amin(x, dim=dims, keepdim=True)
    high = torch.amax(x, dim=dims, keepdim=True)
    return (x - low) * (255.0 / torch.clamp(high - low, 1e-7, 1e9)) + 1.0


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
    largest = 1 << max_scale
    before, after = largest // 2 - 1, largest // 2
    size = x.shape[2:]
    padding = [before, after] * len(size)
    sums = F.pad(x, padding)
    boxes: list[torch.Tensor] = []
    for scale in range(max_scale):
        shift = 1 << scale
        for axis in range(2, x.dim()):
            length = sums.shape[axis] - shift
            sums = sums.narrow(axis, 0, length) + sums.narrow(axis, shift, length)
        box = sums
        for axis in range(2, x.dim()):
            box = box.narrow(axis, largest // 2 - shift, x.shape[axis])
        boxes.append(box)
    return boxes


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
    density = rescale_range(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x, norm_scope)
    boxes = box_sums(density, max_scale)
    if norm_scope == "none":
        boxes = [torch.relu(box) + 1e-7 for box in boxes]  # elsewhere the floor of 1 keeps boxes away from 0
    if normalize_borders:
        parts = box_sums(torch.ones_like(density[:1, :1]), max_scale)
        whole = [float(2 << j) ** (x.dim() - 2) for j in range(max_scale)]
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


def _weighted_slope(boxes: list[torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
    count = len(boxes)
    centred = torch.arange(count, device=weights.device, dtype=weights.dtype) - (count - 1) / 2
    pull = weights * centred
    coefficients = (pull - pull.mean()) / (pull * centred).sum()  # the mean comes from the unweighted mean log mass
    slope = coefficients[0] * torch.log2(boxes[0])
    for j in range(1, count):
        slope = slope + coefficients[j] * torch.log2(boxes[j])
    return slope


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
        if norm_scope not in get_args(NormScope):
            raise InputError(
                f"norm_scope is {norm_scope!r}; expected one of {', '.join(map(repr, get_args(NormScope)))}"
            )
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
        weights: torch.Tensor | None = None
        if self.scale_logits is not None:
            weights = torch.sigmoid(self.scale_logits)
        return singularity_exponent(x, self.max_scale, self.norm_scope, self.normalize_borders, weights)

    @torch.jit.export
    def channel_means(self, x: torch.Tensor) -> torch.Tensor:
        """Return the normed exponents' spatial means, ``(B, channels)`` float32.

        Outside training the norm is a scale and a shift of each channel, so the means are taken before it.
        """
        alpha = self.exponent(x)
        if not self.training:
            alpha = alpha.mean(dim=self.spatial_axes, keepdim=True)
        means: torch.Tensor = self.norm(alpha).mean(dim=self.spatial_axes)
        return means

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, channels, *spatial)`` to normed exponents of the same shape, float32."""
        normed: torch.Tensor = self.norm(self.exponent(x))
        return normed

    def extra_repr(self) -> str:
        """Show what the weights do not."""
        return f"max_scale={self.max_scale}, norm_scope={self.norm_scope!r}, normalize_borders={self.normalize_borders}"
