"""Masks as PNG and NIfTI files that lie on the pixels of their source."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import Any

import cv2
import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from PIL import Image

from msrf_monai.clinical.writing.source import DicomSource
from msrf_monai.clinical.writing.tolerance import guarded
from msrf_monai.errors import InputError, StorageError

__all__ = ["affine_of", "as_stored", "check_nifti", "check_png", "encode_nifti", "encode_png_mask"]

Affine = npt.NDArray[np.float64]
# Masks are runs of equal values: without a filter they become smaller than with one, in a quarter of the time.
_FLAT_AREAS = [
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    # OpenCV 4.11, the last one for NumPy 1.26, chooses the filter by the strategy
    *((cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE) if hasattr(cv2, "IMWRITE_PNG_FILTER") else ()),
]
_UNREADABLE = (OSError, EOFError, ValueError, zlib.error, WrapStructError, HeaderDataError, ImageFileError)


def as_stored(mask: npt.NDArray[np.uint8], exif_orientation: int = 1) -> npt.NDArray[np.uint8]:
    """Turn a mask of an upright picture back to how the file stores the picture.

    Args:
        mask: ``(H, W)``, upright.
        exif_orientation: 1 to 8, as ``ImageInfo`` has it.

    Returns:
        The mask on the stored pixels; for 5 to 8 rows and columns have changed places.

    Raises:
        InputError: when the orientation is none of these.
    """
    if exif_orientation not in range(1, 9):
        raise InputError(f"an EXIF orientation is a number from 1 to 8, got {exif_orientation}")
    if exif_orientation in (3, 4, 7, 8):
        mask = mask[::-1]
    if exif_orientation in (2, 3, 6, 7):
        mask = mask[:, ::-1]
    return np.ascontiguousarray(mask.T if exif_orientation >= 5 else mask)


def encode_png_mask(mask: npt.NDArray[np.uint8]) -> bytes:
    """Return class numbers ``(H, W)`` uint8 as a grey PNG.

    Raises:
        InputError: when the mask is of another shape or type.
    """
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise InputError(f"a PNG mask is (H, W) uint8, got {mask.shape} {mask.dtype}; write clips as NIfTI")
    _, content = cv2.imencode(".png", mask, _FLAT_AREAS)
    return bytes(content)


def check_png(content: bytes, expected: npt.NDArray[np.uint8]) -> None:
    """Decode a PNG mask by another library than wrote it, and compare.

    Raises:
        StorageError: when it cannot be decoded or one pixel differs.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            found = np.array(image)
    except (OSError, ValueError, SyntaxError) as error:
        raise StorageError(f"the mask cannot be read back ({type(error).__name__}); it was not kept") from None
    if not np.array_equal(found, expected):
        raise StorageError("the mask came back changed; it was not kept. Check the disk, then run again")


def affine_of(source: DicomSource | None = None) -> Affine:
    """Return the matrix from (column, row, frame) to millimetres right, anterior and superior, as NIfTI has it.

    Args:
        source: DICOM headers; None for a picture.

    Returns:
        4x4. Images and clips without a place lie on their own pixels as ITK lays them: the first pixel at the origin,
        columns to the left, rows to posterior, in the spacing that the header states, real or not, or 1.

    Raises:
        InputError: when the slices are not equally far apart, since no matrix says that; write a segmentation instead.
    """
    lps = np.eye(4)
    if source is not None:
        lps[0, 0], lps[1, 1] = source.spacing.columns_mm, source.spacing.rows_mm
        if source.layout == "slices":
            lps = _placed(source)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def encode_nifti(frames: npt.NDArray[Any], affine: Affine) -> bytes:
    """Return class numbers or probabilities as a compressed NIfTI file.

    Args:
        frames: ``(F, H, W)``, uint8 or float32.
        affine: as ``affine_of`` gives it.

    Returns:
        The bytes of a ``.nii.gz``; its array has the axes column, row, frame. The same input gives the same bytes.

    Raises:
        InputError: when the frames are of another shape or type.
    """
    if frames.ndim != 3 or frames.dtype not in (np.uint8, np.float32):
        raise InputError(f"a NIfTI mask is (F, H, W) uint8 or float32, got {frames.shape} {frames.dtype}")
    voxels = np.ascontiguousarray(frames.transpose(2, 1, 0))
    image: Any = nibabel.Nifti1Image(voxels, affine)  # type: ignore[no-untyped-call]
    image.set_sform(affine, code=1)
    # a sheared volume has no rotation to state, and readers then go by the sform
    image.set_qform(affine, code=1, strip_shears=True)
    image.header.set_xyzt_units("mm")
    content: bytes = image.to_bytes()
    return gzip.compress(content, compresslevel=1, mtime=0)


def check_nifti(content: bytes, expected: npt.NDArray[Any], affine: Affine) -> None:
    """Decode a NIfTI mask and compare it and its place.

    Args:
        content: the bytes of the file.
        expected: ``(F, H, W)``.
        affine: as it was written.

    Raises:
        StorageError: when it cannot be decoded, or a voxel or the place differs.
    """
    try:
        image = nibabel.Nifti1Image.from_bytes(gzip.decompress(content))
        found = np.asarray(image.dataobj).transpose(2, 1, 0)
        place = image.affine
    except _UNREADABLE as error:
        raise StorageError(f"the mask cannot be read back ({type(error).__name__}); it was not kept") from None
    # NIfTI stores the matrix in single precision
    if not (np.array_equal(found, expected) and np.allclose(place, affine, rtol=1e-6, atol=1e-4)):
        raise StorageError("the mask or its place came back changed; it was not kept. Check the disk, then run again")


def _placed(source: DicomSource) -> Affine:
    with guarded("read where the slices lie"):
        if "ImageOrientationPatient" not in source.header:
            raise InputError("an enhanced multi-frame volume is written as a segmentation, not yet as NIfTI")
        along_row = np.array([float(part) for part in source.header.ImageOrientationPatient[:3]])
        along_column = np.array([float(part) for part in source.header.ImageOrientationPatient[3:]])
        positions = np.array([[float(part) for part in header.ImagePositionPatient] for header in source.headers])
        step = np.cross(along_row, along_column) * float(source.header.get("SliceThickness") or 1)
    if len(positions) > 1:
        step = (positions[-1] - positions[0]) / (len(positions) - 1)
        straight = positions[0] + np.arange(len(positions))[:, None] * step
        if not np.allclose(positions, straight, rtol=0, atol=0.01 * float(np.linalg.norm(step)) + 1e-6):
            raise InputError("the slices are not equally far apart in their order; write a segmentation instead")
    lps = np.eye(4)
    lps[:3, 0] = along_row * source.spacing.columns_mm
    lps[:3, 1] = along_column * source.spacing.rows_mm
    lps[:3, 2] = step
    lps[:3, 3] = positions[0]
    return lps
