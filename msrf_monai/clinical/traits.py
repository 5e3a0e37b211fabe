"""What a frame looks like before any preprocessing, in a few numbers, to tell one that is unlike the training data."""

from __future__ import annotations

import numpy as np
import torch

from msrf_monai.transforms.rows import plain

__all__ = ["traits_of"]

_MOST = 256
"""Pixels of a side that are looked at; larger frames are thinned out evenly."""


def traits_of(image: torch.Tensor) -> dict[str, float]:
    """Measure a frame in numbers that do not depend on a network.

    Values are those that the bundle's loading transform gives, 0 to 255 for ``LoadImage2Dd``. Of several channels the
    mean at each pixel counts, except for the two last traits, which are 0 for one channel.

    Args:
        image: ``(C, W, H)`` of any dtype, as loaded and before any preprocessing.

    Returns:
        Every trait that ``msrf_monai.clinical.quality.TRAITS`` describes; NaN where the values are not finite.
    """
    planes = plain(image)
    across, down = planes.shape[1:]
    # NumPy sums in one order whatever the number of threads, so that a result has the same bytes everywhere
    thin = planes[:, :: -(-across // _MOST), :: -(-down // _MOST)].numpy(force=True).astype(np.float64)
    grey, channels = thin.mean(axis=0), thin.mean(axis=(1, 2))
    ordered = np.sort(grey, axis=None)
    margin = ordered.size // 100
    return {
        "shorter_side": float(min(across, down)),
        "aspect": max(across, down) / min(across, down),
        "darkest": float(ordered[margin]),
        "brightest": float(ordered[-1 - margin]),
        "brightness": float(grey.mean()),
        "contrast": float(grey.std()),
        "colourfulness": float((thin.max(axis=0) - thin.min(axis=0)).mean()),
        "warmth": float(channels[0] - channels[-1]),
    }
