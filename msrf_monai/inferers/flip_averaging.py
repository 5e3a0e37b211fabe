"""Sliding windows over an image and its mirror images, averaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from msrf_monai.inferers.mask_sliding_window import MaskSlidingWindowInferer

__all__ = ["FlipAveragingInferer"]

_FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))


class FlipAveragingInferer(MaskSlidingWindowInferer):
    """``MaskSlidingWindowInferer`` that averages the logits of an image and its three mirror images.

    Test-time augmentation with 4 flips: four times the computation of one pass.

    Args:
        flips: whether to do so; otherwise one pass, so that a configuration can switch it.
        args: positional arguments of ``monai.inferers.SlidingWindowInferer``.
        kwargs: its keyword arguments.
    """

    def __init__(self, *args: Any, flips: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.flips = flips

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run the network on the windows of each mirror image.

        Args:
            inputs: float tensor ``(B, C, H, W)``, or a volume ``(B, C, H, W, D)``; see ``MaskSlidingWindowInferer``.
            network: see ``MaskSlidingWindowInferer``.
            args: further positional arguments of ``network``.
            kwargs: further keyword arguments of ``network``.

        Returns:
            The mean logits, in the axes of ``inputs``.

        Raises:
            InputError: when the network returns an empty tuple, list or mapping.
        """
        if not self.flips or self._takes_slices(inputs):
            return super().__call__(inputs, network, *args, **kwargs)
        run = super().__call__
        passes = [torch.flip(run(torch.flip(inputs, axes), network, *args, **kwargs), axes) for axes in _FLIPS]
        return sum(passes[1:], passes[0]) / len(_FLIPS)
