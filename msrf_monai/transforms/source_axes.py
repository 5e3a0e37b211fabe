"""Give a finished mask the axes of the file that it belongs to, as programs expect that write it themselves."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config.type_definitions import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform

from msrf_monai.errors import InputError
from msrf_monai.transforms.rows import with_meta

__all__ = ["ToSourceAxesd"]


class ToSourceAxesd(MapTransform):
    """Drop the channel of masks, and give them as many axes as their source file has in space.

    The last step of a bundle's postprocessing. MONAI Label writes the result by itself: ``(W, H)`` as a picture,
    without the place in the patient; ``(W, H, D)`` as an image in space, with it. A photograph therefore becomes
    ``(W, H)``, while a NIfTI file of one slice, as MONAI Label makes it of a DICOMweb series, becomes ``(W, H, 1)``.

    Args:
        keys: keys of the masks, ``(1, W, H)`` or, of a volume, ``(1, W, H, D)``.
        image_key: key of the image whose metadata counts for masks that have none.
        allow_missing_keys: skip keys that an item has not.
    """

    def __init__(
        self, keys: KeysCollection = "pred", image_key: str = "image", *, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Reshape the masks of one item.

        Args:
            data: the item.

        Returns:
            The item; each mask is a view of the same values with its metadata.

        Raises:
            InputError: when a mask has another number of planes than one.
        """
        d = dict(data)
        for key in self.key_iterator(d):
            mask: torch.Tensor = d[key]
            if mask.ndim < 3 or mask.shape[0] != 1:
                raise InputError(
                    f'"{key}" has the shape {tuple(mask.shape)}, and one plane (1, W, H) was expected; '
                    "decide the mask before its channel is dropped"
                )
            known = mask if isinstance(mask, MetaTensor) else d.get(self.image_key)
            axes = len(getattr(known, "meta", {}).get("spatial_shape", ()))
            plain = mask.as_tensor() if isinstance(mask, MetaTensor) else mask
            plain = plain[0]
            d[key] = with_meta(plain.reshape(*plain.shape, *[1] * max(0, axes - plain.ndim)), mask)
        return d
