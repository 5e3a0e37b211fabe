"""NIfTI files as pixels, through MONAI's own reader; also what MONAI Label makes of a DICOMweb series."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from monai.data.image_reader import NibabelReader
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from msrf_monai.errors import DataError
from msrf_monai.transforms.picture import Picture
from msrf_monai.transforms.series_scale import scale_of_series

__all__ = ["is_nifti", "read_nifti"]

_DAMAGE = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, OverflowError, zlib.error)


def is_nifti(path: Path) -> bool:
    """Tell by its name whether a file is NIfTI."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def read_nifti(path: Path, *, max_pixels: int, volumes: bool = False) -> Picture:
    """Read one 2-D image, or the slices of a volume.

    Grey values beside whose file lies the DICOM series that it was made of come on the scale 0..255, see
    ``series_scale``.

    Args:
        path: a file whose array is ``(W, H)``, ``(W, H, 1, …)`` or, in colour, ``(W, H, 1, …, 3)``, ``(W, H, 1, …, 4)``
            or of NIfTI's RGB type.
        max_pixels: largest allowed number of pixels, those of all slices.
        volumes: allow ``(W, H, D)`` as well.

    Returns:
        ``(H, W, 1)`` or ``(H, W, 3)``, of a volume ``(D * H, W, C)`` with one slice below the other; uint8 where every
        value is a whole number within 0..255, float32 otherwise. The affine is in ``meta``, the number of slices in
        ``depth``.

    Raises:
        DataError: when the file is damaged, too large, or a volume without ``volumes``.
    """
    reader = NibabelReader()
    try:
        header = reader.read(str(path))
        # the header is checked before the pixels: a few bytes of it can claim terabytes
        depth = _check(header.shape, path, max_pixels, volumes=volumes)
        array, meta = reader.get_data(header)
    except DataError:
        raise
    except _DAMAGE as error:
        raise DataError(f"{path} cannot be read as a NIfTI image ({error}); export the file again") from error
    if array.dtype.names:
        array = np.stack([array[colour] for colour in array.dtype.names], axis=-1)
    width, height = array.shape[:2]
    planes = array.reshape(width, height, depth or 1, -1)[..., :3].transpose(2, 1, 0, 3)
    rows = _whole(planes.reshape(-1, width, planes.shape[-1]))
    scale = scale_of_series(path) if rows.shape[2] == 1 else None
    known = {key: meta[key] for key in ("affine", "original_affine", "space")}
    if scale is None:
        return Picture(rows, None, meta=known, depth=depth)
    return Picture(scale.apply(rows), 255.0, meta=known, depth=depth)


def _check(shape: tuple[int, ...], path: Path, max_pixels: int, *, volumes: bool) -> int | None:
    """Return the number of slices, None for an array that has no axis for them."""
    colours = shape[-1] if len(shape) > 3 else 1
    depth = int(np.prod(shape[2:])) // max(colours, 1) if len(shape) > 2 else 1
    if len(shape) < 2 or 0 in shape:
        raise DataError(f"{path} holds no 2-D image: its array has the shape {shape}")
    if (depth > 1 and not volumes) or colours not in (1, 3, 4):
        raise DataError(f"{path} holds a volume or a series of shape {shape}, and one 2-D image was expected")
    if shape[0] * shape[1] * depth > max_pixels:
        raise DataError(f"{path} is refused as too large: {shape[0]} x {shape[1]} pixels, max_pixels is {max_pixels}")
    return depth if len(shape) > 2 else None


def _whole(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    small = np.ascontiguousarray(rows)
    if small.dtype != np.uint8:
        with np.errstate(invalid="ignore"):
            whole = small.astype(np.uint8)
        small = whole if np.array_equal(whole, small) else small.astype(np.float32)
    return small if small.flags.writeable else small.copy()
