"""The eight ways in which a picture's rows may be stored, as EXIF and TIFF number them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["upright"]


def upright(stored: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Turn a stored picture as its EXIF orientation says.

    Args:
        stored: ``(H, W, …)``.
        orientation: 1 to 8; anything else counts as 1, upright already.

    Returns:
        The upright picture, contiguous; for 5 to 8 rows and columns have changed places.
    """
    if orientation not in range(1, 9):
        orientation = 1
    turned = np.swapaxes(stored, 0, 1) if orientation >= 5 else stored
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    return np.ascontiguousarray(turned)
