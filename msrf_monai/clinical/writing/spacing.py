"""How far apart the pixels of a DICOM image are, and whether that holds in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

from msrf_monai.clinical.writing.tolerance import without_validation

__all__ = ["Spacing", "spacing_of"]


@dataclass(frozen=True)
class Spacing:
    """How far apart the centres of neighbouring pixels are."""

    rows_mm: float
    """From one row to the next, in millimetres; 1 when nobody knows."""
    columns_mm: float
    """From one column to the next."""
    is_real: bool
    """True when it holds in the patient, so that areas may be given in mm²."""
    source: str = ""
    """The attribute that it comes from; empty when there is none."""

    @property
    def pixel_mm2(self) -> float | None:
        """Area of a pixel in the patient, or None when that is not known."""
        return self.rows_mm * self.columns_mm if self.is_real else None


def spacing_of(header: Dataset) -> Spacing:
    """Return the pixel spacing that a header states, and whether it holds in the patient.

    ``PixelSpacing`` and calibrated ultrasound regions do; ``ImagerPixelSpacing`` and ``NominalScannedPixelSpacing`` are
    those of the detector or the scanned film, so lengths in them are not the patient's. Regions of ultrasound count
    only when all that are calibrated in centimetres agree.

    Args:
        header: a DICOM header.
    """
    with without_validation():
        shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
        measures = (shared.get("PixelMeasuresSequence") or [Dataset()])[0]
        for item, name in (
            (header, "PixelSpacing"),
            (measures, "PixelSpacing"),
            (header, "ImagerPixelSpacing"),
            (header, "NominalScannedPixelSpacing"),
        ):
            pair = _positive(item.get(name))
            if pair is not None:
                return Spacing(*pair, is_real=name == "PixelSpacing", source=name)
        pair = _ultrasound(header.get("SequenceOfUltrasoundRegions") or [])
        if pair is not None:
            return Spacing(*pair, is_real=True, source="SequenceOfUltrasoundRegions")
        # the shape of a pixel is worth keeping for viewers even where its size is unknown
        ratio = _positive(header.get("PixelAspectRatio")) or (1.0, 1.0)
        return Spacing(ratio[0] / ratio[1], 1.0, is_real=False)


def _positive(values: Any) -> tuple[float, float] | None:
    try:
        rows, columns = (float(value) for value in values)
    except (TypeError, ValueError):
        return None
    return (rows, columns) if 0 < rows < float("inf") and 0 < columns < float("inf") else None


def _ultrasound(regions: Sequence[Dataset]) -> tuple[float, float] | None:
    centimetre = 3
    found = {
        _positive(
            (10 * abs(float(region.get("PhysicalDeltaY") or 0)), 10 * abs(float(region.get("PhysicalDeltaX") or 0)))
        )
        for region in regions
        if region.get("PhysicalUnitsXDirection") == region.get("PhysicalUnitsYDirection") == centimetre
    }
    return found.pop() if len(found) == 1 else None
