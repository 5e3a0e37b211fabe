"""Fields of view in transform chains: find them, normalise inside them, clear what lies outside."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt
import torch
from monai.config.type_definitions import KeysCollection
from monai.transforms.transform import MapTransform

from msrf_monai.errors import ConfigError, InputError
from msrf_monai.field_of_view import derive_field_of_view
from msrf_monai.transforms.load_mask import LoadMask2Dd
from msrf_monai.transforms.rows import plain, to_planes, to_rows, with_meta
from msrf_monai.transforms.slices import each_slice

__all__ = ["ClearOutsided", "FieldOfViewd", "NormalizeInsided"]

Source = Literal["auto", "given", "derived", "whole"]


class FieldOfViewd(MapTransform):
    """Add the field of view of each image: a mask from a file, or found in the image itself.

    Put it right after the image is loaded, before anything changes its values or its size.

    Args:
        keys: key of the image, ``(3, W, H)`` with values 0..255, as ``LoadImage2Dd`` gives it.
        fov_key: key of the mask; before, the path of its file, where there is one.
        source: "auto" loads the file where ``fov_key`` names one and derives the field otherwise; "given" asks for the
            file; "derived" ignores it; "whole" takes the whole image, for pictures without a dark surround.
        allow_missing_keys: skip items without the image.

    Raises:
        ConfigError: when ``source`` is none of the above, or ``keys`` are several.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        fov_key: str = "fov",
        source: Source = "auto",
        *,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if source not in get_args(Source):
            raise ConfigError(f"source is {source!r}; expected one of {', '.join(map(repr, get_args(Source)))}")
        if len(self.keys) != 1:
            raise ConfigError(f"one image key is expected, got {', '.join(map(str, self.keys))}")
        self.fov_key = fov_key
        self.source: Source = source
        self._load = LoadMask2Dd(fov_key, image_key=str(self.keys[0]))

    @each_slice
    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the field of view of one item.

        Args:
            data: the item with its image loaded.

        Returns:
            The item with ``fov_key``: uint8 ``(1, W, H)``, {0, 1}, with the metadata of its file, or of the image where
            there is no file.

        Raises:
            DataError: when the file cannot be read as a mask, or its size is not the image's.
            InputError: when ``source`` is "given" and no file is named, or the field is to be derived from an image
                that is not ``(3, W, H)`` within 0..255.
        """
        d = dict(data)
        for key in self.key_iterator(d):
            given = d.get(self.fov_key)
            if self.source == "given" and given is None:
                raise InputError(f'the item has no "{self.fov_key}"; prepare the data set with fields of view')
            if self.source in ("auto", "given") and given is not None:
                d = self._load(d) if not isinstance(given, torch.Tensor) else d
            else:
                d[self.fov_key] = with_meta(self._find(plain(d[key])), d[key])
        return d

    def _find(self, image: torch.Tensor) -> torch.Tensor:
        if self.source == "whole":
            return torch.ones((1, *image.shape[1:]), dtype=torch.uint8)
        rows = to_rows(image) if image.dim() == 3 else None
        is_scaled = rows is not None and rows.dtype != np.uint8 and rows.size > 0 and 0 < rows.max() <= 1
        if rows is None or rows.shape[2] != 3 or is_scaled:
            raise InputError(
                f"the image has shape {tuple(image.shape)}{' and values up to 1' if is_scaled else ''}; expected "
                "(3, W, H) within 0..255: derive the field of view right after LoadImage2Dd with channels=3"
            )
        if rows.dtype != np.uint8:
            rows = np.clip(np.rint(rows), 0, 255).astype(np.uint8)
        return to_planes(derive_field_of_view(rows).astype(np.uint8))


class _InsideTransform(MapTransform):
    """What works on the inside of a field of view: the key of the field, and checks that it fits the images."""

    def __init__(
        self, keys: KeysCollection = "image", fov_key: str = "fov", *, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.fov_key = fov_key

    def _inside(self, data: Mapping[Hashable, Any]) -> torch.Tensor:
        """Return the field of view as a plain bool tensor ``(1, W, H)``."""
        fov = data.get(self.fov_key)
        if not isinstance(fov, torch.Tensor):
            raise InputError(f'the item has no field of view under "{self.fov_key}"; put FieldOfViewd before')
        return plain(fov) > 0

    def _values(self, data: Mapping[Hashable, Any], key: Hashable, inside: torch.Tensor) -> torch.Tensor:
        """Return what stands under a key as a plain tensor of the field's size."""
        values = plain(data[key])
        if values.shape[1:] != inside.shape[1:]:
            sizes = [" x ".join(map(str, item.shape[1:])) for item in (values, inside)]
            raise InputError(
                f'"{key}" is {sizes[0]} pixels and its field of view "{self.fov_key}" is {sizes[1]}; resize both or '
                "neither"
            )
        return values


class NormalizeInsided(_InsideTransform):
    """Give each channel mean 0 and standard deviation 1 inside the field of view, and the value 0 outside.

    Cameras and lamps differ in brightness and colour, and the share of black surround differs from camera to camera, so
    statistics of whole pictures do not compare.

    Args:
        keys: keys of the images ``(C, W, H)``.
        fov_key: key of the field of view ``(1, W, H)``, {0, 1}.
        allow_missing_keys: skip keys that an item has not.
    """

    @each_slice
    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Normalise the images of one item.

        Args:
            data: the item with its field of view.

        Returns:
            The item; each image is float32 ``(C, W, H)`` with its metadata. A channel that is constant inside, and an
            image whose field of view is empty, become 0.

        Raises:
            InputError: when the item has no field of view, or one of another size.
        """
        d = dict(data)
        inside = self._inside(d)
        mask = to_rows(inside.to(torch.uint8))
        for key in self.key_iterator(d):
            image = self._values(d, key, inside)
            mean, deviation = _statistics(to_rows(image), mask)
            factor = torch.where(deviation > 1e-3, 1 / deviation.clamp_min(1e-3), 0.0)
            normed = (image.float() - mean.float()).mul_(factor.float()).mul_(inside)
            d[key] = with_meta(normed, d[key])
        return d


def _statistics(rows: npt.NDArray[Any], mask: npt.NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of each channel inside the mask, float64 ``(C, 1, 1)`` each."""
    planes = rows if rows.dtype in (np.uint8, np.float32, np.float64) else rows.astype(np.float64)
    found = [cv2.meanStdDev(np.ascontiguousarray(planes[..., c]), mask=mask) for c in range(rows.shape[2])]
    mean, deviation = (torch.tensor([float(each[k][0, 0]) for each in found], dtype=torch.float64) for k in (0, 1))
    return mean[:, None, None], deviation[:, None, None]


class ClearOutsided(_InsideTransform):
    """Set what lies outside the field of view to 0.

    Args:
        keys: keys of the predictions ``(K, W, H)``, probabilities or masks.
        fov_key: key of the field of view ``(1, W, H)``, {0, 1}.
        allow_missing_keys: skip keys that an item has not.
    """

    def __init__(
        self, keys: KeysCollection = "pred", fov_key: str = "fov", *, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, fov_key, allow_missing_keys=allow_missing_keys)

    @each_slice
    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Clear the predictions of one item.

        Args:
            data: the item with its field of view.

        Returns:
            The item; dtype, shape and metadata of the predictions stay.

        Raises:
            InputError: when the item has no field of view, or one of another size.
        """
        d = dict(data)
        inside = self._inside(d)
        for key in self.key_iterator(d):
            values = self._values(d, key, inside)
            d[key] = with_meta(values * inside.to(values.device, values.dtype), d[key])
        return d
