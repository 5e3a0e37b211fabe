"""What a DICOM file says about its image: size, spacing and whether that is real, place in the patient, references."""

from __future__ import annotations

from typing import Any, Literal, cast

import numpy as np

from msrf_monai.clinical.case import ImageInfo, SopReference, Vector, Window
from msrf_monai.clinical.reading.dicom_header import PixelLayout
from msrf_monai.clinical.reading.dicom_values import functional_groups, is_rescaled, value_dtype
from msrf_monai.clinical.reading.voi import proposed_windows

__all__ = ["OUR_MANUFACTURER", "dicom_info", "direction_cosines", "numbers_of"]

OUR_MANUFACTURER = "msrf-monai"
"""What every object that this software makes names as its manufacturer."""
_NO_PICTURES = {
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "a label map",
    "1.2.840.10008.5.1.4.1.1.481.2": "a distribution of dose",
}
"""SOP classes whose pixels are no picture of a patient."""

_CENTIMETRES = 3
_LOSSY = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91")
_PROJECTION = ("CR", "DX", "MG", "XA", "RF", "IO", "PX", "DR", "RG")

Spacing = tuple[tuple[float, float] | None, bool, str]


def dicom_info(dataset: Any, layout: PixelLayout) -> ImageInfo:
    """Describe the image of one DICOM file.

    Args:
        dataset: from ``parse_dicom``.
        layout: from ``pixel_layout``.

    Returns:
        The description; broken optional values are left out, and none of them is an error.
    """
    dtype = value_dtype(dataset, layout)
    spacing, is_real, source = _spacing(dataset)
    orientation = direction_cosines(_from_groups(dataset, 0, "PlaneOrientationSequence", "ImageOrientationPatient"))
    return ImageInfo(
        kind="dicom",
        rows=layout.rows,
        columns=layout.columns,
        frames=layout.frames,
        samples=3 if layout.samples == 3 or layout.photometric == "PALETTE COLOR" else 1,
        dtype=cast(Literal["uint8", "uint16", "float32"], dtype),
        photometric=layout.photometric,
        white=_white(layout, dtype),
        value_unit=str(dataset.get("RescaleType") or "") if dtype == "float32" else "",
        modality=str(dataset.get("Modality") or ""),
        spacing_mm=spacing,
        spacing_is_real=is_real,
        spacing_source=source,
        orientation=orientation,
        positions_mm=_positions(dataset, layout.frames),
        frame_of_reference_uid=str(dataset.get("FrameOfReferenceUID") or "") or None,
        windows=_windows(dataset),
        sop=(
            SopReference(
                str(dataset.get("SOPClassUID") or ""),
                str(dataset.get("SOPInstanceUID") or ""),
                str(dataset.get("SeriesInstanceUID") or ""),
                str(dataset.get("StudyInstanceUID") or ""),
            ),
        ),
        transfer_syntax_uid=str(layout.transfer_syntax),
        is_lossy=str(dataset.get("LossyImageCompression") or "") == "01" or str(layout.transfer_syntax) in _LOSSY,
        not_a_picture=_other_than_picture(dataset),
        notes=layout.notes + _odd_values(dataset, layout),
    )


def _other_than_picture(dataset: Any) -> str:
    other = _NO_PICTURES.get(str(dataset.get("SOPClassUID") or ""), "")
    if not other and str(dataset.get("Manufacturer") or "") == OUR_MANUFACTURER:
        return "a result of this software"
    return other


def _white(layout: PixelLayout, dtype: str) -> float | None:
    if layout.photometric == "PALETTE COLOR":
        return 255.0
    return None if dtype == "float32" else float((1 << layout.bits_stored) - 1)


def _odd_values(dataset: Any, layout: PixelLayout) -> tuple[str, ...]:
    has_slope = layout.samples == 1 and is_rescaled(dataset, layout)
    return ("rescale_slope_zero",) if has_slope and _first_number(dataset.get("RescaleSlope")) == 0 else ()


def numbers_of(value: Any, count: int) -> tuple[float, ...] | None:
    """Return ``count`` finite numbers from an attribute's value, or None when it does not hold exactly these."""
    try:
        numbers = tuple(float(part) for part in value)
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None


def direction_cosines(value: Any) -> tuple[Vector, Vector] | None:
    """Return the directions of rows and columns, or None when they are no two orthogonal unit vectors."""
    numbers = numbers_of(value, 6)
    if numbers is None:
        return None
    row, column = np.array(numbers[:3]), np.array(numbers[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if not np.allclose(lengths, 1, atol=1e-2) or abs(float(row @ column)) > 1e-2:
        return None
    return cast(Vector, numbers[:3]), cast(Vector, numbers[3:])


def _from_groups(dataset: Any, index: int, sequence: str, keyword: str) -> Any:
    for group in functional_groups(dataset, index):
        if group.get(sequence):
            return group[sequence].value[0].get(keyword)
    return dataset.get(keyword)


def _positions(dataset: Any, frames: int) -> tuple[Vector, ...] | None:
    found = [
        numbers_of(_from_groups(dataset, index, "PlanePositionSequence", "ImagePositionPatient"), 3)
        for index in range(frames)
    ]
    if frames > 1 and "PerFrameFunctionalGroupsSequence" not in dataset:
        return None
    return None if None in found else cast(tuple[Vector, ...], tuple(found))


def _windows(dataset: Any) -> tuple[Window, ...]:
    for group in functional_groups(dataset, 0):
        if group.get("FrameVOILUTSequence"):
            return proposed_windows(group.FrameVOILUTSequence[0])
    return proposed_windows(dataset)


def _spacing(dataset: Any) -> Spacing:
    measured = _pair(_from_groups(dataset, 0, "PixelMeasuresSequence", "PixelSpacing"))
    detector = _pair(dataset.get("ImagerPixelSpacing"))
    if measured is not None:
        is_projection = str(dataset.get("Modality") or "") in _PROJECTION
        # in a projection the patient's spacing is known only where somebody calibrated it
        is_calibrated = bool(dataset.get("PixelSpacingCalibrationType")) or (
            detector is not None and not np.allclose(measured, detector)
        )
        return measured, is_calibrated or not is_projection, "PixelSpacing"
    if detector is not None:
        return detector, False, "ImagerPixelSpacing"
    nominal = _pair(dataset.get("NominalScannedPixelSpacing"))
    if nominal is not None:
        return nominal, False, "NominalScannedPixelSpacing"
    return _ultrasound_spacing(dataset)


def _ultrasound_spacing(dataset: Any) -> Spacing:
    """Return the spacing of the one scale that all the spatial regions of an ultrasound image share."""
    found = set()
    for region in dataset.get("SequenceOfUltrasoundRegions") or []:
        units = {region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection")}
        deltas = [_first_number(region.get(f"PhysicalDelta{axis}")) for axis in "YX"]
        if units == {_CENTIMETRES} and None not in deltas and 0 not in deltas:
            found.add(tuple(abs(cast(float, delta)) * 10 for delta in deltas))
    if len(found) != 1:
        return None, False, ""
    return cast(tuple[float, float], found.pop()), True, "SequenceOfUltrasoundRegions"


def _pair(value: Any) -> tuple[float, float] | None:
    numbers = numbers_of(value, 2)
    return cast(tuple[float, float], numbers) if numbers is not None and min(numbers) > 0 else None


def _first_number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None
