"""Topology of vessel maps: does a prediction hang together as the truth does?

Pixel scores hardly notice a vessel that is broken in many places. These scores do, and they depend on choices that
papers seldom print, so here they are:

- The field of view enters first: both masks are set to 0 outside it, and only then are skeletons, components and holes
  looked for. So a ring that the field of view cuts is no ring any more.
- Foreground pixels hang together over edges and corners (8-connected), background pixels over edges only (4-connected).
- Betti number 0 is the number of foreground components. Betti number 1 is the number of holes: background components
  that do not reach the border of the image, around which one may imagine a frame of background.
- Patches do not overlap, start at the first pixel of both axes, and end where the image ends, so the last ones may be
  smaller. In each, components and holes are counted as if it were an image. A patch without any pixel of the field of
  view does not count.
- Where small components are removed, it is from both masks, from the whole image before it is cut into patches.
- The skeleton is that of scikit-image's ``skeletonize``, whose method in two dimensions is Zhang's.

Berger et al. (2024), "Pitfalls of topology-aware image segmentation", show how such choices change rankings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray
from torch import Tensor

from msrf_monai.errors import InputError
from msrf_monai.metrics.regions import as_mask
from msrf_monai.optional import require

__all__ = ["BettiErrors", "betti_errors", "betti_numbers", "centreline_dice"]

_Mask = NDArray[np.bool_]
_EIGHT = np.ones((3, 3), dtype=bool)
_FOUR = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=bool)


@dataclass(frozen=True)
class BettiErrors:
    """How far the topology of a prediction is from that of the truth; 0 is best.

    Args:
        betti0: absolute difference of the numbers of components in the whole image.
        betti1: absolute difference of the numbers of holes in the whole image.
        patch_betti0: absolute difference of the numbers of components in a patch, mean over the patches.
        patch_betti1: absolute difference of the numbers of holes in a patch, mean over the patches.
    """

    betti0: float
    betti1: float
    patch_betti0: float
    patch_betti1: float


def centreline_dice(pred: Tensor, label: Tensor, fov: Tensor | None = None) -> float:
    """Return clDice: the Dice score of centre lines, after Shit et al. (CVPR 2021), on decided masks.

    The harmonic mean of the share of the prediction's skeleton that lies in the truth and the share of the truth's
    skeleton that lies in the prediction. Exchanging the axes moves the skeletons a little: by up to 0.002 in an image
    of CHASE_DB1 or STARE, and by 0.00002 in the mean of the images.

    Args:
        pred: decided mask (H, W), {0, 1}; axes of size 1 may stand before.
        label: true mask, same shape.
        fov: field of view, same shape; the whole image by default.

    Returns:
        Value in [0, 1]. 0 when one of the skeletons is empty, NaN when both are, as nothing can be compared.

    Raises:
        InputError: when a mask is not a plane of 0 and 1 or the shapes differ.
        MissingExtraError: when scikit-image is not installed.
    """
    predicted, true, _ = _planes(pred, label, fov)
    skeletonize = require("skimage.morphology", "train").skeletonize
    lines, true_lines = skeletonize(predicted), skeletonize(true)
    length, true_length = int(lines.sum()), int(true_lines.sum())
    if length == 0 and true_length == 0:
        return float("nan")
    if length == 0 or true_length == 0:
        return 0.0
    found_right = float((lines & true).sum() / length)
    found_of_truth = float((true_lines & predicted).sum() / true_length)
    both = found_right + found_of_truth
    return 2 * found_right * found_of_truth / both if both > 0 else 0.0


def betti_numbers(mask: Tensor) -> tuple[int, int]:
    """Return the number of components (8-connected) and the number of holes (background, 4-connected) of a mask.

    Args:
        mask: decided mask (H, W), {0, 1}; axes of size 1 may stand before.

    Returns:
        Betti numbers 0 and 1. Their difference is the Euler number.

    Raises:
        InputError: when the mask is not a plane of 0 and 1.
    """
    components, holes = _betti(_plane(mask, "mask")[None])
    return int(components[0]), int(holes[0])


def betti_errors(
    pred: Tensor, label: Tensor, fov: Tensor | None = None, *, patch_size: int = 64, min_size: int = 0
) -> BettiErrors:
    """Compare the numbers of components and holes of two masks, in the whole image and patch by patch.

    Args:
        pred: decided mask (H, W), {0, 1}; axes of size 1 may stand before.
        label: true mask, same shape.
        fov: field of view, same shape; the whole image by default.
        patch_size: side of a patch in pixels.
        min_size: components of fewer pixels are removed from both masks first; 0 keeps all.

    Returns:
        The four errors, each 0 or more; NaN when the field of view has no pixel.

    Raises:
        InputError: when a mask is not a plane of 0 and 1, the shapes differ, or a size is out of range.
    """
    if patch_size < 1 or min_size < 0:
        raise InputError(f"patch_size must be 1 or more and min_size 0 or more, got {patch_size} and {min_size}")
    predicted, true, region = _planes(pred, label, fov)
    if not region.any():
        return BettiErrors(*[float("nan")] * 4)
    if min_size > 1:
        predicted, true = _without_small(predicted, min_size), _without_small(true, min_size)
    whole = [abs(one - other) for one, other in zip(_betti(predicted[None]), _betti(true[None]), strict=True)]
    counted = _patches(region, patch_size).any(axis=(1, 2))
    of_pred, of_label = (_betti(_patches(mask, patch_size)[counted]) for mask in (predicted, true))
    patch = [float(np.abs(one - other).mean()) for one, other in zip(of_pred, of_label, strict=True)]
    return BettiErrors(float(whole[0][0]), float(whole[1][0]), patch[0], patch[1])


def _plane(mask: Tensor, name: str) -> _Mask:
    decided = as_mask(mask, name=name)
    while decided.ndim > 2 and decided.shape[0] == 1:
        decided = decided[0]
    if decided.ndim != 2:
        raise InputError(f"{name} must be one image (H, W), got shape {tuple(mask.shape)}")
    plane: _Mask = decided.cpu().numpy()
    return plane


def _planes(pred: Tensor, label: Tensor, fov: Tensor | None) -> tuple[_Mask, _Mask, _Mask]:
    """Return prediction and truth, both 0 outside the field of view, and the field of view."""
    predicted, true = _plane(pred, "pred"), _plane(label, "label")
    region = np.ones_like(true) if fov is None else _plane(fov, "fov")
    for name, plane in (("pred", predicted), ("fov", region)):
        if plane.shape != true.shape:
            raise InputError(f"{name} has shape {plane.shape}, expected that of label, {true.shape}")
    return predicted & region, true & region, region


def _betti(stack: _Mask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers of components and holes of each mask (N, H, W)."""
    framed = np.pad(stack, ((0, 0), (1, 1), (1, 1)))  # all background that reaches the border is one component
    return _components(framed, _EIGHT), _components(~framed, _FOUR) - 1


def _components(stack: _Mask, neighbours: _Mask) -> NDArray[np.int64]:
    """Count the components of each mask (N, H, W) in one pass: planes do not touch each other."""
    structure = np.zeros((3, 3, 3), dtype=bool)
    structure[1] = neighbours
    labels, count = scipy.ndimage.label(stack, structure)
    plane = np.zeros(count + 1, dtype=np.int64)
    plane[labels] = np.arange(len(stack))[:, None, None]  # entry 0, the rest of the image, is dropped
    found: NDArray[np.int64] = np.bincount(plane[1:], minlength=len(stack))
    return found


def _patches(mask: _Mask, size: int) -> _Mask:
    """Cut a mask into (N, size, size); what the last patches lack is background."""
    padded = np.pad(mask, [(0, -length % size) for length in mask.shape])
    rows, columns = (length // size for length in padded.shape)
    return padded.reshape(rows, size, columns, size).swapaxes(1, 2).reshape(-1, size, size)


def _without_small(mask: _Mask, min_size: int) -> _Mask:
    labels, _ = scipy.ndimage.label(mask, _EIGHT)
    kept = np.bincount(labels.ravel()) >= min_size
    kept[0] = False
    remaining: _Mask = kept[labels]
    return remaining
