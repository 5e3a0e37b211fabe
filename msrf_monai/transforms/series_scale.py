"""How the grey values of a NIfTI file are meant, where the DICOM series lies beside it that it was made of.

MONAI Label keeps a series from DICOMweb as the folder ``<SeriesInstanceUID>/`` and gives its transforms the file
``<SeriesInstanceUID>.nii.gz`` next to it, which holds the rescaled values and nothing about windows or white. GDCM, by
which it makes the file, has turned MONOCHROME1 already, so that larger means brighter.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.errors import InvalidDicomError

__all__ = ["SeriesScale", "scale_of_series"]

_WINDOWED = ("CT", "MR", "PT")
_PERCENTILES = (0.5, 99.5)
_TAGS = [
    "SeriesInstanceUID",
    "Modality",
    "PhotometricInterpretation",
    "SamplesPerPixel",
    "BitsStored",
    "PixelRepresentation",
    "RescaleSlope",
    "RescaleIntercept",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
]


@dataclass(frozen=True)
class SeriesScale:
    """The values that become black and white."""

    limits: tuple[float, float] | None
    """None where the file says nothing: then percentiles 0.5 to 99.5 of the image."""

    def apply(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return values on the scale 0..255.

        Args:
            values: rescaled grey values of any shape.

        Returns:
            uint8 where ``values`` are that and 255 is white, float32 in [0, 255] otherwise.
        """
        if values.dtype == np.uint8 and self.limits == (0.0, 255.0):
            return values
        measured = np.percentile(values, _PERCENTILES) if self.limits is None else self.limits
        low, high = float(measured[0]), float(measured[1])
        scaled = np.clip((values.astype(np.float64) - low) / max(high - low, 1e-12), 0, 1)
        return scaled.astype(np.float32) * np.float32(255)


def scale_of_series(path: Path) -> SeriesScale | None:
    """Return the scale of a NIfTI file from the DICOM series beside it.

    The rules are those of ``msrf-monai predict``: CT, MR and PET deeper than 8 bits, and rescaled values, by the first
    window of the file or else percentiles; all other values from 0 to the largest that their bits can hold.

    Args:
        path: the NIfTI file.

    Returns:
        The scale, or None when there is no folder of the file's name with a grey DICOM file whose series has that name.
    """
    uid = path.name.lower().removesuffix(".gz").removesuffix(".nii")
    folder = path.with_name(uid)
    first = next(iter(sorted(folder.iterdir())), None) if folder.is_dir() else None
    if first is None:
        return None
    try:
        header = pydicom.dcmread(first, stop_before_pixels=True, specific_tags=_TAGS)
        if str(header.get("SeriesInstanceUID", "")) != uid or int(header.get("SamplesPerPixel", 1)) != 1:
            return None
        return _scale(header)
    except (InvalidDicomError, AttributeError, KeyError, OSError, TypeError, ValueError):
        return None


def _scale(header: Any) -> SeriesScale:
    bits = int(header.BitsStored)
    is_rescaled = (float(header.get("RescaleSlope") or 1), float(header.get("RescaleIntercept") or 0)) != (1.0, 0.0)
    is_raw = not is_rescaled and int(header.get("PixelRepresentation", 0)) == 0
    if is_raw and (str(header.get("Modality", "")) not in _WINDOWED or bits <= 8):
        return SeriesScale((0.0, float(2**bits - 1)))
    # the windows of MONOCHROME1 are meant for values that have not been turned
    is_turned = str(header.get("PhotometricInterpretation", "")) == "MONOCHROME1"
    return SeriesScale(None if is_turned else _window(header))


def _window(header: Any) -> tuple[float, float] | None:
    centre, width = (_first(header.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None:
        return None
    # LINEAR, the default, has shifts of half a pixel (PS3.3 C.11.2.1.2)
    shift = 0.0 if str(header.get("VOILUTFunction") or "LINEAR") == "LINEAR_EXACT" else 0.5
    centre, width = centre - shift, width - 2 * shift
    return (centre - width / 2, centre + width / 2) if width > 0 else None


def _first(value: Any) -> float | None:
    if value in (None, ""):
        return None
    return float(value) if isinstance(value, (str, float, int)) else float(value[0])
