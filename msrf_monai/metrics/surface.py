"""Distance between the outlines of two masks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.surface_distance import compute_average_surface_distance
from torch import Tensor

from msrf_monai.errors import InputError

__all__ = ["average_surface_distance", "hausdorff", "hausdorff95"]


def hausdorff95(pred: Tensor, label: Tensor, *, spacing: Sequence[float] | None = None) -> Tensor:
    """Return the 95th percentile Hausdorff distance of each image, computed by MONAI.

    Args:
        pred: decided masks (B, X, Y) of {0, 1}.
        label: true masks, same shape.
        spacing: size of a pixel along X and Y, such as millimetres; 1 and 1 by default, which makes pixels the unit.

    Returns:
        float64 (B,), 0 or more: the larger of the two directions' percentiles. Both masks empty is 0. Exactly one
        empty is NaN, since no distance exists: leave it out of a mean and say how many there were.

    Raises:
        InputError: when the shapes differ or are not (B, X, Y).
    """
    return _distances(pred, label, spacing, compute_hausdorff_distance, percentile=95)


def hausdorff(pred: Tensor, label: Tensor, *, spacing: Sequence[float] | None = None) -> Tensor:
    """Return the Hausdorff distance of each image, the largest one of all; otherwise as ``hausdorff95``."""
    return _distances(pred, label, spacing, compute_hausdorff_distance, percentile=None)


def average_surface_distance(pred: Tensor, label: Tensor, *, spacing: Sequence[float] | None = None) -> Tensor:
    """Return the mean distance from the pixels of both outlines to the other one (ASSD); else as ``hausdorff95``."""
    return _distances(pred, label, spacing, compute_average_surface_distance, symmetric=True)


def _distances(
    pred: Tensor, label: Tensor, spacing: Sequence[float] | None, compute: Callable[..., Any], **options: Any
) -> Tensor:
    if pred.shape != label.shape or pred.ndim != 3:
        raise InputError(f"expected two masks (B, X, Y), got {tuple(pred.shape)} and {tuple(label.shape)}")
    distances = torch.zeros(len(pred), dtype=torch.float64)
    # "any" of uint8 is uint8, which does not index as a mask
    has_pred, has_label = (mask.flatten(1).bool().any(1).cpu() for mask in (pred, label))
    distances[has_pred != has_label] = torch.nan
    both = has_pred & has_label
    if both.any():
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*always_return_as_numpy", category=FutureWarning)  # MONAI's own
            found = compute(
                pred[both][:, None].float(),
                label[both][:, None].float(),
                include_background=True,
                spacing=None if spacing is None else [float(size) for size in spacing],
                **options,
            )
        distances[both] = torch.as_tensor(found).flatten().cpu().double()
    return distances
