"""What a predictor gives and the writers need: masks and probabilities on the pixel grid of a case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from msrf_monai.errors import InputError

__all__ = ["Prediction"]


@dataclass(frozen=True)
class Prediction:
    """All frames of one case on the case's own pixel grid (rows, columns, upright as ``Case.frame`` gives them).

    Raises:
        InputError: when the arrays do not belong together.
    """

    mask: npt.NDArray[np.uint8]
    """``(F, H, W)`` class numbers 0..K; 0 and 1 for a binary network."""
    probabilities: npt.NDArray[np.float16] | None
    """``(F, K, H, W)`` of the foreground classes in [0, 1]; None when they were not asked for."""
    confidence: tuple[float, ...]
    """One a frame in [0, 1]: the mean over the pixels of max(p, 1 - p), or of the largest class probability."""
    seconds: float
    """Time in the network and the transforms."""
    flip_agreement: tuple[float, ...] | None = None
    """One a frame in [0, 1]: Dice of the masks of a frame and of its mirror image, the mean of the classes; None when
    that was not tried."""
    traits: tuple[Mapping[str, float], ...] | None = None
    """One a frame: what it looks like, see ``msrf_monai.clinical.traits``; None when that was not measured."""

    def __post_init__(self) -> None:
        if self.mask.ndim != 3 or self.mask.dtype != np.uint8:
            raise InputError(f"mask is {self.mask.shape} {self.mask.dtype}; expected (F, H, W) uint8")
        frames, *size = self.mask.shape
        if len(self.confidence) != frames:
            raise InputError(f"{frames} masks came with {len(self.confidence)} confidences; expected one a frame")
        for name in ("flip_agreement", "traits"):
            each = getattr(self, name)
            if each is not None and len(each) != frames:
                raise InputError(f"{frames} masks came with {len(each)} of {name}; expected one a frame")
        maps = self.probabilities
        if maps is None:
            return
        if maps.ndim != 4 or maps.dtype != np.float16 or [maps.shape[0], *maps.shape[2:]] != [frames, *size]:
            raise InputError(
                f"probabilities are {maps.shape} {maps.dtype}; expected ({frames}, K, {size[0]}, {size[1]}) float16"
            )
