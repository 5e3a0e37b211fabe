"""Load a mask as {0, 1}, or as class numbers, and refuse what could mean several things."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.config.type_definitions import KeysCollection
from monai.data.image_reader import ImageReader

from msrf_monai.errors import ConfigError, DataError
from msrf_monai.transforms.load import FileLoader, FileLoaderd
from msrf_monai.transforms.picture import Picture
from msrf_monai.transforms.raster import DEFAULT_MAX_PIXELS, Palette

__all__ = ["LoadMask2D", "LoadMask2Dd", "to_binary", "to_classes"]

_NEAR = 32
"""A value this near to 0 or 255 is one of them, displaced by JPEG."""
_CLASS_ONE = 3
"""A lossy file that is no brighter holds class numbers {0, 1}, displaced by JPEG; black alone stays exactly 0."""
_THIRD_CLASS = 0.005
"""One value between the two ends that holds this share of the pixels is a third class, not a blurred border."""


def to_binary(picture: Picture, name: str, *, threshold: int = 127, strict: bool = True) -> npt.NDArray[np.uint8]:
    """Return a mask of {0, 1}.

    Accepted are {0, 1}; {0, 255}; {0, 65535} in 16 bits; and 8-bit masks with a blurred border or with JPEG's
    noise, which become ``value > threshold``. A JPEG whose largest value is at most 3 holds {0, 1} with JPEG's noise,
    as programs write that save labels in the image's own format, and becomes ``value >= 1``. The channels of a
    colour mask are united by their largest value.

    Args:
        picture: what a reader gave.
        name: the file, for the error.
        threshold: 8-bit values above it are foreground.
        strict: refuse ambiguous values; otherwise the threshold decides whatever they are (on the scale 0..255, or on
            the raw values where the file has no white).

    Returns:
        uint8 ``(H, W, 1)``.

    Raises:
        DataError: when the values could mean something else (three grey levels, class numbers, a JPEG that is neither
            black nor has white, …) and ``strict``.
    """
    values: npt.NDArray[Any] = picture.rows.max(axis=2, keepdims=True)
    found, counts = _histogram(values)
    white = float(picture.white or 255)
    if not strict:
        on_scale = values if white in (1, 255) else values * (255 / white)
        return np.asarray(on_scale > (0 if white == 1 else threshold)).astype(np.uint8)
    if set(found) <= {0, 1} or (picture.is_lossy and found[-1] <= _CLASS_ONE):
        return np.asarray(values >= 1).astype(np.uint8)
    if set(found) <= {0, white} or set(found) <= {0, 255}:
        return np.asarray(values > 0).astype(np.uint8)
    if values.dtype == np.uint8 and _is_two_levels(found, counts, is_lossy=picture.is_lossy):
        return np.asarray(values > threshold).astype(np.uint8)
    shown = ", ".join(f"{value:g}" for value in found[:8]) + (", …" if len(found) > 8 else "")
    raise DataError(
        f"{name} is no binary mask: it holds {len(found)} values ({shown}) where {{0, 1}} or {{0, {white:g}}} was "
        "expected; mend the mask, load class numbers with num_classes, or set strict to false for a plain threshold"
    )


def to_classes(picture: Picture, name: str, num_classes: int) -> npt.NDArray[np.uint8]:
    """Return class numbers.

    Args:
        picture: what a reader gave, palette images as their indices.
        name: the file, for the error.
        num_classes: number of classes, background included.

    Returns:
        uint8 ``(H, W, 1)``, values 0..num_classes-1.

    Raises:
        DataError: when the mask has colours, or another value than these numbers.
    """
    rows = picture.rows
    if rows.shape[2] > 1 and (rows != rows[..., :1]).any():
        raise DataError(
            f"{name} is a colour image, and class numbers 0..{num_classes - 1} were expected; convert it first"
        )
    values = rows[..., :1]
    found, _ = _histogram(values)
    wrong = [f"{value:g}" for value in found if value not in range(num_classes)]
    if wrong:
        raise DataError(
            f"{name} holds the value(s) {', '.join(wrong[:8])}, and class numbers 0..{num_classes - 1} were expected; "
            "mend the mask or correct num_classes"
        )
    return values.astype(np.uint8)


class LoadMask2D(FileLoader):
    """Load one mask as a MetaTensor ``(1, W, H)`` of uint8.

    Args:
        num_classes: None for a binary mask {0, 1}, see ``to_binary``; a number for class numbers, see ``to_classes``.
        threshold: 8-bit values above it are foreground, in a binary mask with blurred borders or JPEG's noise.
        strict: refuse binary masks with ambiguous values.
        max_pixels: largest width times height; larger files are refused before they are decoded.
        image_only: return the mask alone, or the pair (mask, metadata).

    Raises:
        ConfigError: when ``num_classes`` is outside 2..256.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        threshold: int = 127,
        strict: bool = True,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        image_only: bool = True,
    ) -> None:
        super().__init__(max_pixels=max_pixels, image_only=image_only)
        if num_classes is not None and not 2 <= num_classes <= 256:
            raise ConfigError(f"num_classes must be None or lie in 2..256, background included; got {num_classes}")
        self.num_classes = num_classes
        self.threshold = threshold
        self.strict = strict
        # the index is the class; the colour that shows it is anyone's choice
        self._palette: Palette = "index"

    def _pixels(self, picture: Picture, name: str) -> npt.NDArray[np.uint8]:
        if self.num_classes is not None:
            return to_classes(picture, name, self.num_classes)
        return to_binary(picture, name, threshold=self.threshold, strict=self.strict)


class LoadMask2Dd(FileLoaderd):
    """Dictionary form of ``LoadMask2D``: ``data[key]``, a path, becomes uint8 ``(1, W, H)``.

    Args:
        keys: keys of the paths.
        num_classes: None for a binary mask {0, 1}; a number for class numbers 0..num_classes-1.
        threshold: 8-bit values above it are foreground.
        strict: refuse binary masks with ambiguous values.
        image_key: key of the image, loaded before, that the mask must match in size; None for no check.
        max_pixels: largest width times height; larger files are refused before they are decoded.
        meta_keys: where the metadata goes when ``image_only`` is False; default ``{key}_{meta_key_postfix}``.
        meta_key_postfix: see ``meta_keys``.
        overwriting: allow metadata that is already there to be replaced.
        image_only: keep the metadata in the MetaTensor alone.
        allow_missing_keys: skip keys that an item has not.

    Raises:
        ConfigError: when an argument is none of the above.
    """

    def __init__(
        self,
        keys: KeysCollection,
        num_classes: int | None = None,
        *,
        threshold: int = 127,
        strict: bool = True,
        image_key: str | None = "image",
        max_pixels: int = DEFAULT_MAX_PIXELS,
        meta_keys: KeysCollection | None = None,
        meta_key_postfix: str = "meta_dict",
        overwriting: bool = False,
        image_only: bool = True,
        allow_missing_keys: bool = False,
    ) -> None:
        loader = LoadMask2D(
            num_classes, threshold=threshold, strict=strict, max_pixels=max_pixels, image_only=image_only
        )
        super().__init__(
            keys,
            loader,
            meta_keys=meta_keys,
            meta_key_postfix=meta_key_postfix,
            overwriting=overwriting,
            allow_missing_keys=allow_missing_keys,
        )
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any], reader: ImageReader | None = None) -> dict[Hashable, Any]:
        """Load the masks of one item.

        Args:
            data: the item; ``data[image_key]``, when it is a loaded image, gives the size to expect.
            reader: must be None.

        Returns:
            The item with its masks loaded.

        Raises:
            DataError: when a file cannot be read as a mask, or its size is not the image's.
        """
        loaded: dict[Hashable, Any] = super().__call__(data, reader)
        image = loaded.get(self.image_key) if self.image_key is not None else None
        if not isinstance(image, torch.Tensor):
            return loaded
        for key in self.key_iterator(loaded):
            if loaded[key].shape[1:] != image.shape[1:]:
                mask_size, image_size = (" x ".join(map(str, item.shape[1:])) for item in (loaded[key], image))
                names = [getattr(item, "meta", {}).get("filename_or_obj", "?") for item in (loaded[key], image)]
                raise DataError(
                    f"{names[0]} is {mask_size} pixels and its image {names[1]} is {image_size}; "
                    "they must have the same size: pair the right files"
                )
        return loaded


def _histogram(values: npt.NDArray[Any]) -> tuple[list[float], npt.NDArray[np.int64]]:
    if values.dtype == np.uint8:
        counts = np.bincount(values.ravel(), minlength=256)
        found = np.flatnonzero(counts)
        return [float(value) for value in found], counts[found]
    unique, number = np.unique(values, return_counts=True)
    return [float(value) for value in unique], number


def _is_two_levels(found: list[float], counts: npt.NDArray[np.int64], *, is_lossy: bool) -> bool:
    """Tell whether 8-bit values are black and white, apart from noise near the ends and a thin blurred border."""
    values = np.asarray(found)
    if values.max() < 255 - _NEAR or (not is_lossy and values.min() > 0):
        return False
    between = (values >= _NEAR) & (values <= 255 - _NEAR)
    share = counts / counts.sum()
    return bool(share[between].sum() < 0.5) and bool(not (share[between] > _THIRD_CLASS).any())
