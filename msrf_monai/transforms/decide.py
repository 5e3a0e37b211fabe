"""From scores to a mask, without the slow or wrong detours."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config.type_definitions import KeysCollection
from monai.transforms.transform import MapTransform, Transform

from msrf_monai.errors import ConfigError, InputError
from msrf_monai.transforms.rows import plain, with_meta

__all__ = ["DecideMask", "DecideMaskd", "decide_mask"]


def decide_mask(
    scores: torch.Tensor, threshold: float = 0.5, *, from_logits: bool = False, multilabel: bool = False
) -> torch.Tensor:
    """Return the class of every pixel.

    One plane is compared with the threshold, two planes (background, foreground) with each other; ``argmax`` serves
    three planes and more, over a channel-last copy. ``argmax`` over one plane would give an empty mask, and over two
    planes it takes many times as long as the comparison.

    Args:
        scores: ``(K, W, H)`` or any ``(K, …)``: probabilities, or logits when ``from_logits``.
        threshold: probability from which a pixel is foreground; for three planes and more it has no meaning.
        from_logits: the scores are logits (of a sigmoid for one plane, of a softmax for more): no activation is
            computed, the threshold is moved instead.
        multilabel: every plane is a class of its own that may overlap others, and is compared with the threshold alone.

    Returns:
        uint8 ``(1, …)``, {0, 1} or class numbers; with ``multilabel`` ``(K, …)``, {0, 1}.

    Raises:
        ConfigError: when ``threshold`` is not within (0, 1).
        InputError: when the scores have no plane.
    """
    if not 0 < threshold < 1:
        raise ConfigError(f"threshold must lie between 0 and 1, got {threshold}")
    tensor = plain(scores)
    if tensor.ndim < 1 or tensor.shape[0] == 0:
        raise InputError(f"scores have the shape (K, W, H) with at least one plane, got {tuple(tensor.shape)}")
    limit = math.log(threshold / (1 - threshold)) if from_logits else threshold
    if multilabel or tensor.shape[0] == 1:
        return _reaches(tensor, limit)
    if tensor.shape[0] == 2:
        return _compare(tensor[0], tensor[1], threshold, from_logits=from_logits)[None].to(torch.uint8)
    return tensor.movedim(0, -1).contiguous().argmax(dim=-1)[None].to(torch.uint8)


def _reaches(tensor: torch.Tensor, limit: float) -> torch.Tensor:
    if tensor.device.type == "cpu" and tensor.dtype == torch.float32:
        # NumPy compares float32 five times as fast as torch on one thread, and keeps the order of the memory
        reached = np.greater_equal(tensor.detach().numpy(), np.float32(limit))
        return torch.from_numpy(reached.view(np.uint8))
    return (tensor >= limit).to(torch.uint8)


def _compare(
    background: torch.Tensor, foreground: torch.Tensor, threshold: float, *, from_logits: bool
) -> torch.Tensor:
    if threshold == 0.5:
        return foreground > background
    if from_logits:
        return foreground - background > math.log(threshold / (1 - threshold))
    return foreground * (1 - threshold) > background * threshold


class DecideMask(Transform):
    """Turn scores into a mask; see ``decide_mask`` for the arguments and the rules.

    Args:
        threshold: probability from which a pixel is foreground.
        from_logits: the scores are logits.
        multilabel: planes are classes that may overlap.

    Raises:
        ConfigError: when ``threshold`` is not within (0, 1).
    """

    def __init__(self, threshold: float = 0.5, *, from_logits: bool = False, multilabel: bool = False) -> None:
        decide_mask(torch.zeros(1), threshold)
        self.threshold = threshold
        self.from_logits = from_logits
        self.multilabel = multilabel

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Decide one item.

        Args:
            img: ``(K, W, H)`` scores.

        Returns:
            uint8 ``(1, W, H)``, or ``(K, W, H)`` with ``multilabel``, with the metadata of ``img``.

        Raises:
            InputError: when the scores have no plane.
        """
        mask = decide_mask(img, self.threshold, from_logits=self.from_logits, multilabel=self.multilabel)
        return with_meta(mask, img)


class DecideMaskd(MapTransform):
    """Dictionary form of ``DecideMask``.

    Args:
        keys: keys of the scores.
        threshold: probability from which a pixel is foreground.
        from_logits: the scores are logits.
        multilabel: planes are classes that may overlap.
        allow_missing_keys: skip keys that an item has not.

    Raises:
        ConfigError: when ``threshold`` is not within (0, 1).
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        threshold: float = 0.5,
        *,
        from_logits: bool = False,
        multilabel: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.decider = DecideMask(threshold, from_logits=from_logits, multilabel=multilabel)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Decide the scores of one item; see ``DecideMask.__call__``."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.decider(d[key])
        return d
