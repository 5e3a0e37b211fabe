"""Volumes written byte by byte or by nibabel and pydicom, for tests of what reads them."""

from __future__ import annotations

import zlib
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset

Values = npt.NDArray[np.generic]
SHAPE = (6, 5, 4)
"""Columns, rows and slices: all different, so that no exchange of axes goes unseen."""

_TYPES = {
    "int16": "MET_SHORT",
    "uint8": "MET_UCHAR",
    "int8": "MET_CHAR",
    "float32": "MET_FLOAT",
    "uint16": "MET_USHORT",
}


def scan_values(seed: int = 0, shape: tuple[int, ...] = SHAPE, low: int = -200, high: int = 300) -> Values:
    """Whole numbers, one for each voxel, (X, Y, Z)."""
    return np.random.default_rng(seed).integers(low, high, shape).astype(np.int16)


def mask_values(marked: tuple[int, ...] = (1, 2), shape: tuple[int, ...] = SHAPE) -> Values:
    """A mask with an asymmetric mark in the slices that are named."""
    mask = np.zeros(shape, np.uint8)
    for index in marked:
        mask[1, :2, index] = 1
        mask[2 + index % 2, 3, index] = 1
    return mask


def save_mhd(path: Path, values: Values, **header: object) -> Path:
    """Write a MetaImage as its specification says: x runs fastest, a text header, the data in a file beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_packed, is_local = bool(header.pop("packed", False)), path.suffix == ".mha"
    big = header.get("BinaryDataByteOrderMSB") == "True"
    data = np.asarray(values).transpose(2, 1, 0).astype(values.dtype.newbyteorder(">" if big else "<")).tobytes()
    lines = {
        "ObjectType": "Image",
        "NDims": 3,
        "BinaryData": "True",
        "CompressedData": is_packed,
        "Offset": "10 20 30",
        "DimSize": " ".join(map(str, values.shape)),
        "ElementSpacing": "0.5 0.75 3",
        "ElementType": _TYPES[str(values.dtype)],
        **header,
        "ElementDataFile": header.get("ElementDataFile", "LOCAL" if is_local else f"{path.stem}.raw"),
    }
    text = "".join(f"{key} = {value}\n" for key, value in lines.items()).encode()
    content = zlib.compress(data) if is_packed else data
    path.write_bytes(text + content if is_local else text)
    if not is_local:
        path.with_suffix(".raw").write_bytes(content)
    return path


def save_nifti(path: Path, values: Values, affine: npt.NDArray[np.float64] | None = None) -> Path:
    """Write a NIfTI file; without an affine one whose axes run to the right, front and head, 0.5 x 0.75 x 3 mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([0.5, 0.75, 3, 1]) if affine is None else affine), path)
    return path


def save_dicom_series(
    folder: Path, values: Values, heights_mm: tuple[float, ...] | None = None, **changes: object
) -> Path:
    """Write one file for each slice of (X, Y, Z) Hounsfield units, in a shuffled order of names."""
    folder.mkdir(parents=True, exist_ok=True)
    series = pydicom.uid.generate_uid(entropy_srcs=[folder.name])
    heights = heights_mm or tuple(3.0 * index for index in range(values.shape[2]))
    for index, height in enumerate(heights):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
        meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[folder.name, str(index)])
        dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        dataset.SeriesInstanceUID, dataset.Modality = series, "CT"
        dataset.Rows, dataset.Columns = values.shape[1], values.shape[0]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
        dataset.PixelSpacing, dataset.SliceThickness = [0.75, 0.5], 3
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [-10, -20, height]
        dataset.RescaleSlope, dataset.RescaleIntercept = 2, -1024
        stored = (values[:, :, index].T.astype(np.int32) + 1024) // 2
        dataset.PixelData = stored.astype("<u2").tobytes()
        for name, value in changes.items():
            if value is None:
                delattr(dataset, name)
            else:
                setattr(dataset, name, value)
        dataset.save_as(folder / f"{(7 * index) % 10}.dcm", enforce_file_format=True)
    return folder
