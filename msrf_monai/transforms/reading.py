"""One door to every kind of 2-D file; what a file is, its first bytes decide, not its name (NIfTI excepted)."""

from __future__ import annotations

import os
from pathlib import Path

from msrf_monai.errors import DataError
from msrf_monai.transforms.dicom import is_dicom, read_dicom
from msrf_monai.transforms.nifti import is_nifti, read_nifti
from msrf_monai.transforms.nrrd import is_nrrd, read_nrrd
from msrf_monai.transforms.picture import Picture
from msrf_monai.transforms.raster import DEFAULT_MAX_PIXELS, Palette, read_raster

__all__ = ["read_picture"]


def read_picture(
    path: str | os.PathLike[str],
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    palette: Palette = "colour",
    volumes: bool = False,
) -> Picture:
    """Read one PNG, JPEG, TIFF, BMP, PPM, GIF, WebP, single-frame DICOM, 2-D NIfTI or NRRD file.

    Args:
        path: the file.
        max_pixels: largest allowed width times height, checked before the pixels are decoded.
        palette: what palette images give, their ``"colour"`` or their ``"index"``.
        volumes: give the slices of a NIfTI volume, see ``read_nifti``, instead of refusing it.

    Returns:
        The pixels in row order, see ``Picture``.

    Raises:
        DataError: when the file is missing, a folder, empty, unreadable, too large, or no single 2-D image.
    """
    path = Path(path)
    try:
        if is_nifti(path) and path.is_file():
            return read_nifti(path, max_pixels=max_pixels, volumes=volumes)
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; check the path, or the data list that names it") from error
    except IsADirectoryError as error:
        raise DataError(f"{path} is a folder, and one image file was expected") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if not data:
        raise DataError(f"{path} is empty (0 bytes); copy or export the file again")
    if is_dicom(data):
        return read_dicom(data, str(path), max_pixels=max_pixels)
    if is_nrrd(data):
        return read_nrrd(data, str(path), max_pixels=max_pixels)
    return read_raster(data, str(path), max_pixels=max_pixels, palette=palette)
