"""Sliding windows for networks that give more than the mask while they train."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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

    With a ``roi_size`` of two numbers, a volume is taken as a batch of its slices along the last axis, as MONAI Label
    hands over a CT or MR series to a network of 2-D images.
    """

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run the network on every window and stitch its first output.

        Args:
            inputs: float tensor ``(B, C, H, W)``, or with further spatial axes; it may be smaller than the window.
                ``(B, C, H, W, D)`` for windows of two axes is a volume.
            network: gives for a batch of windows one tensor ``(b, K, h, w)``, or a tuple, list or mapping of tensors
                of which the first counts.
            args: further positional arguments of ``network``.
            kwargs: further keyword arguments of ``network``, and those that ``SlidingWindowInferer`` takes in a call.

        Returns:
            Tensor ``(B, K, H, W)``, of a volume ``(B, K, H, W, D)``, of the dtype of ``inputs``, in the network's own
            units; a MetaTensor when ``inputs`` is one.

        Raises:
            InputError: when the network returns an empty tuple, list or mapping.
        """
        if self._takes_slices(inputs):
            return self._by_slices(inputs, network, *args, **kwargs)

        # chosen per window: stitching the other maps, only to drop them, would cost their time and memory
        def first_output(*windows: Any, **options: Any) -> Any:
            return _first(network(*windows, **options))

        return cast("torch.Tensor", super().__call__(inputs, first_output, *args, **kwargs))

    def _takes_slices(self, inputs: torch.Tensor) -> bool:
        return isinstance(self.roi_size, Sequence) and len(self.roi_size) == 2 and inputs.ndim == 5

    def _by_slices(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        batch, _, height, width, depth = inputs.shape
        slices = inputs.movedim(-1, 1).reshape(batch * depth, -1, height, width)
        result = self(slices, network, *args, **kwargs)
        return result.reshape(batch, depth, -1, height, width).movedim(1, -1)


def _first(output: Any) -> Any:
    while isinstance(output, (Mapping, tuple, list)):  # of Hi-gMISnet's two generators each gives several maps
        maps = tuple(output.values()) if isinstance(output, Mapping) else output
        if not maps:
            raise InputError(
                "the network returned no output; expected a tensor, or several of which the first is the mask"
            )
        output = maps[0]
    return output
