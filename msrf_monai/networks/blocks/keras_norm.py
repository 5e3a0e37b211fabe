"""Batch normalisation with the constants of the Keras originals."""

from __future__ import annotations

import torch
from torch import nn

from msrf_monai.errors import InputError

__all__ = ["BiasedBatchNorm", "keras_batch_norm"]


def keras_batch_norm(
    channels: int, *, eps: float = 1e-3, spatial_dims: int = 2, momentum: float = 0.01
) -> nn.BatchNorm2d | nn.BatchNorm3d:
    """Return a batch norm with Keras' defaults: eps 1e-3 and momentum 0.99, which PyTorch writes as 0.01.

    Args:
        channels: channels to normalise.
        eps: added to the variance.
        spatial_dims: number of spatial axes, 2 or 3.
        momentum: share of a new batch in the running statistics.

    Returns:
        The layer for ``(B, channels, *spatial)``.

    Raises:
        InputError: when ``spatial_dims`` is neither 2 nor 3.
    """
    if spatial_dims not in (2, 3):
        raise InputError(f"spatial_dims is {spatial_dims}; expected 2 or 3")
    norm = nn.BatchNorm3d if spatial_dims == 3 else nn.BatchNorm2d
    return norm(channels, eps=eps, momentum=momentum)


class BiasedBatchNorm(nn.Module):
    """Batch norm of ``(B, C)`` with Keras' constants whose running variance takes in the biased batch variance.

    Keras does this where the input is not four-dimensional; PyTorch always takes the unbiased variance, which is 6.7 %
    larger for a batch of 16. The normalisation itself is the same.

    Args:
        channels: channels to normalise.
        momentum: share of a new batch in the running statistics.
        eps: added to the variance.
    """

    def __init__(self, channels: int, momentum: float = 0.01, eps: float = 1e-3) -> None:
        super().__init__()
        self.momentum = momentum
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.running_mean: torch.Tensor
        self.running_var: torch.Tensor
        self.register_buffer("running_mean", torch.empty(channels))
        self.register_buffer("running_var", torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with weight and variance 1, bias and mean 0."""
        for values, start in ((self.weight, 1.0), (self.bias, 0.0), (self.running_mean, 0.0), (self.running_var, 1.0)):
            nn.init.constant_(values, start)

    def update(self, mean: torch.Tensor, biased_variance: torch.Tensor) -> None:
        """Take the statistics of one batch, both ``(C,)``, into the running ones."""
        with torch.no_grad():
            self.running_mean.lerp_(mean.detach().to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(biased_variance.detach().to(self.running_var.dtype), self.momentum)

    def affine(self, mean: torch.Tensor, variance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scale and shift, both ``(C,)``, that norm values of that mean and variance."""
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return scale, self.bias - mean * scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Norm ``(B, C)``, in training mode with the batch's own mean and variance."""
        mean, variance = self.running_mean, self.running_var
        if self.training:
            mean, variance = x.mean(dim=0), x.var(dim=0, correction=0)
            self.update(mean, variance)
        scale, shift = self.affine(mean, variance)
        return x * scale + shift
