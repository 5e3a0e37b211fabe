"""Weights and images given by a formula, for golden values that were measured on the published networks."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


def fill_by_formula(net: nn.Module) -> None:
    """Give every convolution and linear layer weights that depend on the element's number only, and biases of 0.1."""
    for layer in net.modules():
        if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            continue
        k = np.arange(layer.weight.numel(), dtype=np.int64)
        fan = layer.weight.shape[0] if isinstance(layer, nn.ConvTranspose2d) else layer.weight[0].numel()
        values = ((31 * k**2 + 17 * k) % 1009 / 1009 - 0.5) * np.sqrt(24 / fan)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(values.reshape(layer.weight.shape)))
            if layer.bias is not None:
                layer.bias.fill_(0.1)


def waves(height: int, width: int, channels: int = 3) -> torch.Tensor:
    c, i, j = np.meshgrid(range(channels), range(height), range(width), indexing="ij")
    return torch.from_numpy(np.cos(0.1 * i + 0.2 * j + c))[None]
