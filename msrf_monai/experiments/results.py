"""From the files of finished runs to tables, and from tables to a summary with paired comparisons."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msrf_monai.errors import DataError
from msrf_monai.experiments.folds import FoldSplit
from msrf_monai.experiments.pictures import Picture, match_file
from msrf_monai.experiments.runs import HISTORY, WEIGHTS, RunSpec
from msrf_monai.experiments.statistics import Comparison, MeanTest, clustered_interval, compare, holm
from msrf_monai.experiments.steps import CASES, SUMMARY, read_record
from msrf_monai.json_files import read_json

__all__ = ["TABLE_SCORES", "Results", "collect", "summarise_results"]

_AGAIN = "remove the run's folder and run again"
TABLE_SCORES = ("dice", "iou", "precision", "recall", "hd95_px")
"""Scores of one image; the distance is in pixels of the network's working size, lower is better."""


@dataclass(frozen=True)
class Results:
    """The tables of a cross-validation.

    Attributes:
        images: one row for each image and variant.
        folds: one row for each fold and variant.
        histories: the epochs of each training, by variant and fold.
    """

    images: list[dict[str, Any]]
    folds: list[dict[str, Any]]
    histories: dict[tuple[str, int], list[dict[str, float]]]


def collect(
    runs: Iterable[RunSpec],
    pictures: Sequence[Picture],
    splits: Sequence[FoldSplit],
    *,
    baseline: str,
    score: str = "dice",
) -> Results:
    """Read the results of finished runs.

    Args:
        runs: the finished runs.
        pictures: all pictures of the cross-validation.
        splits: the folds.
        baseline: the variant whose scores are subtracted for the columns of differences.
        score: the score of those columns.

    Returns:
        The tables, ordered by variant as given, fold and name.

    Raises:
        DataError: when a file cannot be read, or a run scored other images than those of its fold.
    """
    by_name = {picture.identity: picture for picture in pictures}
    images: list[dict[str, Any]] = []
    folds: list[dict[str, Any]] = []
    histories = {}
    for spec in runs:
        tested = [by_name[name] for name in splits[spec.fold].test]
        rows = _image_rows(spec, tested)
        history = _history(spec.folder / HISTORY)
        images += rows
        folds.append(_fold_row(spec, rows, history))
        histories[spec.variant, spec.fold] = history
    _add_differences(images, ("fold", "image"), baseline, score)
    _add_differences(folds, ("fold",), baseline, score)
    return Results(images, folds, histories)


def summarise_results(
    results: Results,
    *,
    variants: Sequence[str],
    baseline: str,
    ratio: float,
    score: str = "dice",
    confidence: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Summarise tables: each variant's means, and its differences from the baseline.

    Args:
        results: the tables.
        variants: names of the variants, in the order to show.
        baseline: the one that the others are compared with.
        ratio: number of test images divided by that of training images, for the corrected test.
        score: the score that is compared.
        confidence: of all intervals.
        samples: resamples of each bootstrap.
        seed: seed of each bootstrap.

    Returns:
        ``variants`` and ``comparisons``, plain JSON values.
    """
    settings: dict[str, Any] = {"confidence": confidence, "samples": samples, "seed": seed}
    rows = {name: [row for row in results.images if row["variant"] == name] for name in variants}
    folds = {name: [row for row in results.folds if row["variant"] == name] for name in variants}
    groups = {row["image"]: row["group"] for row in results.images}
    comparisons = {}
    for name in variants:
        scores = [{(row["fold"], row["image"]): row[score] for row in rows[each]} for each in (name, baseline)]
        if name != baseline and scores[0].keys() & scores[1].keys():
            comparisons[name] = compare(*scores, ratio=ratio, groups=groups, **settings)
    return {
        "variants": {name: _describe(rows[name], folds[name], settings) for name in variants if rows[name]},
        "comparisons": _comparison_rows(comparisons, baseline, score),
    }


def _image_rows(spec: RunSpec, tested: Sequence[Picture]) -> list[dict[str, Any]]:
    path = spec.folder / CASES
    rows = {}
    for case in _read_csv(path):
        picture = match_file(str(case["file"]), tested)
        if picture is None:
            raise DataError(f"{path}: scores {case['file']}, which is not one image of fold {spec.fold}")
        scores = {name: _number(case[name]) for name in TABLE_SCORES}
        about = {"image": picture.identity, "group": picture.group, "stratum": picture.stratum}
        rows[picture.identity] = {**about, "fold": spec.fold, "variant": spec.variant, **scores}
    if len(rows) != len(tested):
        raise DataError(f"{path}: scores {len(rows)} images; expected the {len(tested)} of fold {spec.fold}")
    return [rows[picture.identity] for picture in tested]


def _fold_row(spec: RunSpec, rows: Sequence[Mapping[str, Any]], history: list[dict[str, float]]) -> dict[str, Any]:
    summary = dict(read_json(spec.folder / SUMMARY, _AGAIN))
    best = dict(read_json(spec.folder / WEIGHTS.replace(".pt", ".json"), _AGAIN)) if _has_best(spec) else {}
    record = read_record(spec) or {"steps": {}}
    return {
        "variant": spec.variant,
        "fold": spec.fold,
        "images": len(rows),
        **{name: _mean([row[name] for row in rows]) for name in TABLE_SCORES},
        "pooled_dice": summary.get("pooled", {}).get("dice", {}).get("value"),
        "epochs": len(history),
        "best_epoch": best.get("epoch"),
        "training_s": round(sum(row.get("seconds", 0.0) for row in history), 1),
        "weights_sha256": record["steps"].get("training", {}).get("files", {}).get(WEIGHTS),
    }


def _has_best(spec: RunSpec) -> bool:
    return (spec.folder / WEIGHTS).with_suffix(".json").is_file()


def _add_differences(rows: Sequence[dict[str, Any]], keys: Sequence[str], baseline: str, score: str) -> None:
    """Add the column of the differences from the baseline; empty for the baseline itself."""
    base = {tuple(row[key] for key in keys): row[score] for row in rows if row["variant"] == baseline}
    for row in rows:
        other = base.get(tuple(row[key] for key in keys))
        is_known = row["variant"] != baseline and other is not None and row[score] is not None
        row[f"{score}_minus_baseline"] = row[score] - other if is_known else None


def _describe(
    rows: Sequence[Mapping[str, Any]], folds: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> dict[str, Any]:
    scores = {}
    for name in TABLE_SCORES:
        known = [row for row in rows if row[name] is not None]
        values = [row[name] for row in known]
        of_folds = [row[name] for row in folds if row[name] is not None]
        units = [row["group"] or f"image {row['image']}" for row in known]
        scores[name] = {
            "mean": _mean(values),
            "interval": list(clustered_interval(values, units, **settings)) if known else None,
            "std_of_folds": float(np.std(of_folds, ddof=1)) if len(of_folds) > 1 else None,
            "undefined": len(rows) - len(known),
        }
    strata: dict[str, list[float | None]] = defaultdict(list)
    for row in rows:
        if row["stratum"] is not None:
            strata[row["stratum"]].append(row["dice"])
    return {
        "images": len(rows),
        "folds": len(folds),
        "scores": scores,
        "dice_by_stratum": {
            name: {"images": len(strata[name]), "mean": _mean(strata[name])} for name in sorted(strata)
        },
        "training_s": round(sum(row["training_s"] for row in folds), 1),
    }


def _comparison_rows(comparisons: Mapping[str, Comparison], baseline: str, score: str) -> list[dict[str, Any]]:
    found = list(comparisons.values())
    corrected = holm([each.corrected.p if each.corrected else None for each in found])
    uncorrected = holm([each.uncorrected.p if each.uncorrected else None for each in found])
    return [
        {
            "variant": name,
            "baseline": baseline,
            "score": score,
            "images": each.images,
            "folds": each.folds,
            "mean_difference": each.mean,
            "bootstrap_interval_by_fold": list(each.interval_folds),
            "bootstrap_interval_by_image": list(each.interval_images),
            "images_better": each.better,
            "images_worse": each.worse,
            "fold_differences": {str(fold): each.fold_differences[fold] for fold in sorted(each.fold_differences)},
            "nadeau_bengio_t": _test_row(each.corrected, p),
            "paired_t": _test_row(each.uncorrected, plain),
        }
        for (name, each), p, plain in zip(comparisons.items(), corrected, uncorrected, strict=True)
    ]


def _test_row(test: MeanTest | None, p_holm: float | None) -> dict[str, Any] | None:
    if test is None:
        return None
    return {
        "mean": test.mean,
        "interval": list(test.interval),
        "t": test.t if math.isfinite(test.t) else None,
        "df": test.df,
        "p": test.p,
        "p_holm": p_holm,
    }


def _history(path: Path) -> list[dict[str, float]]:
    return [
        {name: number for name, text in row.items() if (number := _number(text)) is not None} for row in _read_csv(path)
    ]


def _read_csv(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            return list(csv.DictReader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table ({error}); {_AGAIN}") from error


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
