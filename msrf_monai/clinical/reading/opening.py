"""One door to every kind of file: its first bytes decide what it is, never its name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from msrf_monai.clinical.case import Case
from msrf_monai.clinical.reading.dicom import open_dicom
from msrf_monai.clinical.reading.dicom_header import is_dicom
from msrf_monai.clinical.reading.limits import Limits
from msrf_monai.clinical.reading.metaimage import is_metaimage, open_metaimage
from msrf_monai.clinical.reading.nifti import GZIP, inflated_head, is_nifti, open_nifti
from msrf_monai.clinical.reading.raster import open_raster
from msrf_monai.clinical.reading.refusal import RefusalCode, RefusedInput
from msrf_monai.clinical.reading.regular import read_head, read_regular

__all__ = ["FileKind", "kind_of", "open_case"]

FileKind = Literal["dicom", "raster", "nifti", "metaimage", "gzip", "archive", "unknown"]

_RASTER = (
    *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"GIF87a", b"GIF89a", b"BM"),
    *(b"P1\n", b"P2\n", b"P3\n", b"P4\n", b"P5\n", b"P6\n", b"P4 ", b"P5 ", b"P6 "),
)
_ARCHIVES = (b"PK\x03\x04", b"PK\x05\x06", b"7z\xbc\xaf\x27\x1c", b"Rar!", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")


def kind_of(head: bytes) -> FileKind:
    """Tell what a file is.

    Args:
        head: its first 512 bytes, or all of a shorter file.

    Returns:
        ``"gzip"`` may be a compressed NIfTI file or an archive; ``"unknown"`` is everything that nothing here reads,
        and the voxels of a MetaImage (``.raw``), which its header names.
    """
    if is_dicom(head):
        return "dicom"
    if head.startswith(_RASTER) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return "raster"
    if head.startswith(_ARCHIVES) or head[257:262] == b"ustar":
        return "archive"
    if is_nifti(head):
        return "nifti"
    if is_metaimage(head):
        return "metaimage"
    return "gzip" if head.startswith(GZIP) else "unknown"


def open_case(
    path: str | os.PathLike[str], limits: Limits | None = None, *, convert_unusual: bool = False, keep: bool = True
) -> Case:
    """Open one image file of any kind that can be read.

    Args:
        path: a DICOM, PNG, JPEG, TIFF, BMP, PPM, GIF, WebP, NIfTI (``.nii``, ``.nii.gz``) or MetaImage (``.mhd``,
            ``.mha``) file.
        limits: bounds; default ``Limits()``.
        convert_unusual: see ``open_raster``.
        keep: hold the file in memory until its last frame has been read.

    Returns:
        The case; nothing is decoded yet.

    Raises:
        RefusedInput: when it cannot or may not be read, with a stable code.
    """
    path, limits = Path(path), limits or Limits()
    kind = kind_of(read_head(path, limits))
    if kind == "dicom":
        return open_dicom(path, limits, keep=keep)
    if kind == "raster":
        return open_raster(path, limits, convert_unusual=convert_unusual, keep=keep)
    if kind == "nifti":
        return open_nifti(path, limits, keep=keep)
    if kind == "metaimage":
        return open_metaimage(path, limits, keep=keep)
    if kind == "gzip":
        return _open_gzipped(path, limits, keep)
    if kind == "archive":
        raise _archive()
    if path.suffix.lower() in (".dcm", ".dicom", ".ima", ""):
        raise RefusedInput(RefusalCode.NOT_DICOM, "the file does not begin with a preamble and DICM; export it again")
    raise RefusedInput(RefusalCode.UNKNOWN_FORMAT, "the file is of no format that can be read; check what it really is")


def _open_gzipped(path: Path, limits: Limits, keep: bool) -> Case:
    data = read_regular(path, limits)
    kind = kind_of(inflated_head(data))
    if kind == "nifti":
        return open_nifti(path, limits, data=data, keep=keep)
    if kind == "archive":
        raise _archive()
    raise RefusedInput(RefusalCode.UNSUPPORTED, "the file is gzipped and is no NIfTI file; unpack it")


def _archive() -> RefusedInput:
    return RefusedInput(RefusalCode.ARCHIVE, "archives are not opened; unpack it and give the folder")
