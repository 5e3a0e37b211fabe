"""Edge maps of images and of masks, as MSRF-Net takes them: Canny in OpenCV's form, on rows and columns.

Every NumPy array here is in row order, ``(H, W)`` or ``(H, W, C)``, as an image file is drawn. Canny breaks ties
between equal gradients by direction, so a map made on a transposed image can differ in single pixels; the one function
for tensors, ``mask_edge_target``, therefore transposes MONAI's ``(…, W, H)`` planes first.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch

from msrf_monai.errors import InputError

__all__ = ["HIGH", "LOW", "adaptive_thresholds", "canny_edges", "gradient_magnitude", "mask_edge_target", "mask_edges"]

LOW = 10.0
"""Lower Canny threshold of the published code: L1 norm of the 3x3 Sobel response."""
HIGH = 1000.0
"""Upper Canny threshold of the published code, of at most 2040 that an 8-bit image can reach."""

UInt8 = npt.NDArray[np.uint8]


def canny_edges(
    image: npt.NDArray[np.generic],
    *,
    low: float = LOW,
    high: float = HIGH,
    adaptive: bool = False,
    quantile: float = 0.9,
    ratio: float = 0.4,
) -> UInt8:
    """Return Canny's edge map of an image: aperture 3, L1 gradient, no blur, per pixel the channel of largest gradient.

    With the published thresholds the map of a low-contrast photograph is empty. ``adaptive`` takes both thresholds from
    the image's own gradients, so that only a constant image has an empty map.

    Args:
        image: ``(H, W)`` or ``(H, W, C)``, values 0..255; anything but uint8 is rounded and clipped first.
        low: threshold that continues an edge; unused when ``adaptive``.
        high: threshold that starts an edge; unused when ``adaptive``.
        adaptive: take the thresholds from the gradients of this image.
        quantile: share of the pixels with any gradient that lies below the upper threshold, when ``adaptive``.
        ratio: lower threshold as a part of the upper one, when ``adaptive``.

    Returns:
        uint8 ``(H, W)``, values {0, 1}.

    Raises:
        InputError: when the array is no image, or holds NaN or infinity.
    """
    pixels = _as_uint8(image)
    if not adaptive:
        return _canny(pixels, low, high)
    magnitude = gradient_magnitude(pixels)
    low, high = adaptive_thresholds(magnitude, quantile=quantile, ratio=ratio)
    edges = _canny(pixels, low, high)
    if not edges.any():
        # a plateau of equal gradients can lose every pixel to non-maximum suppression: keep the steepest ones
        edges = ((magnitude == magnitude.max()) & (magnitude > 0)).astype(np.uint8)
    return edges


def gradient_magnitude(image: UInt8) -> npt.NDArray[np.int32]:
    """Return the L1 norm of the 3x3 Sobel gradient, its largest over the channels.

    Args:
        image: uint8 ``(H, W)`` or ``(H, W, C)``.

    Returns:
        int32 ``(H, W)``, 0..2040; the border pixels are repeated outwards, as Canny does.
    """
    along_x = cv2.Sobel(image, cv2.CV_16S, 1, 0, ksize=3, borderType=cv2.BORDER_REPLICATE)
    along_y = cv2.Sobel(image, cv2.CV_16S, 0, 1, ksize=3, borderType=cv2.BORDER_REPLICATE)
    magnitude = np.abs(along_x.astype(np.int32)) + np.abs(along_y.astype(np.int32))
    largest: npt.NDArray[np.int32] = magnitude.reshape(*image.shape[:2], -1).max(axis=2)
    return largest


def adaptive_thresholds(
    magnitude: npt.NDArray[np.int32], *, quantile: float = 0.9, ratio: float = 0.4
) -> tuple[float, float]:
    """Return (low, high) thresholds such that the steepest ``1 - quantile`` of the sloping pixels can start an edge.

    Args:
        magnitude: gradient magnitudes, any shape, integers >= 0; flat pixels (0) do not count.
        quantile: 0 < quantile < 1.
        ratio: 0 < ratio <= 1.

    Returns:
        The thresholds; both are 0 for a constant image.

    Raises:
        InputError: when ``quantile`` or ``ratio`` is outside its range.
    """
    if not 0 < quantile < 1 or not 0 < ratio <= 1:
        raise InputError(f"quantile must lie in (0, 1) and ratio in (0, 1], got quantile={quantile} and ratio={ratio}")
    sloping = magnitude[magnitude > 0]
    if sloping.size == 0:
        return 0.0, 0.0
    steep = float(np.floor(np.quantile(sloping, quantile)))
    # Canny compares with '>' and magnitudes are integers: one less lets the quantile itself start an edge
    return max(np.floor(steep * ratio) - 1.0, 0.0), max(steep - 1.0, 0.0)


def mask_edges(mask: npt.NDArray[np.generic], *, low: float = LOW, high: float = HIGH) -> UInt8:
    """Return the outline of every class of a mask, one class at a time, united.

    Args:
        mask: ``(H, W)`` or ``(H, W, K)``: K planes of {0, 1}, or one plane of class numbers 0..255.
        low: lower Canny threshold on the mask times 255.
        high: upper Canny threshold on the mask times 255.

    Returns:
        uint8 ``(H, W)``, values {0, 1}.

    Raises:
        InputError: when the array is no mask, or holds NaN or infinity.
    """
    classes = _as_uint8(mask)
    planes = classes[..., None] if classes.ndim == 2 else classes
    if planes.shape[2] == 1 and planes.max() > 1:
        planes = np.stack([planes[..., 0] == value for value in np.unique(planes) if value], axis=2)
    edges = np.zeros(planes.shape[:2], np.uint8)
    for plane in np.moveaxis(planes, 2, 0):
        edges |= canny_edges(np.ascontiguousarray(plane != 0).astype(np.uint8) * np.uint8(255), low=low, high=high)
    return edges


def mask_edge_target(mask: torch.Tensor, *, low: float = LOW, high: float = HIGH) -> torch.Tensor:
    """Return the edge target of a batch of masks, for a loss whose target brings no edge plane.

    Args:
        mask: ``(B, K, W, H)`` in MONAI's axis order for files, {0, 1}; values above 0.5 count as 1. Any device.
        low: lower Canny threshold on the mask times 255.
        high: upper Canny threshold on the mask times 255.

    Returns:
        ``(B, 1, W, H)``, {0, 1}, in the dtype (float32 for integers and bool) and on the device of ``mask``;
        no gradient.

    Raises:
        InputError: when ``mask`` has not four axes.
    """
    if mask.ndim != 4:
        raise InputError(f"a batch of masks has the shape (B, K, W, H), got {tuple(mask.shape)}")
    dtype = mask.dtype if mask.is_floating_point() else torch.float32
    rows = (mask.detach() > 0.5).to(device="cpu", dtype=torch.uint8).permute(0, 3, 2, 1).numpy()
    edges = np.stack([mask_edges(np.ascontiguousarray(item), low=low, high=high) for item in rows])
    return torch.from_numpy(edges).permute(0, 2, 1).unsqueeze(1).to(device=mask.device, dtype=dtype)


def _canny(pixels: UInt8, low: float, high: float) -> UInt8:
    return np.asarray(cv2.Canny(pixels, low, high) > 0).astype(np.uint8)


def _as_uint8(image: npt.NDArray[np.generic]) -> UInt8:
    """Return a contiguous uint8 copy or view: values rounded, clipped to 0..255."""
    if image.ndim not in (2, 3) or image.size == 0:
        raise InputError(f"an image has the shape (H, W) or (H, W, C) and at least one pixel, got {image.shape}")
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    if image.dtype == np.bool_:
        return np.ascontiguousarray(image).astype(np.uint8)
    values = image.astype(np.float32)
    if not np.isfinite(values).all():
        raise InputError("the image holds NaN or infinity, so it has no edges; check the transforms before this one")
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
