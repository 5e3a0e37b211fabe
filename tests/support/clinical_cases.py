"""Cases and predictions made of arrays, for tests of what comes after reading."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from msrf_monai.clinical.case import Case, ImageInfo
from msrf_monai.clinical.prediction import Prediction

__all__ = ["array_case", "prediction_of"]


@dataclass(frozen=True)
class _Frames:
    values: npt.NDArray[Any]

    def frame(self, index: int) -> npt.NDArray[Any]:
        return self.values[index].copy()


def array_case(values: npt.NDArray[Any], *, digest: str = "c" * 64, **info: Any) -> Case:
    """A case whose frames are ``(F, H, W)`` or ``(F, H, W, 3)`` values; what ``info`` does not say is that of a PNG."""
    described = ImageInfo(
        **{
            "kind": "raster",
            "frames": len(values),
            "rows": values.shape[1],
            "columns": values.shape[2],
            "samples": 3 if values.ndim == 4 else 1,
            "dtype": values.dtype.name,
            "white": 255.0 if values.dtype == np.uint8 else None,
            **info,
        }
    )
    return Case(digest, (Path("made.png"),), described, _Frames(values))


def prediction_of(
    mask: npt.NDArray[Any], *, classes: int = 0, confidence: float = 0.9, probability: float = 0.75
) -> Prediction:
    """A prediction with this mask ``(F, H, W)``; with ``classes`` also probabilities, the same wherever a class is."""
    maps = None
    if classes:
        numbers = np.arange(1, classes + 1)[None, :, None, None]
        maps = np.where(mask[:, None] == numbers, probability, 0.125).astype(np.float16)
    return Prediction(mask.astype(np.uint8), maps, (confidence,) * len(mask), 0.5)
