"""Volumes by the kind of their file: MetaImage, NIfTI, or a folder of DICOM files."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from msrf_monai.data.volumes.dicom_series import holds_dicom, read_dicom_series
from msrf_monai.data.volumes.metaimage import read_metaimage
from msrf_monai.data.volumes.volume import MAX_VOXELS, Volume
from msrf_monai.errors import DataError

__all__ = ["VOLUME_SUFFIXES", "is_volume", "read_volume", "volume_name"]

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".mhd", ".mha")
_METAIMAGE = (".mhd", ".mha")


def is_volume(path: Path) -> bool:
    """Tell whether a path is a volume: by the suffix of a file, or a folder that holds a DICOM file."""
    return holds_dicom(path) if path.is_dir() else path.name.lower().endswith(VOLUME_SUFFIXES)


def volume_name(path: Path) -> str:
    """Return the name of a volume without its suffix.

    Example:
        >>> volume_name(Path("masks/049.nii.gz"))
        '049'
    """
    suffix = next((suffix for suffix in VOLUME_SUFFIXES if path.name.lower().endswith(suffix)), "")
    return path.name[: len(path.name) - len(suffix)]


def read_volume(path: Path) -> Volume:
    """Read a volume.

    Args:
        path: a file that ends in one of ``VOLUME_SUFFIXES``, or a folder of DICOM files of one series.

    Returns:
        The volume, with NIfTI's scaling or DICOM's rescaling applied.

    Raises:
        DataError: when it is missing, damaged, no volume, or holds NaN or infinite values.
    """
    if path.is_dir():
        volume = read_dicom_series(path)
    elif path.name.lower().endswith(_METAIMAGE):
        volume = read_metaimage(path)
    else:
        volume = _read_nifti(path)
    if not np.isfinite(volume.values).all():
        raise DataError(f"{path}: holds NaN or infinite values; mend the file")
    return volume


def _read_nifti(path: Path) -> Volume:
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    damage = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, OverflowError, zlib.error)
    try:
        image: Any = nibabel.load(path)
        shape = image.shape
        if len(shape) < 3 or math.prod(shape[3:]) != 1 or not 0 < math.prod(shape) <= MAX_VOXELS:
            raise DataError(f"{path}: its shape is {shape}; expected a volume of three axes, 1 to {MAX_VOXELS} voxels")
        values = np.asanyarray(image.dataobj).reshape(shape[:3])
    except DataError:
        raise
    except damage as error:
        raise DataError(f"{path}: cannot be read as NIfTI ({error}); the file is damaged: get it again") from error
    if values.dtype.kind not in "iuf":
        raise DataError(f"{path}: its values are of type {values.dtype}; expected one number a voxel")
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(image.affine, np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise DataError(f"{path}: its affine is {affine.tolist()}; expected the place of a grid in millimetres")
    return Volume(values, affine)
