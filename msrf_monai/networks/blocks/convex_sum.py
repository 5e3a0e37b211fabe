"""A weighted mean of two maps whose weights are constants or learned."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

from msrf_monai.errors import InputError, check_choice

__all__ = ["ConvexSum", "FusionWeights"]

FusionWeights = Literal["fixed", "learnable"]
"""How the shares of a sum come about: constants, or sigmoids of one trained number each."""


class ConvexSum(nn.Module):
    """Add two maps, the first with a share s and the second with 1 - s.

    A learned share is the sigmoid of one number, so it stays between 0 and 1, and starts at ``share``.

    Args:
        share: share of the first map, between 0 and 1.
        weights: "fixed" (no parameter) or "learnable" (one parameter); the repr shows where a learned share started.

    Raises:
        InputError: when the share is not between 0 and 1, or the weights are neither of the two.

    Example:
        >>> mix = ConvexSum(0.25)
        >>> mix(torch.tensor([4.0]), torch.tensor([8.0])).item()
        7.0
    """

    def __init__(self, share: float, weights: FusionWeights = "fixed") -> None:
        super().__init__()
        if not 0.0 < share < 1.0:
            raise InputError(f"share is {share}; expected a number between 0 and 1, without the two ends, such as 0.3")
        check_choice("weights", weights, FusionWeights)
        self.initial_share = float(share)
        start = nn.Parameter(torch.tensor(math.log(share / (1.0 - share))))
        self.logit = start if weights == "learnable" else None

    def share(self) -> float:
        """Return the share that the first map has now, between 0 and 1."""
        return self.initial_share if self.logit is None else torch.sigmoid(self.logit.detach()).item()

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Return ``share * first + (1 - share) * second`` of two tensors of one shape, in that shape."""
        if self.logit is None:
            return self.initial_share * first + (1.0 - self.initial_share) * second
        share = torch.sigmoid(self.logit)
        return share * first + (1.0 - share) * second

    def extra_repr(self) -> str:
        """Return the options that the weights do not show."""
        return f"share={self.initial_share:.4g}, weights={'fixed' if self.logit is None else 'learnable'}"
