"""Sliding windows for networks that give more than the mask while they train."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from monai.inferers.inferer import SlidingWindowInferer

from msrf_monai.errors import InputError

__all__ = ["MaskSlidingWindowInferer"]


class MaskSlidingWindowInferer(SlidingWindowInferer):
    """MONAI's ``SlidingWindowInferer`` that stitches only the first output of the network.

    Networks with deep supervision, such as ``MSRFNet``, return the mask alone in evaluation mode and several maps, the
    mask first, in training mode. Programs that keep dropout active to estimate uncertainty, such as MONAI Label's
    epistemic scoring, run the network in training mode and expect one tensor all the same. For a network that returns
    one tensor the result is that of ``SlidingWindowInferer``, whose arguments these are.
    """

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run the network on every window and stitch its first output.

        Args:
            inputs: float tensor ``(B, C, H, W)``, or with further spatial axes; it may be smaller than the window.
            network: gives for a batch of windows one tensor ``(b, K, h, w)``, or a tuple, list or mapping of tensors
                of which the first counts.
            args: further positional arguments of ``network``.
            kwargs: further keyword arguments of ``network``, and those that ``SlidingWindowInferer`` takes in a call.

        Returns:
            Tensor ``(B, K, H, W)`` of the dtype of ``inputs``, in the network's own units; a MetaTensor when
            ``inputs`` is one.

        Raises:
            InputError: when the network returns an empty tuple, list or mapping.
        """

        # chosen per window: stitching the other maps, only to drop them, would cost their time and memory
        def first_output(*windows: Any, **options: Any) -> Any:
            return _first(network(*windows, **options))

        return cast("torch.Tensor", super().__call__(inputs, first_output, *args, **kwargs))


def _first(output: Any) -> Any:
    while isinstance(output, (Mapping, tuple, list)):  # of Hi-gMISnet's two generators each gives several maps
        maps = tuple(output.values()) if isinstance(output, Mapping) else output
        if not maps:
            raise InputError(
                "the network returned no output; expected a tensor, or several of which the first is the mask"
            )
        output = maps[0]
    return output
