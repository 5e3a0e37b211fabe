"""What a reader gives: the pixels of one 2-D image in row order, and how to read their values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from msrf_monai.errors import ConfigError, DataError

__all__ = ["Intensity", "Picture", "check_intensity", "to_channels", "to_intensity"]

Intensity = Literal["full_range", "minmax"]


@dataclass(frozen=True)
class Picture:
    """One 2-D image as its file stores it."""

    rows: npt.NDArray[Any]
    """``(H, W, C)`` with C 1 or 3, writable; alpha is gone, palettes are resolved, EXIF orientation is applied."""
    white: float | None
    """The value that stands for white (1, 255, 65535), or None when the file does not say (float, class numbers)."""
    is_lossy: bool = False
    """True when the compression changes values, as JPEG's does."""
    meta: dict[str, Any] = field(default_factory=dict)
    """What the reader knows beyond the pixels, such as a NIfTI affine; joins the MetaTensor's metadata."""
    depth: int | None = None
    """The number of slices, which lie one below the other in ``rows``; None for files that have no axis for them."""


def check_intensity(intensity: str) -> None:
    """Raise ``ConfigError`` unless ``intensity`` is one of the known rules."""
    if intensity not in get_args(Intensity):
        raise ConfigError(f"intensity must be one of {', '.join(get_args(Intensity))}; got {intensity!r}")


def to_intensity(picture: Picture, intensity: Intensity, name: str) -> npt.NDArray[Any]:
    """Return the pixels on the scale 0..255.

    Args:
        picture: what a reader gave.
        intensity: ``"full_range"`` maps 0..white to 0..255 and leaves 8-bit images as they are; values without a known
            white are taken as they are within 0..255, and times 255 when they are fractions within 0..1. ``"minmax"``
            maps the image's own smallest and largest value to 0 and 255.
        name: the file, for the error.

    Returns:
        uint8 for 8-bit images under ``"full_range"``, float32 in [0, 255] otherwise; the shape of ``picture.rows``.

    Raises:
        DataError: when values are not finite, or lie outside every range that ``"full_range"`` knows.
    """
    rows = picture.rows
    if intensity == "full_range" and rows.dtype == np.uint8:
        return rows if picture.white != 1 else rows * np.uint8(255)
    values = rows.astype(np.float32)
    if not np.isfinite(values).all():
        raise DataError(f"{name} holds NaN or infinite pixels; mend or remove the file")
    smallest, largest = float(values.min()), float(values.max())
    if intensity == "minmax":
        return (values - smallest) * np.float32(255 / max(largest - smallest, 1e-12))
    white = picture.white
    if white is None and smallest >= 0 and largest <= 255:
        is_fraction = largest <= 1 and np.issubdtype(rows.dtype, np.floating)
        white = 1.0 if is_fraction else 255.0
    if white is None:
        raise DataError(
            f"{name} holds values from {smallest:g} to {largest:g}, and nothing says which one is white; "
            'load it with intensity="minmax" or convert it to 8 bits'
        )
    return values if white == 255 else values * np.float32(255 / white)


def to_channels(rows: npt.NDArray[Any], channels: int) -> npt.NDArray[Any]:
    """Return ``(H, W, channels)``: grey repeated to RGB, or RGB weighed to grey (ITU-R 601, as Pillow's mode L).

    Args:
        rows: ``(H, W, 1)`` or ``(H, W, 3)``, uint8 or float32.
        channels: 1 or 3.

    Returns:
        An array of the same dtype.
    """
    if rows.shape[2] == channels:
        return rows
    if channels == 3:
        return np.repeat(rows, 3, axis=2)
    if rows.dtype == np.uint8:
        return np.array(Image.fromarray(rows).convert("L"))[..., None]
    return np.asarray(cv2.cvtColor(rows, cv2.COLOR_RGB2GRAY))[..., None]
