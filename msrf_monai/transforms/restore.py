"""Bring a prediction back to the size of its image file, without replaying the transforms."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Literal

import torch
from monai.config.type_definitions import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform

from msrf_monai.errors import ConfigError, InputError
from msrf_monai.transforms.resize import resize_planes
from msrf_monai.transforms.slices import each_slice

__all__ = ["RestoreSized"]


class RestoreSized(MapTransform):
    """Resample predictions to the size that the image file had, as its metadata tells.

    The same result as ``Invertd`` when resizing was the only change of geometry, at a fraction of its cost. Where the
    image was cropped, padded, flipped or rotated as well, it refuses, and ``Invertd`` is the transform to use.

    Args:
        keys: keys of the predictions, ``(K, W, H)``.
        image_key: key of the image, a MetaTensor from ``LoadImage2Dd`` or any MONAI reader.
        mode: ``"bilinear"`` for probabilities and logits, ``"nearest"`` for masks.
        allow_missing_keys: skip keys that an item has not.

    Raises:
        ConfigError: when ``mode`` is neither.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        image_key: str = "image",
        mode: Literal["bilinear", "nearest"] = "bilinear",
        *,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if mode not in ("bilinear", "nearest"):
            raise ConfigError(f'mode must be "bilinear" or "nearest", got {mode!r}')
        self.image_key = image_key
        self.mode: Literal["bilinear", "nearest"] = mode

    @each_slice
    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Restore the predictions of one item.

        Args:
            data: the item; ``data[image_key]`` still has its metadata.

        Returns:
            The item; each prediction is a MetaTensor ``(K, W, H)`` of the file's size with the file's metadata.

        Raises:
            InputError: when the image has no metadata, or was changed by more than resizing.
        """
        d = dict(data)
        image = d.get(self.image_key)
        if not isinstance(image, MetaTensor) or "spatial_shape" not in image.meta:
            raise InputError(
                f'"{self.image_key}" has no metadata that tells the size of its file; keep metadata tracking on, '
                "and load it with LoadImage2Dd"
            )
        others = [str(step.get("class")) for step in image.applied_operations if "Resize" not in str(step.get("class"))]
        if others:
            raise InputError(f"the image was changed by {', '.join(others)} besides resizing; use Invertd instead")
        size = [int(length) for length in image.meta["spatial_shape"]][:2]
        meta = dict(image.meta)
        meta["affine"] = torch.as_tensor(meta.get("original_affine", torch.eye(4)), dtype=torch.float64)
        for key in self.key_iterator(d):
            planes = d[key].as_tensor() if isinstance(d[key], MetaTensor) else d[key]
            restored = planes if list(planes.shape[1:]) == size else resize_planes(planes.detach(), size, self.mode)
            d[key] = MetaTensor(restored, meta=dict(meta))
        return d
