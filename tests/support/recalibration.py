"""Recalibration blocks with values of their own, and their published formulas without any short cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.networks.blocks import ChannelSELayer
from torch import nn

from msrf_monai.networks.blocks import (
    ChannelExcitation,
    FrequencyChannelAttention,
    GaussianSingularityStrength,
    MultifractalRecalibration,
    SingularityStrengthRecalibration,
    SpatialChannelSqueezeExcitation,
    StyleRecalibration,
)

BLOCKS: dict[str, Callable[..., nn.Module]] = {
    "cse": lambda channels=16, dims=2: ChannelSELayer(dims, channels, r=2),
    "scse": lambda channels=16, dims=2: SpatialChannelSqueezeExcitation(channels, dims),
    "srm": lambda channels=16, dims=2: StyleRecalibration(channels),
    "srm-own": lambda channels=16, dims=2: StyleRecalibration(channels, shared_weights=False),
    "fca": lambda channels=16, dims=2: FrequencyChannelAttention(channels, dims),
    "fca-reference": lambda channels=16, dims=2: FrequencyChannelAttention(channels, dims, basis="reference"),
    "ssr": lambda channels=16, dims=2: SingularityStrengthRecalibration(channels, dims),
    "ssr-borders": lambda channels=16, dims=2: SingularityStrengthRecalibration(channels, dims, normalize_borders=True),
    "multifractal": lambda channels=16, dims=2: MultifractalRecalibration(channels, dims),
    "multifractal-own": lambda channels=16, dims=2: MultifractalRecalibration(channels, dims, per_channel=True),
    "multifractal-five": lambda channels=16, dims=2: MultifractalRecalibration(channels, dims, levels=5, max_scale=4),
    "gaussian": lambda channels=16, dims=2: GaussianSingularityStrength(channels, dims),
}


def lively(module: nn.Module) -> nn.Module:
    """Give every parameter and statistic a value of its own, so that no factor is 1 and no shift 0."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, values in [*module.named_parameters(), *module.named_buffers()]:
            noise = torch.randn(values.shape, generator=generator) if values.dtype.is_floating_point else None
            if name.endswith("norm.weight"):
                values.copy_(1.0 + 0.2 * noise)
            elif name.endswith("running_mean"):
                values.copy_((2.0 if "strength" in name else 0.1) + 0.05 * noise)
            elif name.endswith("running_var"):
                values.copy_(0.05 + 0.02 * noise.abs())
            elif name.endswith("bias"):
                values.copy_(0.2 * noise)
            elif name.endswith("level_sets.anchors"):
                values.copy_(noise)
            elif name.endswith("level_sets.widths"):
                values.copy_(0.8 * noise)
    return module


def make(name: str, *arguments: Any) -> nn.Module:
    """Build a block whose weights are the same for each call."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return lively(BLOCKS[name](*arguments))


def features(*shape: int) -> torch.Tensor:
    """Make a map as it comes out of a ReLU, whose channels differ in brightness."""
    brightness = torch.linspace(0.5, 3.0, shape[1]).reshape(1, -1, *[1] * (len(shape) - 2))
    return torch.relu(torch.randn(shape) + 0.3) * brightness


def largest(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a.detach().double() - b.detach().double()).abs().max().item()


def gate(excite: ChannelExcitation, squeezed: torch.Tensor) -> torch.Tensor:
    """Compute sigmoid(W2 relu(W1 q + b1) + b2) in float64."""
    first, second = excite.fc[0], excite.fc[2]
    hidden = torch.relu(squeezed.double() @ first.weight.double().T + first.bias.double())
    return torch.sigmoid(hidden @ second.weight.double().T + second.bias.double())


def times(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return x.double() * weights.reshape(*weights.shape, *[1] * (x.dim() - 2))


def naive_norm(values: torch.Tensor, norm: nn.Module, axes: tuple[int, ...], channel_axis: int) -> torch.Tensor:
    """Apply a batch norm with the statistics over ``axes`` in training, with the running ones in evaluation."""
    shape = [1] * values.dim()
    shape[channel_axis] = -1
    mean, variance = norm.running_mean.double().reshape(shape), norm.running_var.double().reshape(shape)
    if norm.training:
        mean = values.mean(axes, keepdim=True)
        variance = ((values - mean) ** 2).mean(axes, keepdim=True)
    scaled = (values - mean) / torch.sqrt(variance + 1e-3)
    return scaled * norm.weight.double().reshape(shape) + norm.bias.double().reshape(shape)
