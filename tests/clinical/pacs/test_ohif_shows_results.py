"""A viewer that people use shows our segmentations where they belong: OHIF, out of a real archive.

Needs OHIF, Chromium and playwright-core (see docs/clinical-viewers.md); skips with the commands otherwise. The pictures
stay in pytest's temporary folder.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import torch
from dicomweb_client.api import DICOMwebClient
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from support.ohif import Ohif, Page, View
from support.ohif_pixels import colour_error, likeness, moved, overlap
from support.orthanc import Orthanc
from support.predictor_bundles import ROOT, stock_config, stock_metadata

pytestmark = [pytest.mark.extended, pytest.mark.realdata]

VESSELS = ROOT / "imff_net_retinal_vessel_segmentation"
RED = (255, 64, 64)


@dataclass(frozen=True)
class Shown:
    """What was predicted for one case, and what the viewer made of it."""

    page: Page
    result: Path


@pytest.fixture
def show(orthanc: Orthanc, tmp_path: Path) -> Any:
    """Predict files of one case with a bundle, archive them with the segmentation, and open the study."""

    def run(bundle: Path, sources: Sequence[Path], images: Sequence[str] = ("",)) -> Shown:
        with Ohif(orthanc.dicomweb) as ohif:
            output = tmp_path / "results"
            command = [sys.executable, "-m", "msrf_monai.cli.main", "predict", str(bundle), *map(str, sources)]
            command += [
                "--output",
                str(output),
                "--outputs",
                "mask,seg",
                "--device",
                "cpu",
                "--threads",
                "1",
                "--quiet",
            ]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode in (0, 3), done.stderr
            (seg,) = output.glob("*/seg.dcm")
            stored = [pydicom.dcmread(path) for path in (*sources, seg)]
            DICOMwebClient(orthanc.dicomweb).store_instances(stored)
            return Shown(ohif.show(stored[0].StudyInstanceUID, tmp_path / "pictures", images), seg.parent)

    return run


@pytest.mark.parametrize("name", ["fundus_vlphoto", "fundus_op8", "photograph"])
def test_vessels_lie_on_the_fundus_picture(name: str, show: Any, data_root: Path, tmp_path: Path) -> None:
    """With the weights that the bundle ships."""
    source = data_root / "dicom_samples" / f"{name}.dcm"
    if name == "photograph":
        source = fundus_photograph(data_root, tmp_path / "photograph.dcm")
    (segment,) = json.loads((VESSELS / "configs" / "metadata.json").read_text())["segments"]

    shown = show(VESSELS, [source])

    with Image.open(shown.result / "mask.png") as image:
        mask = np.asarray(image) > 0
    (view,) = shown.page.views
    assert shown.page.segments == ("1 vessel",)
    assert shown.page.problems == ()
    assert_paints(view, pydicom.dcmread(source).pixel_array.mean(axis=-1), mask, segment["recommendedDisplayRGBValue"])


@pytest.mark.parametrize(("name", "threshold"), [("drawn", 80), ("patient", 90)])
def test_the_threshold_lies_on_the_slices_of_a_ct(
    name: str, threshold: int, show: Any, data_root: Path, tmp_path: Path
) -> None:
    """On both ends and in the middle, so that a stack in the wrong order is found out; the truth is the files' own."""
    folder = data_root / "dicom_samples" / "ct_series"
    if name == "patient":
        folder = ct_of_a_patient(data_root, folder, tmp_path / "ct")
    files = {path: pydicom.dcmread(path) for path in folder.iterdir()}
    slices = sorted(files.values(), key=lambda one: float(one.ImagePositionPatient[2]))
    chosen = [slices[index] for index in (1, len(slices) // 2, len(slices) - 3)]

    shown = show(threshold_bundle(tmp_path / "bundle", threshold), list(files), [one.SOPInstanceUID for one in chosen])

    assert shown.page.segments == ("1 dense",)
    assert shown.page.problems == ()
    truths = [hounsfield(one) >= threshold for one in chosen]
    for view, one, mask in zip(shown.page.views, chosen, truths, strict=True):
        assert view.image == one.SOPInstanceUID
        assert_paints(view, np.clip(hounsfield(one), -160, 240), mask, RED)
    assert overlap(shown.page.views[0], truths[2]) < 0.9


def assert_paints(view: View, picture: Any, mask: Any, colour: Sequence[int]) -> None:
    """The image is where the viewer says, and the segment's colour is on the mask and nowhere else."""
    alike = {name: likeness(view, wrong) for name, wrong in moved(picture).items()}
    found = {name: overlap(view, wrong) for name, wrong in moved(mask).items()}
    assert likeness(view, picture) > max(0.97, *alike.values()), alike
    assert overlap(view, mask) > 0.98
    assert max(found.values()) < 0.95, found
    assert colour_error(view, colour) < 12


def hounsfield(one: Dataset) -> npt.NDArray[np.float64]:
    """The values of a slice in its unit."""
    return np.asarray(one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept))


def fundus_photograph(data_root: Path, path: Path) -> Path:
    """Write a photograph of CHASE_DB1's test part with the header of the drawn ophthalmic sample."""
    photograph = data_root / "CHASE_DB1" / "images" / "Image_11L.jpg"
    with Image.open(photograph) as image:
        pixels = np.asarray(image.convert("RGB"))
    header = pydicom.dcmread(data_root / "dicom_samples" / "fundus_op8.dcm")
    header.Rows, header.Columns = pixels.shape[:2]
    header.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2)
    rename(header, "fundus", 1)
    header.save_as(path)
    return path


def ct_of_a_patient(data_root: Path, drawn: Path, folder: Path) -> Path:
    """Write a real CT, kept as NIfTI, as the slices of a series with the headers of the drawn sample."""
    volume: Any = nibabel.load(data_root / "CT3D_TotalSegmentator_example" / "images" / "example_ct_sm.nii.gz")
    volume = nibabel.as_closest_canonical(volume)  # type: ignore[no-untyped-call,unused-ignore]
    # From the patient's right-anterior-superior, as NIfTI counts, to rows to the back and columns to the left.
    values = np.asarray(volume.dataobj)[::-1, ::-1].transpose(2, 1, 0).astype(np.int16)
    start = volume.affine @ [volume.shape[0] - 1, volume.shape[1] - 1, 0, 1]
    across, down, up = (float(size) for size in volume.header.get_zooms())
    folder.mkdir()
    for index, plane in enumerate(values):
        header = pydicom.dcmread(min(drawn.iterdir()))
        rename(header, "ct", index + 1)
        header.ImagePositionPatient = [round(-start[0], 3), round(-start[1], 3), round(start[2] + index * up, 3)]
        header.PixelSpacing, header.SliceThickness = [down, across], up
        header.Rows, header.Columns = plane.shape
        header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 15, 1
        header.RescaleIntercept = 0
        header.PixelData = plane.tobytes()
        header.save_as(folder / f"{index:02d}.dcm")
    return folder


def rename(header: Dataset, what: str, number: int) -> None:
    """Give a header UIDs of its own, the same in every run."""
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.StudyInstanceUID = generate_uid(entropy_srcs=[what, "study"])
    header.SeriesInstanceUID = generate_uid(entropy_srcs=[what, "series"])
    if "FrameOfReferenceUID" in header:
        header.FrameOfReferenceUID = generate_uid(entropy_srcs=[what, "frame"])
    header.SOPInstanceUID = generate_uid(entropy_srcs=[what, str(number)])
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.InstanceNumber = number


def threshold_bundle(folder: Path, threshold: int) -> Path:
    """Write a bundle whose network is 1 from so many Hounsfield units on."""
    config, metadata = stock_config(1, 1), stock_metadata(1, 1)
    convolution = {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": 1, "kernel_size": 1}
    config["network_def"] = convolution
    config["inferer"] = {"_target_": "SimpleInferer"}
    unscaled = ("LoadImaged", "EnsureChannelFirstd", "EnsureTyped")
    chain = config["preprocessing"]["transforms"]
    config["preprocessing"]["transforms"] = [step for step in chain if step["_target_"] in unscaled]
    category = {"CodeValue": "91723000", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Anatomical Structure"}
    kind = {"CodeValue": "85756007", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Tissue"}
    metadata["segments"] = [
        {
            "labelID": 1,
            "SegmentLabel": "dense",
            "SegmentedPropertyCategoryCodeSequence": category,
            "SegmentedPropertyTypeCodeSequence": kind,
            "recommendedDisplayRGBValue": list(RED),
        }
    ]
    for name, content in (("inference", config), ("metadata", metadata)):
        path = folder / "configs" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    (folder / "models").mkdir()
    weights = {"weight": torch.ones(1, 1, 1, 1), "bias": torch.tensor([0.5 - threshold])}
    torch.save(weights, folder / "models" / "model.pt")
    return folder
