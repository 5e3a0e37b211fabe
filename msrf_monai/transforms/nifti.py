"""2-D NIfTI files as pixels, through MONAI's own reader; also what MONAI Label makes of a DICOMweb series."""

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

__all__ = ["is_nifti", "read_nifti"]

_DAMAGE = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, OverflowError, zlib.error)


def is_nifti(path: Path) -> bool:
    """Tell by its name whether a file is NIfTI."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def read_nifti(path: Path, *, max_pixels: int) -> Picture:
    """Read one 2-D image.

    Args:
        path: a file whose array is ``(W, H)``, ``(W, H, 1, …)`` or, in colour, ``(W, H, 1, …, 3)``, ``(W, H, 1, …, 4)``
            or of NIfTI's RGB type.
        max_pixels: largest allowed width times height.

    Returns:
        ``(H, W, 1)`` or ``(H, W, 3)``; uint8 where every value is a whole number within 0..255, float32 otherwise. The
        affine is in ``meta``.

    Raises:
        DataError: when the file is damaged, too large, or a volume.
    """
    reader = NibabelReader()
    try:
        header = reader.read(str(path))
        # the header is checked before the pixels: a few bytes of it can claim terabytes
        _check(header.shape, path, max_pixels)
        array, meta = reader.get_data(header)
    except DataError:
        raise
    except _DAMAGE as error:
        raise DataError(f"{path} cannot be read as a NIfTI image ({error}); export the file again") from error
    if array.dtype.names:
        array = np.stack([array[colour] for colour in array.dtype.names], axis=-1)
    width, height = array.shape[:2]
    rows = array.reshape(width, height, -1)[..., :3].transpose(1, 0, 2)
    return Picture(_whole(rows), None, meta={key: meta[key] for key in ("affine", "original_affine", "space")})


def _check(shape: tuple[int, ...], path: Path, max_pixels: int) -> None:
    colours = shape[-1] if len(shape) > 3 else 1
    depth = int(np.prod(shape[2:])) // max(colours, 1) if len(shape) > 2 else 1
    if len(shape) < 2 or 0 in shape:
        raise DataError(f"{path} holds no 2-D image: its array has the shape {shape}")
    if depth > 1 or colours not in (1, 3, 4):
        raise DataError(f"{path} holds a volume or a series of shape {shape}, and one 2-D image was expected")
    if shape[0] * shape[1] > max_pixels:
        raise DataError(f"{path} is refused as too large: {shape[0]} x {shape[1]} pixels, max_pixels is {max_pixels}")


def _whole(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    small = np.ascontiguousarray(rows)
    if small.dtype != np.uint8:
        with np.errstate(invalid="ignore"):
            whole = small.astype(np.uint8)
        small = whole if np.array_equal(whole, small) else small.astype(np.float32)
    return small if small.flags.writeable else small.copy()
