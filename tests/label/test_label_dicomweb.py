"""Studies from a real archive: Orthanc gives them by DICOMweb, MONAI Label segments them, and labels go back."""

from __future__ import annotations

import gzip
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from dicomweb_client.api import DICOMwebClient
from pydicom.uid import generate_uid

from msrf_monai.clinical.case import Case
from msrf_monai.clinical.predictor import Predictor, PredictorOptions
from msrf_monai.clinical.reading import open_case, open_series
from msrf_monai.files import sha256_of
from support.bundle_runs import BUNDLES
from support.label_server import LabelServer
from support.orthanc import Orthanc
from support.predictor_bundles import gap_threshold
from support.small_label_bundles import small_bundles

pytestmark = [pytest.mark.label, pytest.mark.realdata]
NAMES = [bundle.folder_name for bundle in BUNDLES]
SSR = "ssr_unet_skin_lesion_segmentation"
SERIES = {
    "fundus": "fundus_op8.dcm",
    "photograph": "fundus_vlphoto.dcm",
    "x-ray": "cxr_dx_mono2.dcm",
    "turned x-ray": "cxr_dx_mono1.dcm",
    "ultrasound": "us_gray.dcm",
    "ct slice": "",
    "ct": "ct_series",
    "mr": "mr_oblique",
}
"""Names here, and samples."""
LABEL = [{"name": "finding", "idx": 1, "description": "found by a test", "color": [10, 200, 30]}]


@dataclass(frozen=True)
class Hospital:
    """An archive and a server that knows nothing but its address."""

    server: LabelServer
    archive: Orthanc
    files: dict[str, Path]
    uids: dict[str, str]
    probabilities: dict[tuple[str, str], np.ndarray]
    """``(F, H, W)`` of ``msrf-monai predict``, by bundle and series."""
    thresholds: dict[str, float]

    def infer(self, bundle: str, series: str, output: str = "image", **params: Any) -> bytes:
        """Ask for a mask as clients do."""
        asked = {"result_extension": ".nii.gz", "result_dtype": "uint8", "device": "cpu", **params}
        answer = self.server.post(
            f"/infer/{bundle}?image={self.uids[series]}&output={output}", data={"params": json.dumps(asked)}
        )
        assert answer.status_code == 200, self.server.said()[-3000:]
        return answer.content

    def mask(self, bundle: str, series: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the mask ``(D, H, W)`` and its affine in DICOM's directions."""
        image: Any = nibabel.Nifti1Image.from_bytes(gzip.decompress(self.infer(bundle, series)))
        return np.asarray(image.dataobj).transpose(2, 1, 0), np.diag([-1, -1, 1, 1]) @ image.affine

    def submit(self, series: str, mask: bytes) -> None:
        """Submit a finished label."""
        answer = self.server.put(
            f"/datastore/label?image={self.uids[series]}&tag=final",
            files={"label": ("label.nii.gz", mask)},
            data={"params": json.dumps({"label_info": LABEL})},
        )
        assert answer.status_code == 200, self.server.said()[-3000:]


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory, dicom_samples: Path) -> Iterator[Hospital]:
    """Store the samples, and start the server on the archive with all bundles."""
    root = tmp_path_factory.mktemp("hospital")
    files = {
        name: dicom_samples / sample if sample else one_slice(dicom_samples, root) for name, sample in SERIES.items()
    }
    bundles = {path.name: path for path in small_bundles(root / "bundles").values()}
    decide_more(bundles[SSR] / "models" / "model.pt")
    probabilities: dict[tuple[str, str], np.ndarray] = {}
    thresholds = {}
    for bundle, path in bundles.items():
        predictor = Predictor.from_bundle(path, PredictorOptions(device="cpu", keep_probabilities=True))
        for name, file in files.items():
            found = predictor.predict(case_of(file)).probabilities
            assert found is not None
            probabilities[bundle, name] = found[:, 0].astype(np.float64)
        config = json.loads((path / "configs" / "inference.json").read_text())
        values = np.concatenate([probabilities[bundle, name].ravel() for name in files])
        config["threshold"] = thresholds[bundle] = gap_threshold(values)
        (path / "configs" / "inference.json").write_text(json.dumps(config, indent=4))
    with Orthanc(root / "orthanc") as archive:
        uids = {}
        for name, file in files.items():
            headers = [pydicom.dcmread(each) for each in (sorted(file.iterdir()) if file.is_dir() else [file])]
            DICOMwebClient(archive.dicomweb).store_instances(headers)
            uids[name] = str(headers[0].SeriesInstanceUID)
        with LabelServer(archive.dicomweb, list(bundles.values()), root / "app") as server:
            yield Hospital(server, archive, files, uids, probabilities, thresholds)


def decide_more(weights: Path) -> None:
    """Take a random network's probabilities away from each other, so that rounding decides few pixels."""
    state = torch.load(weights, weights_only=True)
    state["head.weight"] *= 400
    torch.save(state, weights)


def case_of(file: Path) -> Case:
    """Read a file, or the series in a folder."""
    if not file.is_dir():
        return open_case(file)
    (case,) = open_series(sorted(file.iterdir())).cases
    return case


def one_slice(samples: Path, folder: Path) -> Path:
    """Write a slice of the CT as a series of its own."""
    header = pydicom.dcmread(sorted((samples / "ct_series").iterdir())[3])
    header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID = (
        generate_uid(entropy_srcs=["one slice", level]) for level in ("study", "series", "image")
    )
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.save_as(folder / "slice.dcm")
    return folder / "slice.dcm"


def test_series_of_every_kind_are_listed(hospital: Hospital) -> None:
    assert hospital.server.get("/info/").json()["datastore"]["total"] == len(SERIES)

    offered = {hospital.server.post("/activelearning/random", json={}).json()["id"] for _ in range(3)}

    assert offered <= set(hospital.uids.values())


@pytest.mark.parametrize("series", list(SERIES))
@pytest.mark.parametrize("bundle", NAMES)
def test_a_mask_is_that_of_our_own_prediction_of_the_same_files(hospital: Hospital, bundle: str, series: str) -> None:
    probability, threshold = hospital.probabilities[bundle, series], hospital.thresholds[bundle]

    mask, _ = hospital.mask(bundle, series)

    assert mask.shape == probability.shape
    assert set(np.unique(mask)) <= {0, 1}
    # other builds of the libraries round otherwise, and a random network makes that larger
    decided = np.abs(probability - threshold) > 2e-3
    assert decided.mean() > 0.8
    assert np.count_nonzero((mask != (probability > threshold)) & decided) == 0


@pytest.mark.parametrize("series", ["ct slice", "ct", "mr"])
def test_a_mask_lies_where_its_series_lies_in_the_patient(hospital: Hospital, series: str) -> None:
    _, affine = hospital.mask(SSR, series)

    file = hospital.files[series]
    headers = [pydicom.dcmread(each) for each in (sorted(file.iterdir()) if file.is_dir() else [file])]
    across, down = np.array(headers[0].ImageOrientationPatient, float).reshape(2, 3)
    headers.sort(key=lambda one: np.cross(across, down) @ np.array(one.ImagePositionPatient, float))
    spacing = [float(each) for each in headers[0].PixelSpacing]
    np.testing.assert_allclose(affine[:3, 0], across * spacing[1], atol=1e-4)
    np.testing.assert_allclose(affine[:3, 1], down * spacing[0], atol=1e-4)
    for index, header in enumerate(headers):
        np.testing.assert_allclose((affine @ [0, 0, index, 1])[:3], header.ImagePositionPatient, atol=1e-3)


@pytest.mark.parametrize("series", list(SERIES))
def test_a_segmentation_in_dicom_holds_the_same_mask(hospital: Hospital, series: str) -> None:
    mask, affine = hospital.mask(SSR, series)

    seg = pydicom.dcmread(io.BytesIO(hospital.infer(SSR, series, "dicom_seg", label_info=LABEL)))

    assert seg.Modality == "SEG"
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == hospital.uids[series]
    assert [segment.SegmentLabel for segment in seg.SegmentSequence] == ["finding"]
    frames = np.asarray(seg.pixel_array).reshape(-1, *mask.shape[1:])
    if mask.shape[0] == 1:
        np.testing.assert_array_equal(frames, mask)
        return
    filled = np.zeros_like(mask)
    for groups, frame in zip(seg.PerFrameFunctionalGroupsSequence, frames, strict=True):
        place = [*map(float, groups.PlanePositionSequence[0].ImagePositionPatient), 1.0]
        filled[round(float((np.linalg.inv(affine) @ place)[2]))] = frame
    np.testing.assert_array_equal(filled, mask)


def test_finished_labels_go_to_the_archive_and_train_a_bundle(hospital: Hospital) -> None:
    labelled = ("fundus", "photograph", "ultrasound", "ct slice")
    weights = hospital.server.app_dir / "model" / SSR / "models" / "model.pt"
    before, already = sha256_of(weights), set(hospital.archive.instances("SEG"))
    for name in labelled:
        hospital.submit(name, hospital.infer(SSR, name))

    stored = [pydicom.dcmread(io.BytesIO(data)) for data in hospital.archive.instances("SEG").values()]
    new = [seg for seg in stored if seg.SOPInstanceUID not in already]
    assert {seg.ReferencedSeriesSequence[0].SeriesInstanceUID for seg in new} == {
        hospital.uids[one] for one in labelled
    }

    # a server that starts afresh knows the labels from the archive alone
    shutil.rmtree(next((hospital.server.app_dir / "dicomweb").iterdir()) / "labels", ignore_errors=True)
    answer = hospital.server.post(
        f"/train/{SSR}?run_sync=true", json={"max_epochs": 1, "val_split": 0.25, "device": "cpu"}
    )

    assert answer.status_code == 200, hospital.server.said()[-3000:]
    assert sha256_of(weights) != before
