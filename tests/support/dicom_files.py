"""Small DICOM files made for tests: valid ones, and ones that are broken in one way."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

__all__ = ["as_bytes", "image_dataset", "item_of", "pattern"]

ROOT = "1.2.826.0.1.3680043.8.498."


def pattern(rows: int = 6, columns: int = 8, *, peak: int = 255, samples: int = 1, dtype: Any = np.uint8) -> Any:
    """Return an asymmetric, non-square picture whose values run up to ``peak``."""
    steps = np.linspace(0, peak, rows * columns * samples).round().astype(dtype)
    shape = (rows, columns) if samples == 1 else (rows, columns, samples)
    return steps.reshape(shape)


def image_dataset(pixels: Any, *, photometric: str | None = None, stored: int | None = None, **attributes: Any) -> Any:
    """Return a secondary capture of ``(H, W)``, ``(H, W, 3)``, ``(F, H, W)`` or ``(F, H, W, 3)`` pixels."""
    is_colour = pixels.ndim >= 3 and pixels.shape[-1] == 3
    shape = pixels.shape[:-1] if is_colour else pixels.shape
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.7")
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(ROOT + "1")
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = ROOT + "2", ROOT + "3"
    dataset.Modality = "OT"
    dataset.SamplesPerPixel = 3 if is_colour else 1
    dataset.PhotometricInterpretation = photometric or ("RGB" if is_colour else "MONOCHROME2")
    if is_colour:
        dataset.PlanarConfiguration = 0
    if len(shape) == 3:
        dataset.NumberOfFrames = shape[0]
    dataset.Rows, dataset.Columns = shape[-2:]
    dataset.BitsAllocated = pixels.dtype.itemsize * 8
    dataset.BitsStored = stored or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    data = pixels.tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def as_bytes(dataset: Any) -> bytes:
    """Return the dataset as the bytes of a DICOM file."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def item_of(**attributes: Any) -> Any:
    """Return an item of a sequence with these attributes."""
    item = Dataset()
    for name, value in attributes.items():
        setattr(item, name, value)
    return item
