"""The threshold of a probability map, chosen on images that are not tested."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from msrf_monai.errors import InputError
from msrf_monai.metrics.regions import check_probabilities, pixels_inside
from msrf_monai.metrics.vessels import images_of

__all__ = ["choose_threshold"]


def choose_threshold(
    probabilities: Sequence[Tensor],
    labels: Sequence[Tensor],
    fovs: Sequence[Tensor] | None = None,
    *,
    steps: int = 1000,
) -> float:
    """Return the threshold with the highest Dice over the pixels of all images together.

    A pixel is found where its probability is the threshold or more, as in ``vessel_scores``. Give it validation
    images: a threshold chosen on the images that are then tested makes the test too good.

    Args:
        probabilities: float in [0, 1], one an image, any shapes.
        labels: true masks, {0, 1}, of the same shapes.
        fovs: fields of view, of the same shapes; the whole images by default.
        steps: the candidates are 1/steps, 2/steps, …, (steps - 1)/steps.

    Returns:
        The best candidate; of several that are equally good the one nearest to 0.5.

    Raises:
        InputError: when there is no image, the numbers of images or the shapes differ, a mask is not binary, a
            probability is outside [0, 1], no pixel of the truth is a vessel, or there are fewer than two steps.
    """
    if steps < 2:
        raise InputError(f"steps is {steps}; expected 2 or more")
    candidates = torch.arange(1, steps, dtype=torch.float64) / steps
    found, right = torch.zeros(2, steps, dtype=torch.long)
    wanted = 0
    for image in images_of(probabilities, labels, fovs):
        said, true = pixels_inside(*image, name="probability")
        check_probabilities(said)
        # compared in the probabilities' own precision, as a decision at this threshold will be
        passed = torch.bucketize(said, candidates.to(said), right=True)
        found += torch.bincount(passed, minlength=steps).cpu()
        right += torch.bincount(passed[true], minlength=steps).cpu()
        wanted += int(true.sum())
    if wanted == 0:
        raise InputError("no pixel of the truth is a vessel, so that no threshold is better than another")
    # entry k: pixels that passed k candidates or more; entry 0, all pixels, has no candidate
    found, right = (counts.flip(0).cumsum(0).flip(0)[1:] for counts in (found, right))
    score = 2 * right.double() / (found + wanted)
    best = torch.where(score == score.max(), (candidates - 0.5).abs(), torch.inf)
    return float(candidates[best.argmin()])
