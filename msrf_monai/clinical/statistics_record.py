"""Statistics of a case as the record that ``stats.json`` holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from msrf_monai.clinical.case import ImageInfo
from msrf_monai.clinical.quality import QualityLimits, flags_of, frame_flags, unlike_training
from msrf_monai.clinical.statistics import CaseStatistics, Region
from msrf_monai.clinical.writing import Segment

__all__ = ["FORMAT", "statistics_record"]

FORMAT = "msrf-monai statistics"
_DIGITS = 6


def statistics_record(
    info: ImageInfo, statistics: CaseStatistics, segments: Sequence[Segment], limits: QualityLimits | None = None
) -> dict[str, Any]:
    """Return the numbers of a case in a form that JSON holds; nothing in it names a patient or a time.

    Args:
        info: of the case.
        statistics: of the case.
        segments: one for each class.
        limits: bounds that raise flags; default ``QualityLimits()``.

    Returns:
        The record; areas are None where the spacing does not hold in the patient, and of each segment only the frames
        in which it was found are listed, counted from 1.
    """
    limits = limits or QualityLimits()
    flags, unlike = frame_flags(statistics, limits), unlike_training(statistics, limits)
    return {
        "format": FORMAT,
        "version": 1,
        "image": {
            "kind": info.kind,
            "rows": info.rows,
            "columns": info.columns,
            "frames": info.frames,
            "modality": info.modality,
            "spacing_mm": list(info.spacing_mm) if info.spacing_mm else None,
            "spacing_is_real": info.spacing_is_real,
            "spacing_source": info.spacing_source,
            "slice_spacing_mm": info.slice_spacing_mm,
            "exif_orientation": info.exif_orientation,
            "lossy": info.is_lossy,
            "notes": list(info.notes),
        },
        "area_unit": "pixels" if statistics.pixel_mm2 is None else "mm2",
        "confidence": [_rounded(value) for value in statistics.confidence],
        "flip_agreement": None
        if statistics.flip_agreement is None
        else [_rounded(value) for value in statistics.flip_agreement],
        "traits": None
        if statistics.traits is None
        else [{name: _rounded(value) for name, value in traits.items()} for traits in statistics.traits],
        "flags": list(flags_of(statistics, limits)),
        "flagged_frames": {str(frame + 1): list(names) for frame, names in flags.items()},
        "unlike_training": {str(frame + 1): list(names) for frame, names in unlike.items()},
        "segments": [_segment(segment, statistics) for segment in segments],
    }


def _segment(segment: Segment, statistics: CaseStatistics) -> dict[str, Any]:
    regions = statistics.found(segment.number)
    pixels = sum(region.pixels for region in regions)
    largest = max((region.pixels for region in regions), default=0)
    return {
        "number": segment.number,
        "label": segment.label,
        "code": {
            "value": segment.kind.value,
            "scheme": segment.kind.scheme,
            "meaning": segment.kind.meaning,
        },
        "colour": list(segment.rgb),
        "pixels": pixels,
        "share": _rounded(pixels / (statistics.frames * statistics.rows * statistics.columns)),
        "area_mm2": _rounded(statistics.area_mm2(pixels)),
        "largest_frame_pixels": largest,
        "largest_frame_area_mm2": _rounded(statistics.area_mm2(largest)),
        "volume_mm3": _rounded(statistics.volume_mm3(segment.number)),
        "components": sum(region.components for region in regions),
        "confidence": _mean_confidence(regions),
        "frames_found": len(regions),
        "frames": [_region(region, statistics) for region in regions],
    }


def _region(region: Region, statistics: CaseStatistics) -> dict[str, Any]:
    return {
        "frame": region.frame + 1,
        "pixels": region.pixels,
        "area_mm2": _rounded(statistics.area_mm2(region.pixels)),
        "components": region.components,
        "largest_component_pixels": region.largest_pixels,
        "box": list(region.box),
        "border_share": _rounded(region.border_share),
        "confidence": _rounded(region.confidence),
    }


def _mean_confidence(regions: Sequence[Region]) -> float | None:
    known = [(region.confidence, region.pixels) for region in regions if region.confidence is not None]
    if not known:
        return None
    return _rounded(sum(value * pixels for value, pixels in known) / sum(pixels for _, pixels in known))


def _rounded(value: float | None) -> float | None:
    """Return a number short enough to read; None when there is none or it is not finite, which JSON cannot hold."""
    return None if value is None or not math.isfinite(value) else round(value, _DIGITS)
