"""What a bundle's scores mean: probabilities of the foreground classes, class numbers of each pixel, confidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from msrf_monai.errors import ConfigError
from msrf_monai.transforms.rows import plain

__all__ = ["ScoreMeaning", "class_rows", "dice_of_classes"]

Units = Literal["probabilities", "logits", "unknown"]


@dataclass(frozen=True)
class ScoreMeaning:
    """How the planes of a network's scores are read, as the bundle's chain and metadata tell."""

    units: Units
    """``"unknown"`` takes values within [0, 1] for probabilities and others for logits."""
    is_exclusive: bool
    """Two planes and more exclude each other, and the first one is the background."""

    def probabilities(self, scores: torch.Tensor) -> torch.Tensor:
        """Return the probability of every plane.

        Args:
            scores: ``(C, W, H)``.

        Returns:
            float32 ``(C, W, H)`` in [0, 1].
        """
        values = plain(scores).detach().float()
        is_probability = self.units == "probabilities"
        if self.units == "unknown":
            is_probability = bool(values.min() >= 0) and bool(values.max() <= 1)
        if is_probability:
            return values.clamp(0, 1)  # interpolation may leave the range by a rounding
        return torch.softmax(values, dim=0) if self._has_background(values) else torch.sigmoid(values)

    def foreground(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Return the planes ``(K, W, H)`` of the foreground classes."""
        return probabilities[1:] if self._has_background(probabilities) else probabilities

    def confidence(self, probabilities: torch.Tensor) -> float:
        """Return the mean over the pixels of the largest class probability, or of max(p, 1 - p)."""
        if self._has_background(probabilities):
            return float(probabilities.amax(dim=0).mean(dtype=torch.float64))
        return float(torch.maximum(probabilities, 1 - probabilities).mean(dtype=torch.float64))

    def _has_background(self, planes: torch.Tensor) -> bool:
        return self.is_exclusive and planes.shape[0] > 1


def class_rows(
    decided: torch.Tensor, foreground: torch.Tensor, *, has_background: bool, size: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """Return the class number of every pixel, in rows and columns.

    Args:
        decided: what the bundle's chain gave: class numbers ``(1, W, H)`` or ``(W, H)``, or one plane {0, 1} a class
            ``(P, W, H)``; where such planes overlap, the more probable class is taken.
        foreground: probabilities ``(K, W, H)`` on the same pixels.
        has_background: the first of several planes is the background.
        size: rows and columns of the case.

    Returns:
        ``(H, W)``.

    Raises:
        ConfigError: when the mask is not on the case's pixels, or holds something else than class numbers.
    """
    values = plain(decided).detach().cpu()
    values = values[None] if values.ndim == 2 else values
    rows, columns = size
    if values.ndim != 3 or tuple(values.shape[1:]) != (columns, rows):
        raise ConfigError(
            f"the bundle's postprocessing gives {tuple(decided.shape)} for an image of {columns} x {rows} pixels; "
            "it must bring masks back to the image's size (Invertd or RestoreSized)"
        )
    if values.shape[0] > 1:
        planes = values[1:] if has_background else values
        weight = foreground.cpu() if planes.shape[0] == foreground.shape[0] else torch.ones_like(planes)
        scores = torch.where(planes > 0, weight.float() + 1, 0.0)
        values = torch.where(scores.amax(0) > 0, scores.argmax(0) + 1, 0)[None]
    numbers = values[0].T.numpy()
    with np.errstate(invalid="ignore"):
        mask = numbers.astype(np.uint8)
    if not np.array_equal(mask, numbers):
        raise ConfigError(
            "the bundle's postprocessing gives a mask with other values than class numbers 0..255; decide it with "
            "AsDiscreted or DecideMaskd"
        )
    return np.ascontiguousarray(mask)


def dice_of_classes(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Return the mean Dice of the classes that one of two masks has at least.

    Args:
        one: class numbers of any shape; 0 is the background.
        other: the same shape.

    Returns:
        In [0, 1]; 1 when neither mask has anything.
    """
    classes = sorted({*np.unique(one).tolist(), *np.unique(other).tolist()} - {0})
    found = [(one == number, other == number) for number in classes]
    scores = [2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)) for a, b in found]
    return float(np.mean(scores)) if scores else 1.0
