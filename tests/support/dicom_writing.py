"""Small legal DICOM headers, and the judges that we did not write: dciodvfy, dcmqi."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from msrf_monai.clinical.writing import Code, Producer, Segment

PRODUCER = Producer("MSRF-Net polyp segmentation", "0.1.0", model_digest="ab" * 32)
POLYP = Segment(
    1,
    "polyp",
    Code("49755003", "SCT", "Morphologically Abnormal Structure"),
    Code("68496003", "SCT", "Polyp of colon"),
    Code("71854001", "SCT", "Colon"),
)
VESSEL = Segment(
    2,
    "vessel",
    Code("91723000", "SCT", "Anatomical Structure"),
    Code("59820001", "SCT", "Blood vessel"),
    Code("5665001", "SCT", "Retina"),
)
STILLS = (
    "cxr_dx_mono1",
    "cxr_dx_mono2",
    "derm_photo",
    "endoscopy_vl",
    "fundus_op8",
    "fundus_vlphoto",
    "histology_vlmicro",
    "us_gray",
    "us_rgb",
)
"""The samples in ``dicom_samples`` with one frame, DICOM files without their suffix."""
VOLUMES = ("ct_series", "mr_oblique")
"""Those that are folders of slices."""
CLIP = "us_multiframe_rgb"
"""The one with several frames."""


def photo(rows: int = 13, columns: int = 21, *, number: int = 1) -> Dataset:
    """A header of a VL photograph, without pixels."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.4"
    header.SOPInstanceUID = f"2.25.1000{number}"
    header.StudyInstanceUID = "2.25.11"
    header.SeriesInstanceUID = "2.25.12"
    header.Modality = "XC"
    header.PatientName = "SECRET^NAME"
    header.PatientID = "SECRET-ID"
    header.PatientBirthDate = "19500131"
    header.PatientSex = "F"
    header.StudyDate = "20200102"
    header.StudyTime = "030405"
    header.StudyID = "S1"
    header.AccessionNumber = "A1"
    header.ReferringPhysicianName = ""
    header.InstanceNumber = number
    header.ImageType = ["ORIGINAL", "PRIMARY"]
    header.Rows, header.Columns = rows, columns
    header.SamplesPerPixel = 3
    header.PhotometricInterpretation = "RGB"
    header.PlanarConfiguration = 0
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 8, 8, 7, 0
    return header


def clip(frames: int = 3, rows: int = 13, columns: int = 21) -> Dataset:
    """A header of an ultrasound clip, without pixels."""
    header = photo(rows, columns)
    header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1"
    header.Modality = "US"
    header.NumberOfFrames = frames
    return header


def slices(count: int = 4, rows: int = 13, columns: int = 21) -> list[Dataset]:
    """Headers of CT slices 3 mm apart, with pixels of 0.5 x 0.25 mm, without pixels."""
    made = []
    for index in range(count):
        header = photo(rows, columns, number=index + 1)
        header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        header.Modality = "CT"
        header.SamplesPerPixel = 1
        header.PhotometricInterpretation = "MONOCHROME2"
        del header.PlanarConfiguration
        header.BitsAllocated, header.BitsStored, header.HighBit = 16, 12, 11
        header.FrameOfReferenceUID = "2.25.13"
        header.PositionReferenceIndicator = ""
        header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        header.ImagePositionPatient = [-10, -20, 3.0 * index]
        header.PixelSpacing = [0.5, 0.25]
        header.SliceThickness = 3
        made.append(header)
    return made


def blobs(frames: int, rows: int, columns: int, classes: int = 1) -> npt.NDArray[np.uint8]:
    """Class numbers without any symmetry, different in each frame; the last frame of several is empty."""
    mask = np.zeros((frames, rows, columns), dtype=np.uint8)
    for frame in range(frames - (frames > 1)):
        mask[frame, 2 : rows // 2 + frame % 2, 3 + frame : columns // 2] = 1
        mask[frame, rows // 2 + 2 : rows // 2 + 4, columns // 2 : columns - 1 - frame] = classes
    return mask


def find_tool(name: str, brings: str) -> str:
    """Return the path of a judge, or skip with the reason."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if not found:
        pytest.skip(f"{name} is not installed: {brings} brings it")
    return found


def dciodvfy_errors(path: Path) -> list[str]:
    """Return what dciodvfy calls errors."""
    tool = find_tool("dciodvfy", "the Debian package dicom3tools")
    said = subprocess.run([tool, "-new", str(path)], capture_output=True, text=True, check=False).stderr
    return [line for line in said.splitlines() if line.startswith("Error")]


def dcmqi_planes(
    path: Path, folder: Path, *, fractional: bool
) -> tuple[dict[int, npt.NDArray[np.uint8]], npt.NDArray[np.float64]]:
    """Return what dcmqi's segimage2itkimage, 3D Slicer's importer, reads: each segment as (x, y, z), and the affine."""
    nibabel = pytest.importorskip("nibabel")
    tool = find_tool("segimage2itkimage", "pip install dcmqi")
    folder.mkdir()
    command = [tool, "--inputDICOM", str(path), "--outputDirectory", str(folder), "--outputType", "nii"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-800:] + done.stderr[-800:]
    meta = json.loads((folder / "meta.json").read_text())
    planes = {}
    for number, group in enumerate(meta["segmentAttributes"], start=1):
        image = nibabel.load(folder / f"{number}.nii.gz")
        pixels = np.asarray(image.dataobj)
        for item in group:
            planes[item["labelID"]] = pixels if fractional else (pixels == item["labelID"]).astype(np.uint8)
    return planes, image.affine
