"""A real CT, kept as NIfTI, as the slices of a DICOM series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

__all__ = ["write_patient_ct"]


def write_patient_ct(data_root: Path, folder: Path, window: tuple[float, float]) -> list[Path]:
    """Write the example of TotalSegmentator with the headers of the drawn sample.

    Args:
        data_root: folder of the real data.
        folder: where the files are written.
        window: centre and width that the files propose, in Hounsfield units.

    Returns:
        The files, from the feet to the head.
    """
    volume: Any = nibabel.load(data_root / "CT3D_TotalSegmentator_example" / "images" / "example_ct_sm.nii.gz")
    volume = nibabel.as_closest_canonical(volume)  # type: ignore[no-untyped-call,unused-ignore]
    # from the patient's right-anterior-superior, as NIfTI counts, to rows to the back and columns to the left
    values = np.asarray(volume.dataobj)[::-1, ::-1].transpose(2, 1, 0).astype(np.int16)
    start = volume.affine @ [volume.shape[0] - 1, volume.shape[1] - 1, 0, 1]
    across, down, up = (float(size) for size in volume.header.get_zooms())
    header = pydicom.dcmread(min((data_root / "dicom_samples" / "ct_series").iterdir()))
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.StudyInstanceUID = generate_uid(entropy_srcs=["patient ct", "study"])
    header.SeriesInstanceUID = generate_uid(entropy_srcs=["patient ct", "series"])
    header.FrameOfReferenceUID = generate_uid(entropy_srcs=["patient ct", "frame"])
    header.PixelSpacing, header.SliceThickness = [down, across], up
    header.BitsStored, header.HighBit, header.PixelRepresentation, header.RescaleIntercept = 16, 15, 1, 0
    header.WindowCenter, header.WindowWidth = window
    folder.mkdir(parents=True)
    files = []
    for index, plane in enumerate(values):
        header.SOPInstanceUID = generate_uid(entropy_srcs=["patient ct", str(index)])
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
        header.InstanceNumber = index + 1
        header.ImagePositionPatient = [round(-start[0], 3), round(-start[1], 3), round(start[2] + index * up, 3)]
        header.Rows, header.Columns = plane.shape
        header.PixelData = plane.tobytes()
        files.append(folder / f"{index:03d}.dcm")
        header.save_as(files[-1])
    return files
