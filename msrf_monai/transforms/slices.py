"""Let transforms of 2-D images take a volume as its slices, one after the other.

A volume in a chain is ``(C, W, H, D)``, its slices along the last axis. MONAI Label hands a CT or MR series to a bundle
in this way.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch

from msrf_monai.transforms.rows import plain, with_meta

__all__ = ["each_slice"]

_Item = Mapping[Hashable, Any]
_VOLUME_AXES = 4


def each_slice(call: Callable[[Any, _Item], dict[Hashable, Any]]) -> Callable[[Any, _Item], dict[Hashable, Any]]:
    """Decorate ``__call__`` of a dictionary transform of 2-D images, so that it takes items with volumes as well.

    Args:
        call: the method; it gets items without volumes as they are.

    Returns:
        The method for both. Of an item with volumes it gets each slice as an item of its own, and what it gives for
        these is stacked again; metadata and everything that is no image are those of the first slice.
    """

    @functools.wraps(call)
    def call_for_both(self: Any, data: _Item) -> dict[Hashable, Any]:
        volumes = [key for key, value in data.items() if _is_volume(value)]
        if not volumes:
            return call(self, data)
        depth = int(data[volumes[0]].shape[-1])
        parts = [call(self, {**data, **{key: _slice(data[key], at) for key in volumes}}) for at in range(depth)]
        first = parts[0]
        made = [key for key, value in first.items() if key in volumes or (_is_picture(value) and key not in data)]
        return {**first, **{key: _stack([part[key] for part in parts]) for key in made}}

    return call_for_both


def _is_volume(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim == _VOLUME_AXES


def _is_picture(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim == _VOLUME_AXES - 1


def _slice(volume: torch.Tensor, at: int) -> torch.Tensor:
    return with_meta(plain(volume)[..., at], volume)


def _stack(pictures: list[torch.Tensor]) -> torch.Tensor:
    return with_meta(torch.stack([plain(picture) for picture in pictures], dim=-1), pictures[0])
