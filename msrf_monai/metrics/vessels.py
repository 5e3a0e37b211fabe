"""All scores of a vessel map: pixels inside the field of view, ranking, calibration and topology.

Primary protocol: native resolution, inside the field of view. Legacy protocol, for comparison with tables that were
made so: the whole image with its black surround, ``fov=None``. The surround is easy, so it lifts accuracy, specificity
and the area under the ROC curve, but hardly F1, MCC or the area under the precision-recall curve.

A score whose formula divides 0 by 0 is NaN, unlike in ``msrf_monai.metrics.overlap``: sensitivity, AUC-ROC and AUC-PR
without a vessel in the truth, specificity and AUC-ROC without background, PPV where nothing is found, NPV where
everything is, F1 where neither mask has a vessel, MCC where a mask is empty or full; everything when the field of view
has no pixel. Leave such images out of means and say how many there were.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from msrf_monai.errors import InputError
from msrf_monai.metrics.calibration import expected_calibration_error
from msrf_monai.metrics.overlap import Confusion, confusion
from msrf_monai.metrics.regions import as_mask, check_probabilities, pixels_inside, plain
from msrf_monai.metrics.roc import areas
from msrf_monai.metrics.topology import betti_errors, centreline_dice

__all__ = [
    "VESSEL_MASK_SCORES",
    "VESSEL_PIXEL_SCORES",
    "VESSEL_POOLED_SCORES",
    "VESSEL_SCORES",
    "VESSEL_TOPOLOGY_SCORES",
    "mask_scores",
    "pooled_vessel_scores",
    "vessel_pixel_scores",
    "vessel_scores",
]

_PATCH_SIZE = 64  # pixels
_SMALL = 20  # pixels; components below it are specks rather than vessels

VESSEL_PIXEL_SCORES = ("sensitivity", "specificity", "ppv", "npv", "f1", "accuracy", "mcc")
"""Scores from the counts of pixels."""

VESSEL_TOPOLOGY_SCORES = (
    "cldice",
    "betti0_error",
    "betti1_error",
    "betti0_error_64",
    "betti1_error_64",
    "betti0_error_min20",
    "betti1_error_min20",
)
"""Scores of one image's topology: clDice (1 is best) and errors of the Betti numbers (0 is best), in the whole image,
in patches of 64 x 64, and in the whole image without components of fewer than 20 pixels."""

VESSEL_SCORES = (*VESSEL_PIXEL_SCORES, "auc_roc", "auc_pr", *VESSEL_TOPOLOGY_SCORES, "ece")
"""The keys of ``vessel_scores``, in order."""

VESSEL_MASK_SCORES = (*VESSEL_PIXEL_SCORES, *VESSEL_TOPOLOGY_SCORES)
"""The keys of ``mask_scores``, in order."""

VESSEL_POOLED_SCORES = (*VESSEL_PIXEL_SCORES, "auc_roc", "auc_pr", "ece")
"""The keys of ``pooled_vessel_scores``, in order."""


def vessel_pixel_scores(counts: Confusion) -> dict[str, Tensor]:
    """Return the scores in ``VESSEL_PIXEL_SCORES``.

    Args:
        counts: of ``confusion``, any shape.

    Returns:
        float64 tensors of the counts' shape; NaN where a score divides 0 by 0.
    """
    tp, fp, fn, tn = (count.double() for count in counts)
    margins = ((tp + fp) * (tp + fn)).sqrt() * ((tn + fp) * (tn + fn)).sqrt()
    return {
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "ppv": tp / (tp + fp),
        "npv": tn / (tn + fn),
        "f1": 2 * tp / (2 * tp + fp + fn),
        "accuracy": (tp + tn) / (tp + fp + fn + tn),
        "mcc": (tp * tn - fp * fn) / margins,
    }


def vessel_scores(
    probability: Tensor, label: Tensor, fov: Tensor | None = None, *, threshold: float = 0.5, topology: bool = True
) -> dict[str, float]:
    """Score the probabilities of one image.

    Args:
        probability: of a vessel, float in [0, 1], (H, W); axes of size 1 may stand before. Without ``topology`` any
            shape.
        label: true mask, {0, 1}, same shape.
        fov: field of view, {0, 1}, same shape; the whole image by default.
        threshold: a pixel is a vessel from this probability on. Choose it on other images: ``choose_threshold``.
        topology: whether to compute the scores in ``VESSEL_TOPOLOGY_SCORES``, which take most of the time.

    Returns:
        The scores in ``VESSEL_SCORES``, in this order; NaN where undefined, see the module.

    Raises:
        InputError: when shapes differ, a mask is not binary, or a probability or the threshold is outside [0, 1].
        MissingExtraError: when scikit-image, which ``topology`` needs, is not installed.
    """
    check_threshold(threshold)
    said, true = pixels_inside(probability, label, fov, name="probability")
    scores = _of_probabilities([said], [true], threshold)
    if topology:
        scores |= _topology(plain(probability) >= threshold, label, fov)
    return {name: scores[name] for name in VESSEL_SCORES if name in scores}


def mask_scores(
    pred_mask: Tensor, label: Tensor, fov: Tensor | None = None, *, topology: bool = True
) -> dict[str, float]:
    """Score a decided mask of one image, such as a second observer's.

    Args:
        pred_mask: decided mask, {0, 1}, (H, W); axes of size 1 may stand before. Without ``topology`` any shape.
        label: true mask, same shape.
        fov: field of view, same shape; the whole image by default.
        topology: whether to compute the scores in ``VESSEL_TOPOLOGY_SCORES``.

    Returns:
        The scores in ``VESSEL_MASK_SCORES``, in this order; NaN where undefined, see the module.

    Raises:
        InputError: when shapes differ or a mask is not binary.
        MissingExtraError: when scikit-image, which ``topology`` needs, is not installed.
    """
    decided = as_mask(pred_mask, name="pred_mask")
    scores = _of_pixels(*pixels_inside(decided, label, fov, name="pred_mask"))
    return scores | _topology(decided, label, fov) if topology else scores


def pooled_vessel_scores(
    probabilities: Sequence[Tensor],
    labels: Sequence[Tensor],
    fovs: Sequence[Tensor] | None = None,
    *,
    threshold: float = 0.5,
) -> dict[str, float]:
    """Score the pixels of all images together.

    Args:
        probabilities: of a vessel, float in [0, 1], one an image, any shapes.
        labels: true masks, {0, 1}, of the same shapes.
        fovs: fields of view, of the same shapes; the whole images by default.
        threshold: a pixel is a vessel from this probability on.

    Returns:
        The scores in ``VESSEL_POOLED_SCORES``, in this order; NaN where undefined, see the module. All pixels are
        sorted at once: about 3 s for ten million.

    Raises:
        InputError: when there is no image, the numbers of images or the shapes differ, a mask is not binary, or a
            probability or the threshold is outside [0, 1].
    """
    check_threshold(threshold)
    parts = [pixels_inside(*image, name="probability") for image in images_of(probabilities, labels, fovs)]
    return _of_probabilities([said for said, _ in parts], [true for _, true in parts], threshold)


def images_of(
    probabilities: Sequence[Tensor], labels: Sequence[Tensor], fovs: Sequence[Tensor] | None
) -> list[tuple[Tensor, Tensor, Tensor | None]]:
    """Return probabilities, truth and field of view of each image.

    Raises:
        InputError: when there is no image or the numbers differ.
    """
    regions: Sequence[Tensor | None] = [None] * len(labels) if fovs is None else fovs
    if not labels or not len(probabilities) == len(labels) == len(regions):
        raise InputError(
            f"expected as many probabilities, labels and fields of view, one or more, got {len(probabilities)}, "
            f"{len(labels)} and {len(regions)}"
        )
    return list(zip(probabilities, labels, regions, strict=True))


def check_threshold(threshold: float) -> None:
    """Refuse a threshold that no probability can be compared with.

    Raises:
        InputError: when it is outside [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise InputError(f"threshold is {threshold}; expected a probability in [0, 1]")


def _of_pixels(pred: Tensor, label: Tensor) -> dict[str, float]:
    counts = Confusion(*(count[0] for count in confusion(pred[None], label[None])))
    return {name: float(score) for name, score in vessel_pixel_scores(counts).items()}


def _of_probabilities(said: Sequence[Tensor], true: Sequence[Tensor], threshold: float) -> dict[str, float]:
    probability, label = torch.cat(list(said)), torch.cat(list(true))
    check_probabilities(probability)
    auc_roc, auc_pr = areas(probability, label)
    return _of_pixels(probability >= threshold, label) | {
        "auc_roc": float(auc_roc),
        "auc_pr": float(auc_pr),
        "ece": expected_calibration_error(probability, label),
    }


def _topology(pred: Tensor, label: Tensor, fov: Tensor | None) -> dict[str, float]:
    errors = betti_errors(pred, label, fov, patch_size=_PATCH_SIZE)
    without_specks = betti_errors(pred, label, fov, patch_size=_PATCH_SIZE, min_size=_SMALL)
    return {
        "cldice": centreline_dice(pred, label, fov),
        "betti0_error": errors.betti0,
        "betti1_error": errors.betti1,
        "betti0_error_64": errors.patch_betti0,
        "betti1_error_64": errors.patch_betti1,
        "betti0_error_min20": without_specks.betti0,
        "betti1_error_min20": without_specks.betti1,
    }
