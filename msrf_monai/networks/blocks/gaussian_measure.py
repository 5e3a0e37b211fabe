"""Singularity strength measured with Gaussian windows that can be trained."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from msrf_monai.errors import InputError, check_choice
from msrf_monai.networks.blocks.keras_norm import keras_batch_norm
from msrf_monai.networks.blocks.singularity_strength import NormScope, rescale_range

__all__ = ["GaussianSingularityStrength"]

_Variant = Literal["ssr", "fenet"]


class GaussianSingularityStrength(nn.Module):
    """Singularity strength from Gaussian windows of 1, 2, …, ``scales`` pixels instead of boxes ("data-driven").

    The measure of window i is i^d times the map's mean under a Gaussian of that size (standard deviation i/2), which
    all channels share; the exponent is the slope of its logarithm over log(i), by least squares, then a batch norm.

    Two variants:

    - ``"ssr"``: the layer in the code of Martins et al. (EUSIPCO 2024): trainable windows, log(measure + 1e-7), and
      windows of even size whose sample points are cut to whole pixels before they are spread ((-1, -1/3, 1/3, 1) for
      4 pixels).
    - ``"fenet"``: the layer that it stems from, Xu et al., "Encoding Spatial Distribution of Convolutional Features
      for Texture Representation", NeurIPS 2021: frozen windows sampled at pixel centres, log(measure + 1).

    Args:
        channels: channels of the map ``(B, channels, *spatial)``.
        spatial_dims: number of spatial axes, 2 or 3.
        scales: number of window sizes, at least 2.
        norm_scope: how the map is stretched to [1, 256], see ``LocalSingularityStrength``.
        variant: "ssr" or "fenet".
        trainable: train the windows; None means what the variant does.
        norm_momentum: share of a new batch in the norm's running statistics.

    Raises:
        InputError: when ``scales`` is below 2, or the variant has another name.
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int = 2,
        scales: int = 6,
        norm_scope: NormScope = "sample",
        variant: Literal["ssr", "fenet"] = "ssr",
        trainable: bool | None = None,
        norm_momentum: float = 0.01,
    ) -> None:
        super().__init__()
        if scales < 2:
            raise InputError(f"scales is {scales}; expected at least 2, since one window size has no slope")
        check_choice("variant", variant, _Variant)
        is_ssr = variant == "ssr"
        self.spatial_dims = spatial_dims
        self.norm_scope: str = norm_scope
        self.offset = 1e-7 if is_ssr else 1.0
        self.windows = nn.ParameterList(
            nn.Parameter(
                gaussian_window(size, spatial_dims, whole_pixels=is_ssr),
                requires_grad=is_ssr if trainable is None else trainable,
            )
            for size in range(1, scales + 1)
        )
        self.norm = keras_batch_norm(channels, spatial_dims=spatial_dims, momentum=norm_momentum)

    def measures(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the measure of each window size, smallest first, not negative, in x's shape."""
        density = rescale_range(x.float(), self.norm_scope)
        flat = density.flatten(0, 1).unsqueeze(1)
        found = []
        for window in self.windows:
            size = window.shape[-1]
            padded = F.pad(flat, [(size - 1) // 2, size // 2] * self.spatial_dims)
            with torch.autocast(x.device.type, enabled=False):
                convolve = F.conv3d if self.spatial_dims == 3 else F.conv2d
                mean = convolve(padded, window[None, None])
            found.append(torch.relu(mean * float(size**self.spatial_dims)).reshape(x.shape))
        return found

    def exponent(self, x: torch.Tensor) -> torch.Tensor:
        """Return the exponents of ``(B, channels, *spatial)`` before the norm, float32, in x's shape."""
        places = torch.tensor([math.log(size) for size in range(1, len(self.windows) + 1)], dtype=torch.float64)
        centred = places - places.mean()
        weights = (centred / centred.square().sum()).tolist()
        logs = [torch.log(measure + self.offset) for measure in self.measures(x)]
        return torch.stack([w * log for w, log in zip(weights, logs, strict=True)]).sum(dim=0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, channels, *spatial)`` to normed exponents of the same shape, float32."""
        normed: torch.Tensor = self.norm(self.exponent(x))
        return normed


def gaussian_window(size: int, spatial_dims: int, *, whole_pixels: bool) -> torch.Tensor:
    """Return a Gaussian window of ``size`` pixels on each axis, standard deviation size / 2, sum 1, float32."""
    half = float((size - 1) // 2) if whole_pixels else (size - 1) / 2
    points = torch.linspace(-half, half, size, dtype=torch.float64)
    line = torch.exp(-points.square() / (2 * (size / 2) ** 2))
    window = line
    for _ in range(spatial_dims - 1):
        window = window.unsqueeze(-1) * line
    return (window / window.sum()).float()
