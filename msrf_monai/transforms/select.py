"""Pick the mask out of a network's several outputs, and the mask planes out of a target with an edge plane."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config.type_definitions import KeysCollection
from monai.transforms.transform import MapTransform, Transform
from monai.utils.misc import ensure_tuple_rep

from msrf_monai.errors import ConfigError, InputError
from msrf_monai.transforms.rows import plain, with_meta

__all__ = ["SelectMask", "SelectMaskd"]


class SelectMask(Transform):
    """Return the first output of several, and of that the first planes.

    For the post-processing of training: in training mode a network gives a tuple whose first element is the mask, and
    the target carries the edge plane last. In evaluation mode both are plain tensors, and this changes nothing.

    Args:
        channels: number of planes to keep, the number of the network's classes; None for all.

    Raises:
        ConfigError: when ``channels`` is below 1.
    """

    def __init__(self, channels: int | None = 1) -> None:
        if channels is not None and channels < 1:
            raise ConfigError(f"channels must be None or at least 1, got {channels}")
        self.channels = channels

    def __call__(self, img: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
        """Select from one item.

        Args:
            img: ``(K, W, H)``, or a tuple, named tuple or list of tensors of which the first is that.

        Returns:
            ``(channels, W, H)``, a view, with the metadata of ``img``.

        Raises:
            InputError: when there is no tensor, or it has fewer planes than ``channels``.
        """
        first = img
        while isinstance(first, (tuple, list)) and len(first):
            first = first[0]
        if not isinstance(first, torch.Tensor):
            raise InputError(f"a tensor or a sequence of tensors was expected, got {type(img).__name__}: {img!r:.100}")
        if self.channels is None or first.shape[0] == self.channels:
            return first
        if first.shape[0] < self.channels:
            raise InputError(
                f"{self.channels} planes are to be kept, and the tensor has the shape {tuple(first.shape)}"
            )
        return with_meta(plain(first)[: self.channels], first)


class SelectMaskd(MapTransform):
    """Dictionary form of ``SelectMask``.

    Args:
        keys: keys to select from.
        channels: number of planes to keep, one number or one for each key; None for all.
        allow_missing_keys: skip keys that an item has not.

    Raises:
        ConfigError: when ``channels`` is below 1.
    """

    def __init__(
        self,
        keys: KeysCollection = ("pred", "label"),
        channels: int | Sequence[int | None] | None = 1,
        *,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.selectors = [SelectMask(number) for number in ensure_tuple_rep(channels, len(self.keys))]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Select from one item; see ``SelectMask.__call__``."""
        d = dict(data)
        for key, selector in self.key_iterator(d, self.selectors):
            d[key] = selector(d[key])
        return d
