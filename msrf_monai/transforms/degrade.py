"""What harms an image and leaves its geometry: blur, holes, grey levels and colours of another camera."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import torch

from msrf_monai.errors import InputError
from msrf_monai.transforms.rows import plain, to_planes, to_rows

__all__ = ["box_blur", "cut_out", "scale_and_shift", "shift_hsv"]


def box_blur(img: torch.Tensor, size: int) -> torch.Tensor:
    """Replace each pixel by the mean of the square around it, the image mirrored at the centres of its rim.

    MONAI's mean filter takes 0 outside, which darkens the rim.

    Args:
        img: ``(C, W, H)``, uint8 or float32.
        size: side of the square in pixels, odd.

    Returns:
        A plain tensor of the same shape and dtype.

    Raises:
        InputError: when ``size`` is even or below 1.
    """
    if size < 1 or size % 2 == 0:
        raise InputError(f"the side of a box blur must be odd and at least 1, got {size}")
    return to_planes(np.asarray(cv2.blur(to_rows(img), (size, size), borderType=cv2.BORDER_REFLECT_101)))


def cut_out(img: torch.Tensor, boxes: Iterable[tuple[int, int, int, int]]) -> torch.Tensor:
    """Blacken rectangles.

    Args:
        img: ``(C, W, H)``.
        boxes: left, top, right and bottom of each in pixels, the last two outside of it.

    Returns:
        A plain tensor of the same shape and dtype.
    """
    cut = plain(img).clone()
    for left, top, right, bottom in boxes:
        cut[:, max(left, 0) : max(right, 0), max(top, 0) : max(bottom, 0)] = 0
    return cut


def scale_and_shift(img: torch.Tensor, *, contrast: float = 1.0, brightness: float = 0.0) -> torch.Tensor:
    """Multiply all values and add to them, clipped to 0..255.

    Args:
        img: any shape, values 0..255.
        contrast: factor.
        brightness: what is added, as a share of 255.

    Returns:
        A plain tensor of the same shape; uint8, rounded, for uint8, else float32.
    """
    tensor = plain(img)
    return _like((tensor.to(torch.float32) * contrast + 255 * brightness).clamp_(0, 255), tensor)


def shift_hsv(img: torch.Tensor, *, hue: float = 0.0, saturation: float = 0.0, value: float = 0.0) -> torch.Tensor:
    """Add to hue, saturation and value of an RGB image; the last two are clipped to 0..1.

    Args:
        img: ``(3, W, H)``, values 0..255.
        hue: in degrees.
        saturation: -1..1.
        value: -1..1, as a share of the full scale.

    Returns:
        A plain tensor of the same shape; uint8, rounded, for uint8, else float32.

    Raises:
        InputError: when ``img`` has not three channels.
    """
    tensor = plain(img)
    if tensor.ndim != 3 or tensor.shape[0] != 3:
        raise InputError(f"an RGB image (3, W, H) was expected, got the shape {tuple(tensor.shape)}")
    hsv = cv2.cvtColor(to_rows(tensor).astype(np.float32) / np.float32(255), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + np.float32(hue)) % 360
    hsv[..., 1:] = np.clip(hsv[..., 1:] + np.array([saturation, value], np.float32), 0, 1)
    rgb = to_planes(np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)))
    return _like((rgb * 255).clamp_(0, 255).to(tensor.device), tensor)


def _like(values: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    return values.round_().to(torch.uint8) if tensor.dtype == torch.uint8 else values
