"""How an optimiser treats a network's parameters: which of them decay, and how large a step's gradient may be."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from msrf_monai.engines.weights import unwrap
from msrf_monai.errors import ConfigError

__all__ = ["GradientClip", "decay_groups"]


def decay_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Divide a network's parameters for an optimiser: weights decay, biases and norms do not.

    Args:
        network: maybe wrapped for distributed training.
        weight_decay: of all parameters with two axes and more, not negative.

    Returns:
        Two groups for the ``params`` of an optimiser such as ``torch.optim.AdamW``.

    Raises:
        ConfigError: when ``weight_decay`` is negative.
    """
    if weight_decay < 0:
        raise ConfigError(f"weight_decay is {weight_decay}; expected 0 or more")
    parameters = [parameter for parameter in unwrap(network).parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


class GradientClip:
    """Shorten a step's gradient to ``max_norm`` where it is longer, before every step of the optimiser.

    Attach it to a trainer. Under automatic mixed precision the gradient is unscaled by then.

    Args:
        optimizer: whose parameters are clipped together.
        max_norm: largest length (Euclidean) of the gradient of all parameters.

    Raises:
        ConfigError: when ``max_norm`` is not positive.
    """

    def __init__(self, optimizer: Optimizer, max_norm: float = 1.0) -> None:
        if not max_norm > 0:
            raise ConfigError(f"max_norm is {max_norm}; expected a positive number")
        self.optimizer = optimizer
        self.max_norm = max_norm
        self._hook: Any = None

    def attach(self, engine: Any) -> None:
        """Register with the optimiser; the engine is not needed, trainers attach their handlers so."""
        if self._hook is None:
            self._hook = self.optimizer.register_step_pre_hook(self._clip)

    def _clip(self, *_: Any) -> None:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, self.max_norm)
