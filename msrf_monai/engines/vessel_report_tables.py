"""From the rows of all images to the tables of a vessel report: pooled pixels and means over images, by protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from msrf_monai.engines.report_parts import describe
from msrf_monai.engines.vessel_report_cases import CALIBRATION_BINS, COUNTS, PixelCounts, Protocol
from msrf_monai.errors import InputError
from msrf_monai.metrics import VESSEL_SCORES, Confusion, vessel_pixel_scores

__all__ = [
    "AGGREGATES",
    "DEFINITIONS",
    "aggregate_of",
    "case_table",
    "report_notes",
    "row_of",
    "score_table",
    "summarise_vessels",
]

AGGREGATES = ("pooled", "mean", "std", "median", "min", "max", "interval_low", "interval_high", "undefined")
"""What tables.csv has a row of, for each protocol."""

DEFINITIONS = {
    "fov_chosen": "Pixels inside the field of view; threshold chosen on validation images (highest pooled Dice).",
    "fov_0.5": "Pixels inside the field of view; threshold 0.5.",
    "fov_observer": "The second observer's mask in the place of a prediction, inside the field of view.",
    "full_0.5": "Legacy protocol: all pixels with the black surround, means over images, threshold 0.5. It lifts "
    "accuracy, specificity and AUC-ROC, which must not be compared with those inside the field of view.",
    "full_observer": "The second observer under the legacy protocol.",
    "pooled": "The pixels of all images together.",
    "mean": "Mean of the images' scores, ± their standard deviation (n - 1); images whose score divides 0 by 0 are "
    "left out and counted under undefined.",
    "interval": "Percentile bootstrap over images for the mean. It takes the trained network as given.",
    "cldice": "Dice of centre lines (scikit-image skeletonize), on decided masks inside the field of view.",
    "betti0_error": "Absolute difference of the numbers of components (8-connected), in the whole field of view.",
    "betti1_error": "Absolute difference of the numbers of holes (background 4-connected), in the whole field of view.",
    "…_64": "The same as mean over patches of 64 x 64 that do not overlap.",
    "…_min20": "The same without components of fewer than 20 pixels.",
    "ece": f"Expected calibration error of the probability of a vessel, {CALIBRATION_BINS} bins of equal width.",
}


def summarise_vessels(
    cases: Sequence[Mapping[str, Any]],
    pixels: PixelCounts,
    protocols: Sequence[Protocol],
    *,
    confidence: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Summarise the images of an evaluation.

    Args:
        cases: of each image: ``file`` and ``rows``, of ``score_case``; at least one.
        pixels: the pixels of the same images.
        protocols: the primary one first.
        confidence: of the intervals, which resample images.
        samples: resamples of the bootstrap.
        seed: seed of the bootstrap.

    Returns:
        ``images``, ``primary`` (name of a protocol), ``protocols`` with ``pooled`` and ``per_image`` scores by name,
        ``calibration``, ``worst`` (up to ten images by the primary F1), ``intervals`` and ``definitions``.

    Raises:
        InputError: when there is no image.
    """
    if not cases:
        raise InputError("there is no image to report on: the data set is empty, or its masks are missing")
    settings: dict[str, Any] = {"confidence": confidence, "samples": samples, "seed": seed}
    found = {}
    for protocol in protocols:
        rows = [row for case in cases for row in case["rows"] if row["protocol"] == protocol.name]
        if rows:
            found[protocol.name] = {
                "region": protocol.region,
                "reader": protocol.reader,
                "threshold": protocol.threshold,
                "images": len(rows),
                "pooled": _pooled(rows, pixels if (protocol.region, protocol.reader) == ("fov", "model") else None),
                "per_image": {
                    name: describe(np.array([_or_nan(row[name]) for row in rows]), settings)
                    for name in VESSEL_SCORES
                    if name in rows[0]
                },
            }
    primary = protocols[0].name
    ranked = sorted(cases, key=lambda case: (_or_nan(row_of(case, primary)["f1"]), str(case["file"])))
    return {
        "images": len(cases),
        "primary": primary,
        "protocols": found,
        "calibration": _calibration(pixels),
        "worst": [{"file": case["file"], "f1": row_of(case, primary)["f1"]} for case in ranked[:10]],
        "intervals": {**settings, "method": "percentile bootstrap over images"},
        "definitions": DEFINITIONS,
    }


def aggregate_of(protocol: Mapping[str, Any], aggregate: str, score: str) -> Any:
    """Return one number of a protocol of ``summarise_vessels``; None where there is none.

    Args:
        protocol: with ``pooled`` and ``per_image`` scores.
        aggregate: one of ``AGGREGATES``.
        score: name of the score.
    """
    if aggregate == "pooled":
        return protocol["pooled"].get(score)
    described = protocol["per_image"].get(score)
    if described is None:
        return None
    if aggregate.startswith("interval"):
        interval = described["interval"]
        return None if interval is None else interval[aggregate == "interval_high"]
    return described[aggregate]


def row_of(case: Mapping[str, Any], protocol: str) -> Mapping[str, Any]:
    """Return the row of an image under a protocol, by its name."""
    row: Mapping[str, Any] = next(row for row in case["rows"] if row["protocol"] == protocol)
    return row


def case_table(cases: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each image and protocol, with all columns."""
    columns = ("protocol", "threshold", *VESSEL_SCORES, *COUNTS)
    return [
        {"file": case["file"], **{name: row.get(name) for name in columns}} for case in cases for row in case["rows"]
    ]


def score_table(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row for each protocol and each of ``AGGREGATES``."""
    rows = []
    for name, protocol in summary["protocols"].items():
        about = {key: protocol[key] for key in ("reader", "region", "threshold", "images")}
        for aggregate in AGGREGATES:
            values = {score: aggregate_of(protocol, aggregate, score) for score in VESSEL_SCORES}
            rows.append({"protocol": name, **about, "aggregate": aggregate, **values})
    return rows


def report_notes(cases: Sequence[Mapping[str, Any]], *, has_observer: bool) -> list[str]:
    """Return what a reader of the report should know about its images."""
    notes = []
    without = sum(not case["has_fov"] for case in cases)
    if without:
        notes.append(
            f"{without} of {len(cases)} images have no field of view; all their pixels count in both protocols, which "
            "flatters accuracy, specificity and AUC-ROC"
        )
    if any(case["is_cleared"] for case in cases):
        notes.append(
            "outside the field of view all probabilities are 0: the field of view was applied to the network's output, "
            "which helps it under the legacy protocol; published tables mostly do without"
        )
    observed = sum(any(row["protocol"] == "fov_observer" for row in case["rows"]) for case in cases)
    if has_observer and observed < len(cases):
        notes.append(f"the second observer's rows are of the {observed} images that have such a mask")
    return notes


def _pooled(rows: Sequence[Mapping[str, Any]], pixels: PixelCounts | None) -> dict[str, float | None]:
    counts = Confusion(*(torch.tensor(sum(row[name] for row in rows)) for name in COUNTS))
    scores = {name: float(score) for name, score in vessel_pixel_scores(counts).items()}
    if pixels is not None:
        scores |= {"auc_roc": pixels.auc_roc(), "auc_pr": pixels.auc_pr(), "ece": pixels.ece()}
    return {name: value if math.isfinite(value) else None for name, value in scores.items()}


def _calibration(pixels: PixelCounts) -> dict[str, Any]:
    width = 1 / CALIBRATION_BINS
    bins = [
        {
            "from": round(place * width, 6),
            "to": round((place + 1) * width, 6),
            "pixels": int(count),
            "mean_probability": said / count if count else None,
            "vessel_share": seen / count if count else None,
        }
        for place, (count, said, seen) in enumerate(pixels.bins.T.tolist())
    ]
    ece = pixels.ece()
    return {"ece": ece if math.isfinite(ece) else None, "bins": bins}


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
