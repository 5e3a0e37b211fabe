"""From masks to one row an image, and from rows to a summary with confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msrf_monai.engines.report_parts import describe
from msrf_monai.errors import InputError
from msrf_monai.metrics import OVERLAP_SCORES, Confusion, bootstrap_interval, confusion, hausdorff95

__all__ = ["CASE_SCORES", "case_row", "summarise"]

CASE_SCORES = (*OVERLAP_SCORES, "hd95_px")
"""Scores of one image, in the order of the columns."""

_COUNTS = ("tp", "fp", "fn", "tn")


def case_row(pred: Tensor, label: Tensor) -> dict[str, float | int | None]:
    """Score one image.

    Args:
        pred: decided mask (X, Y) of {0, 1}.
        label: true mask, same shape.

    Returns:
        The scores of ``CASE_SCORES``, the areas in pixels and the pixel counts. ``hd95_px`` is None where exactly one
        of the masks is empty.

    Raises:
        InputError: when the shapes differ or a mask is not decided.
    """
    counts = confusion(pred[None], label[None])
    row: dict[str, float | int | None] = {name: float(score(counts)) for name, score in OVERLAP_SCORES.items()}
    distance = float(hausdorff95(pred[None], label[None]))
    row["hd95_px"] = None if np.isnan(distance) else distance
    row.update({name: int(count) for name, count in zip(_COUNTS, counts, strict=True)})
    row["truth_area_px"] = int(counts.tp + counts.fn)
    row["pred_area_px"] = int(counts.tp + counts.fp)
    return row


def summarise(
    rows: Sequence[dict[str, Any]], *, confidence: float = 0.95, samples: int = 2000, seed: int = 0, worst: int = 10
) -> dict[str, Any]:
    """Summarise the rows of all images.

    Args:
        rows: of ``case_row``, with the image's ``file``; at least one.
        confidence: of the intervals, which resample images.
        samples: resamples of the bootstrap.
        seed: seed of the bootstrap.
        worst: number of images with the lowest Dice to name.

    Returns:
        ``images``: how many; ``per_image``: mean, standard deviation, median, extremes, interval of the mean and number
        of images without a value, for each score; ``pooled``: value and interval over all pixels together; ``paper``:
        the published averages by their own names; ``worst``: files and Dice.

    Raises:
        InputError: when there is no row.
    """
    if not rows:
        raise InputError("there is no image to summarise: the data set is empty, or its masks are missing")
    settings: dict[str, Any] = {"confidence": confidence, "samples": samples, "seed": seed}
    per_image = {name: describe(_column(rows, name), settings) for name in CASE_SCORES}
    counts = np.stack([_column(rows, name) for name in _COUNTS])
    pooled = {
        name: {
            "value": float(_Pooled(name)(*counts, axis=-1)),
            "interval": list(bootstrap_interval(list(counts), statistic=_Pooled(name), **settings)),
        }
        for name in OVERLAP_SCORES
    }
    ranked = sorted(rows, key=lambda row: (row["dice"], str(row.get("file"))))
    return {
        "images": len(rows),
        "paper": {
            "macro_dsc": per_image["dice"]["mean"],
            "pooled_iou": pooled["iou"]["value"],
            "pooled_precision": pooled["precision"]["value"],
            "pooled_recall": pooled["recall"]["value"],
        },
        "per_image": per_image,
        "pooled": pooled,
        "worst": [{"file": row.get("file"), "dice": row["dice"]} for row in ranked[:worst]],
        "intervals": {**settings, "method": "percentile bootstrap over images"},
    }


class _Pooled:
    """A pooled score as a statistic of resampled counts (..., N)."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *counts: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        totals = Confusion(*(torch.from_numpy(np.asarray(count.sum(axis=axis))) for count in counts))
        score: NDArray[np.float64] = OVERLAP_SCORES[self.name](totals).numpy()
        return score


def _column(rows: Sequence[dict[str, Any]], name: str) -> NDArray[np.float64]:
    return np.array([np.nan if row[name] is None else row[name] for row in rows], dtype=np.float64)
