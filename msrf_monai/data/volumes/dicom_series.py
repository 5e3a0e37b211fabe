"""A folder of DICOM files of one CT or MR series as a volume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from msrf_monai.data.volumes.volume import MAX_VOXELS, Volume
from msrf_monai.errors import DataError

__all__ = ["holds_dicom", "read_dicom_series"]

_NEEDED = ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "SeriesInstanceUID")
_SAME = ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient", "SeriesInstanceUID")
_UNEVEN_SHARE = 0.05


def holds_dicom(folder: Path) -> bool:
    """Tell whether a DICOM file lies in a folder, not counting folders in it."""
    return any(_is_dicom(file) for file in _files(folder))


def read_dicom_series(folder: Path) -> Volume:
    """Read the DICOM files of a folder as one volume, ordered by their place along the normal of the slices.

    Args:
        folder: one single-frame file for each slice of one series; no other DICOM file.

    Returns:
        float32 values after rescaling (Hounsfield units of CT). Unevenly spaced slices and a tilted gantry are kept as
        they are; the former are remarked upon.

    Raises:
        DataError: when files are damaged, belong to several series or grids, lie at the same place, or say nothing of
            their place.
    """
    import pydicom

    files = [file for file in _files(folder) if _is_dicom(file)]
    if not files:
        raise DataError(f"{folder}: holds no DICOM file")
    damage = (pydicom.errors.InvalidDicomError, AttributeError, EOFError, KeyError, NotImplementedError, OSError)
    try:
        datasets = [pydicom.dcmread(file) for file in files]
        _check(files, datasets)
        order = _order(folder, datasets)
        planes = [_plane(files[index], datasets[index]) for index in order]
    except DataError:
        raise
    except (*damage, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"{folder}: cannot be read as a DICOM series ({error}); export it again") from error
    places = [np.asarray(datasets[index].ImagePositionPatient, np.float64) for index in order]
    affine = _affine(datasets[order[0]], places)
    return Volume(np.stack(planes, axis=-1), affine, _unevenness(affine, places))


def _files(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]


def _is_dicom(file: Path) -> bool:
    try:
        with file.open("rb") as handle:
            return handle.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _check(files: Sequence[Path], datasets: Sequence[Any]) -> None:
    """Refuse files that are no slice, and slices of different series or grids."""
    first = datasets[0]
    for file, dataset in zip(files, datasets, strict=True):
        missing = [name for name in _NEEDED if dataset.get(name) is None]
        if missing:
            raise DataError(
                f"{file}: has no {', '.join(missing)}; expected a slice of a series: take it out of the folder"
            )
        if int(dataset.get("NumberOfFrames") or 1) > 1 or int(dataset.get("SamplesPerPixel") or 1) > 1:
            raise DataError(f"{file}: holds several frames or colours; expected one grey slice: convert it to NIfTI")
        if "ModalityLUTSequence" in dataset:
            raise DataError(f"{file}: has a modality look-up table; expected slope and intercept: convert it to NIfTI")
        for name in _SAME:
            if not _is_alike(dataset[name].value, first[name].value):
                raise DataError(
                    f"{file}: its {name} is not that of {files[0].name}; expected slices of one series in a folder"
                )
    if len(datasets) * int(first.Rows) * int(first.Columns) > MAX_VOXELS:
        raise DataError(f"{files[0].parent}: its {len(datasets)} slices have more than {MAX_VOXELS} voxels in all")


def _is_alike(value: Any, other: Any) -> bool:
    if isinstance(value, (str, int)):
        return bool(value == other)
    return len(value) == len(other) and np.allclose(
        np.asarray(value, np.float64), np.asarray(other, np.float64), atol=1e-3
    )


def _order(folder: Path, datasets: Sequence[Any]) -> list[int]:
    directions = np.asarray(datasets[0].ImageOrientationPatient, np.float64).reshape(2, 3)
    spacing = np.asarray(datasets[0].PixelSpacing, np.float64)
    normal = np.cross(*directions)
    if abs(np.linalg.norm(normal) - 1) > 0.01 or spacing.min() <= 0:
        raise DataError(f"{folder}: its slices have the directions {directions.tolist()} and the spacing {spacing}")
    heights = [float(normal @ np.asarray(dataset.ImagePositionPatient, np.float64)) for dataset in datasets]
    order = sorted(range(len(heights)), key=heights.__getitem__)
    for lower, upper in pairwise(order):
        if math.isclose(heights[lower], heights[upper], abs_tol=1e-3):
            raise DataError(f"{folder}: has two slices at the same place ({heights[lower]:g} mm); expected one")
    return order


def _plane(file: Path, dataset: Any) -> npt.NDArray[np.float32]:
    try:
        pixels = np.asarray(dataset.pixel_array)
    except Exception as error:  # decoders raise errors of every kind
        raise DataError(f"{file}: its pixels cannot be decoded ({error}); the file is damaged: get it again") from error
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    return (pixels.astype(np.float32) * np.float32(slope) + np.float32(intercept)).T


def _affine(dataset: Any, places: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    along_row, along_column = np.asarray(dataset.ImageOrientationPatient, np.float64).reshape(2, 3)
    rows_mm, columns_mm = (float(value) for value in dataset.PixelSpacing)
    if len(places) > 1:
        step = (places[-1] - places[0]) / (len(places) - 1)
    else:
        step = np.cross(along_row, along_column) * float(dataset.get("SliceThickness") or 1)
    affine = np.eye(4)
    affine[:3] = np.stack([along_row * columns_mm, along_column * rows_mm, step, places[0]], axis=1)
    return affine


def _unevenness(affine: npt.NDArray[np.float64], places: Sequence[npt.NDArray[np.float64]]) -> str:
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    gaps = np.diff([float(normal @ place) / float(np.linalg.norm(normal)) for place in places])
    if len(gaps) < 2 or np.ptp(gaps) <= _UNEVEN_SHARE * gaps.mean():
        return ""
    return f"its slices are {gaps.min():.4g} to {gaps.max():.4g} mm apart"
