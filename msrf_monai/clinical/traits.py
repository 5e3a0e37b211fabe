"""What a frame looks like before any preprocessing, in a few numbers, to tell one that is unlike the training data."""

from __future__ import annotations

import numpy as np

from msrf_monai.transforms.picture import Picture

__all__ = ["traits_of"]

_MOST = 256
"""Pixels of a side that are looked at; larger frames are thinned out evenly."""


def traits_of(picture: Picture) -> dict[str, float]:
    """Measure a frame in numbers that do not depend on a network.

    Values count on the scale 0 to 255 where the picture has a white, and as they are where it has none. Of three
    channels the mean at each pixel counts, except for the two last traits, which are 0 for one channel.

    Args:
        picture: the frame, as the bundle's loader takes it; its values are finite.

    Returns:
        Every trait that ``msrf_monai.clinical.quality.TRAITS`` describes.
    """
    rows, columns = picture.rows.shape[:2]
    # NumPy sums in one order whatever the number of threads, so that a result has the same bytes everywhere
    thin = picture.rows[:: -(-rows // _MOST), :: -(-columns // _MOST)]
    planes = np.ascontiguousarray(np.moveaxis(thin, 2, 0), dtype=np.float64)
    planes *= 255 / picture.white if picture.white else 1
    grey, channels = planes.mean(axis=0), planes.mean(axis=(1, 2))
    ordered = np.sort(grey, axis=None)
    margin = ordered.size // 100
    return {
        "shorter_side": float(min(rows, columns)),
        "aspect": max(rows, columns) / min(rows, columns),
        "darkest": float(ordered[margin]),
        "brightest": float(ordered[-1 - margin]),
        "brightness": float(grey.mean()),
        "contrast": float(grey.std()),
        "colourfulness": float((planes.max(axis=0) - planes.min(axis=0)).mean()),
        "warmth": float(channels[0] - channels[-1]),
    }
