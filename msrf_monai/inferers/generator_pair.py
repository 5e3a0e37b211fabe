"""Both predictions of Hi-gMISnet, not yet fused, for the validation that chooses how to fuse them."""

from __future__ import annotations

from typing import Any, cast

import torch
from monai.inferers.inferer import SlidingWindowInferer

from msrf_monai.errors import InputError
from msrf_monai.networks.nets.higmis_net import HiGMISNet

__all__ = ["GeneratorPairInferer"]


class GeneratorPairInferer(SlidingWindowInferer):
    """MONAI's ``SlidingWindowInferer`` for the two generators of ``HiGMISNet``, whose arguments these are."""

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run both generators on every window.

        Args:
            inputs: float image ``(B, C, H, W)`` in [0, 1]; it may be smaller than the window.
            network: the ``HiGMISNet`` itself, not wrapped for distributed training.
            args: see ``SlidingWindowInferer``.
            kwargs: see ``SlidingWindowInferer``.

        Returns:
            ``(B, 2, H, W)``: the probability of foreground, and that of background.

        Raises:
            InputError: when the network is another one.
        """
        if not isinstance(network, HiGMISNet):
            raise InputError(f"the network is a {type(network).__name__}; expected HiGMISNet, which has two generators")

        def both(windows: torch.Tensor) -> torch.Tensor:
            maps = network.forward_all(windows)
            return torch.cat([maps.lesion.mask, maps.background.mask], dim=1)

        return cast("torch.Tensor", super().__call__(inputs, both, *args, **kwargs))
