"""One probability of the two that Hi-gMISnet's generators give."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, get_args

import torch
from monai.config.type_definitions import KeysCollection
from monai.transforms.transform import MapTransform

from msrf_monai.errors import ConfigError, InputError
from msrf_monai.networks.nets.higmis_net import FusionMode, HiGMISNet, fuse_probabilities
from msrf_monai.transforms.rows import plain, with_meta

__all__ = ["FuseProbabilitiesd"]


class FuseProbabilitiesd(MapTransform):
    """Fuse the planes (lesion, background) of ``GeneratorPairInferer`` into one plane.

    Args:
        keys: keys of the two planes.
        fusion: how, see ``msrf_monai.networks.fuse_probabilities``; or the network, whose present choice then counts.
        pair_key: where the two planes are kept for whoever compares the ways of fusing; None drops them.
        allow_missing_keys: skip keys that an item has not.

    Raises:
        ConfigError: when ``fusion`` is neither.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        fusion: FusionMode | HiGMISNet = "and",
        *,
        pair_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if not isinstance(fusion, HiGMISNet) and fusion not in get_args(FusionMode):
            expected = ", ".join(map(repr, get_args(FusionMode)))
            raise ConfigError(f"fusion is {fusion!r:.80}; expected a HiGMISNet or one of {expected}")
        self.fusion = fusion
        self.pair_key = pair_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Fuse the planes of one item.

        Args:
            data: float ``(2, W, H)`` in [0, 1] under each key.

        Returns:
            The item with ``(1, W, H)`` under each key, the probability of foreground.

        Raises:
            InputError: when there are not two planes.
        """
        d = dict(data)
        mode = self.fusion.fusion if isinstance(self.fusion, HiGMISNet) else self.fusion
        for key in self.key_iterator(d):
            pair: torch.Tensor = d[key]
            if pair.ndim < 1 or pair.shape[0] != 2:
                raise InputError(f"{key!r} has shape {tuple(pair.shape)}; expected two planes, lesion and background")
            lesion, background = plain(pair)[:1], plain(pair)[1:]
            if self.pair_key is not None:
                d[self.pair_key] = pair
            d[key] = with_meta(fuse_probabilities(lesion, background, mode), pair)
        return d
