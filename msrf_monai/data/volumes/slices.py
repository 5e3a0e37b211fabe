"""The slices of a volume with its mask, as they are written to a data set."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from msrf_monai.data.volumes.reading import read_volume
from msrf_monai.data.volumes.volume import Volume, axis_order
from msrf_monai.data.volumes.window import Window
from msrf_monai.errors import DataError

__all__ = ["SliceStack", "VolumePair", "read_slices", "slices_with_object"]

_SAME_GRID_SHARE = 0.05
"""Largest difference of two affines, as a share of a voxel, at which they count as the same."""


@dataclass(frozen=True)
class VolumePair:
    """A volume and its mask on disk.

    Attributes:
        scan: file of the volume, or folder of a DICOM series.
        mask: file of the mask.
        name: what both are called.
    """

    scan: Path
    mask: Path
    name: str


@dataclass(frozen=True)
class SliceStack:
    """What the slices of a volume become.

    Attributes:
        pixels: grey values, uint8 or uint16, ``(Z, rows, columns)``.
        masks: bool, ``(Z, rows, columns)``.
        spacing_mm: distance between rows and between columns.
        slice_spacing_mm: distance between slices.
        window: values that became black and white.
        remark: what is odd, in words, or an empty string.
    """

    pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    masks: npt.NDArray[np.bool_]
    spacing_mm: tuple[float, float]
    slice_spacing_mm: float
    window: tuple[float, float]
    remark: str

    def details(self, index: int) -> dict[str, Any]:
        """Return what dataset.json says of a slice, lengths and values rounded to six digits."""
        return {
            "slice": index,
            "spacing_mm": [_rounded(length) for length in self.spacing_mm],
            "slice_spacing_mm": _rounded(self.slice_spacing_mm),
            "window": [_rounded(limit) for limit in self.window],
        }


def read_slices(pair: VolumePair, window: Window, bits: int) -> SliceStack:
    """Read a volume and its mask.

    A mask belongs to its volume voxel by voxel, whatever its header says of its place, since masks are often saved
    without one; a different place is remarked upon. Only the mask of a DICOM series is turned as its header says, for
    the order of the series' voxels is ours.

    Args:
        pair: the volume and its mask.
        window: which values become black and white.
        bits: 8 or 16, for pixels from 0 to 255 or 65535.

    Returns:
        The slices in the order of the file, turned for display.

    Raises:
        DataError: when one of them cannot be read, the mask is not binary, or their sizes differ.
    """
    scan, mask = read_volume(pair.scan), _read_mask(pair.mask)
    remark = scan.remark
    labels = mask.values
    if pair.scan.is_dir():
        labels = _turned(mask, scan)
    elif not _is_same_grid(scan, mask):
        remark = "; ".join(filter(None, (remark, "the header of its mask names another place: taken voxel by voxel")))
    if labels.shape != scan.values.shape:
        sizes = [" x ".join(map(str, shape)) for shape in (labels.shape, scan.values.shape)]
        raise DataError(f"{pair.mask}: is {sizes[0]} voxels; expected {sizes[1]}, the size of {pair.scan.name}")
    low, high = window.limits(scan.values)
    white = 2**bits - 1
    scaled = (scan.values.astype(np.float32) - low) * (white / max(high - low, 1e-12))
    pixels = np.rint(np.clip(scaled, 0, white)).astype(np.uint8 if bits == 8 else np.uint16)
    return SliceStack(
        np.ascontiguousarray(scan.slices(pixels)),
        np.ascontiguousarray(scan.slices(labels)),
        scan.spacing_mm,
        scan.slice_spacing_mm,
        (low, high),
        remark,
    )


def slices_with_object(pair: VolumePair) -> list[bool]:
    """Read a mask and say of each slice whether anything is marked in it.

    Args:
        pair: the volume and its mask. A DICOM series is read as well, since its order decides.

    Returns:
        One entry for each slice, in the order of the volume.

    Raises:
        DataError: when it cannot be read, or the mask is not binary.
    """
    mask = _read_mask(pair.mask)
    labels = _turned(mask, read_volume(pair.scan)) if pair.scan.is_dir() else mask.values
    return [bool(marked) for marked in np.atleast_1d(labels.any(axis=(0, 1)))]


def _read_mask(path: Path) -> Volume:
    volume = read_volume(path)
    present = np.unique(volume.values)
    if present.size > 2 or (present.size == 2 and present[0] != 0) or present[0] < 0:
        shown = ", ".join(f"{value:g}" for value in present[:6]) + (", …" if present.size > 6 else "")
        raise DataError(
            f"{path}: is not a binary mask: it has {present.size} values ({shown}); expected 0 and one other"
        )
    return Volume(volume.values > 0, volume.affine)


def _turned(mask: Volume, scan: Volume) -> npt.NDArray[np.bool_]:
    """Return the mask with the axes of the scan."""
    orientations: Any = import_module("nibabel.orientations")
    order = orientations.ornt_transform(axis_order(mask.affine), axis_order(scan.affine))
    return np.asarray(orientations.apply_orientation(mask.values, order), np.bool_)


def _is_same_grid(scan: Volume, mask: Volume) -> bool:
    differences = np.linalg.norm(scan.affine[:3] - mask.affine[:3], axis=0)
    voxel = np.linalg.norm(scan.affine[:3, :3], axis=0).min()
    return bool(differences.max() <= _SAME_GRID_SHARE * voxel)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
