"""Resampling of one image in row order, by the libraries that do it fastest or that the published code used."""

from __future__ import annotations

from typing import Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from msrf_monai.errors import ConfigError

__all__ = ["ResizeMode", "check_mode", "resize_rows"]

ResizeMode = Literal["lanczos", "area", "bilinear", "nearest", "lanczos_mask"]

_CV2 = {"area": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR, "nearest": cv2.INTER_NEAREST_EXACT}


def check_mode(mode: str) -> None:
    """Raise ``ConfigError`` unless ``mode`` is a known way of resampling."""
    if mode not in get_args(ResizeMode):
        raise ConfigError(f"mode must be one of {', '.join(get_args(ResizeMode))}; got {mode!r}")


def resize_rows(rows: npt.NDArray[Any], width: int, height: int, mode: ResizeMode) -> npt.NDArray[Any]:
    """Resample an image; pixel centres keep their relative place (half-pixel rule) in every mode.

    Args:
        rows: ``(H, W, C)``, contiguous; uint8 or float32, anything else is computed as float32.
        width: new number of columns.
        height: new number of rows.
        mode: ``"lanczos"``: Pillow's filter, what the published code uses, for uint8 to the last bit; ``"area"``: means
            of the covered pixels, four times as fast when shrinking; ``"bilinear"``: four neighbours, no smoothing when
            shrinking; ``"nearest"``: the pixel under the new centre, as Pillow picks it; ``"lanczos_mask"``: the
            published code's way with masks {0, 1}: Lanczos on 255 times the mask, then >= 127.5.

    Returns:
        ``(height, width, C)``, uint8 for uint8 and float32 for all else.
    """
    if rows.dtype != np.uint8 and rows.dtype != np.float32:
        rows = rows.astype(np.uint8 if rows.dtype == np.bool_ else np.float32)
    if mode == "lanczos":
        return _lanczos(rows, width, height)
    if mode == "lanczos_mask":
        grey = (rows > 0).astype(np.uint8) * np.uint8(255)
        return (_lanczos(grey, width, height) >= 128).astype(rows.dtype)
    if rows.shape[2] <= 4:
        resized = np.asarray(cv2.resize(rows, (width, height), interpolation=_CV2[mode]))
        return resized if resized.ndim == 3 else resized[..., None]
    planes = [
        cv2.resize(np.ascontiguousarray(rows[..., index]), (width, height), interpolation=_CV2[mode])
        for index in range(rows.shape[2])
    ]
    return np.stack(planes, axis=2)


def _lanczos(rows: npt.NDArray[Any], width: int, height: int) -> npt.NDArray[Any]:
    if rows.dtype == np.uint8 and rows.shape[2] == 3:
        return np.array(Image.fromarray(rows).resize((width, height), Image.Resampling.LANCZOS))
    planes = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(rows[..., index])).resize((width, height), Image.Resampling.LANCZOS)
        )
        for index in range(rows.shape[2])
    ]
    return np.stack(planes, axis=2)
