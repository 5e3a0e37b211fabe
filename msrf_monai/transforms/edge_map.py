"""The edge channel of the network's input and the edge plane of its training target."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config.type_definitions import KeysCollection
from monai.transforms.transform import MapTransform, Transform

from msrf_monai.edges import HIGH, LOW, adaptive_thresholds, canny_edges, mask_edges
from msrf_monai.errors import InputError
from msrf_monai.transforms.rows import plain, to_planes, to_rows, with_meta
from msrf_monai.transforms.slices import each_slice

__all__ = ["EdgeMap", "EdgeMapd", "EdgeTarget", "EdgeTargetd"]


class EdgeMap(Transform):
    """Append the Canny edge map of an image as its last channel, with the values 0 and 255.

    Put it after resizing and after every augmentation, and before the values are scaled: the one division by 255 that
    follows brings the colours to [0, 1] and the edges to {0, 1}. Float images are rounded and clipped to 0..255 for the
    map only; their own channels stay as they are.

    Args:
        low: lower threshold of Canny; unused when ``adaptive``.
        high: upper threshold of Canny; unused when ``adaptive``.
        adaptive: thresholds from the image's own gradients, so that low-contrast images have edges too.
        quantile: see ``edges.canny_edges``.
        ratio: see ``edges.canny_edges``.

    Raises:
        InputError: when ``quantile`` or ``ratio`` is outside its range.
    """

    def __init__(
        self,
        *,
        low: float = LOW,
        high: float = HIGH,
        adaptive: bool = False,
        quantile: float = 0.9,
        ratio: float = 0.4,
    ) -> None:
        adaptive_thresholds(np.zeros(1, np.int32), quantile=quantile, ratio=ratio)
        self.options: dict[str, Any] = {
            "low": low,
            "high": high,
            "adaptive": adaptive,
            "quantile": quantile,
            "ratio": ratio,
        }

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Append the edge map.

        Args:
            img: ``(C, W, H)``, values 0..255, not yet scaled.

        Returns:
            ``(C + 1, W, H)`` in the dtype of ``img``, with its metadata.

        Raises:
            InputError: when the image has been scaled to [0, 1] already, holds NaN, or has not three axes.
        """
        tensor = plain(img)
        rows = to_rows(tensor)
        if rows.dtype != np.uint8 and 0 < rows.max() <= 1 and (rows % 1).any():
            raise InputError(
                "the edge map is taken from values 0..255, and this image lies within [0, 1]; "
                "put EdgeMapd before the transform that scales the intensities"
            )
        edges = to_planes(canny_edges(rows, **self.options) * np.uint8(255))
        return with_meta(_append(tensor, edges), img)


class EdgeMapd(MapTransform):
    """Dictionary form of ``EdgeMap``.

    Args:
        keys: keys of the images.
        low: lower threshold of Canny; unused when ``adaptive``.
        high: upper threshold of Canny; unused when ``adaptive``.
        adaptive: thresholds from the image's own gradients.
        quantile: see ``edges.canny_edges``.
        ratio: see ``edges.canny_edges``.
        allow_missing_keys: skip keys that an item has not.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        low: float = LOW,
        high: float = HIGH,
        adaptive: bool = False,
        quantile: float = 0.9,
        ratio: float = 0.4,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mapper = EdgeMap(low=low, high=high, adaptive=adaptive, quantile=quantile, ratio=ratio)

    @each_slice
    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Append the edge maps of one item; see ``EdgeMap.__call__``."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.mapper(d[key])
        return d


class EdgeTarget(Transform):
    """Append the outline of a mask as its last plane, with the values 0 and 1.

    Args:
        low: lower threshold of Canny on the mask times 255.
        high: upper threshold of Canny on the mask times 255.
    """

    def __init__(self, *, low: float = LOW, high: float = HIGH) -> None:
        self.low = low
        self.high = high

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Append the outline.

        Args:
            img: ``(K, W, H)``: K planes of {0, 1}, or one plane of class numbers. Outlines of all classes are united.

        Returns:
            ``(K + 1, W, H)`` in the dtype of ``img``, with its metadata.

        Raises:
            InputError: when the mask has not three axes.
        """
        tensor = plain(img)
        edges = to_planes(mask_edges(to_rows(tensor), low=self.low, high=self.high))
        return with_meta(_append(tensor, edges), img)


class EdgeTargetd(MapTransform):
    """Dictionary form of ``EdgeTarget``.

    Args:
        keys: keys of the masks.
        low: lower threshold of Canny on the mask times 255.
        high: upper threshold of Canny on the mask times 255.
        allow_missing_keys: skip keys that an item has not.
    """

    def __init__(
        self, keys: KeysCollection, *, low: float = LOW, high: float = HIGH, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.outliner = EdgeTarget(low=low, high=high)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Append the outlines of one item; see ``EdgeTarget.__call__``."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.outliner(d[key])
        return d


def _append(tensor: torch.Tensor, plane: torch.Tensor) -> torch.Tensor:
    return torch.cat([tensor, plane.to(dtype=tensor.dtype, device=tensor.device)])
