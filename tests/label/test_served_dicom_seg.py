"""DICOM segmentations from the server: of photographs and radiographs by our writer, of volumes by dcmqi."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import requests

from support.bundle_runs import BUNDLES
from support.label_server import NO_NETWORK, LabelServer
from support.orthanc import Orthanc
from support.small_label_bundles import small_bundle

pytestmark = pytest.mark.label
BUNDLE = BUNDLES[0]
KINDS = {"OP": "fundus_op8.dcm", "DX": "cxr_dx_mono1.dcm", "US": "us_multiframe_rgb.dcm", "CT": "ct_series"}
"""Modalities and samples: one photograph, one radiograph, a clip and a volume."""


@dataclass(frozen=True)
class Archive:
    """A server on a PACS, and the series in it by their modality."""

    server: LabelServer
    series: dict[str, str]


@pytest.fixture(scope="module")
def archive(dicom_samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """Store one series of each kind in Orthanc, and start the server on it, where nothing else is reached."""
    root = tmp_path_factory.mktemp("archive")
    bundle = small_bundle(BUNDLE, root / "bundles")
    with Orthanc(root / "orthanc") as pacs:
        for name in KINDS.values():
            sample = dicom_samples / name
            files = [sample] if sample.is_file() else sorted(sample.iterdir())
            for path in files:
                requests.post(f"{pacs.url}/instances", data=path.read_bytes(), timeout=30).raise_for_status()
        tags = [pacs.get(f"/series/{name}")["MainDicomTags"] for name in pacs.get("/series")]
        with LabelServer(pacs.dicomweb, [bundle], root / "app", variables=NO_NETWORK) as server:
            yield Archive(server, {tag["Modality"]: tag["SeriesInstanceUID"] for tag in tags})


def test_series_of_all_kinds_are_listed_where_no_network_is_reached(archive):
    assert archive.server.get("/info/").json()["datastore"]["total"] == len(KINDS)
    # MONAI Label fetches dcmqi from there where it finds none
    assert "github.com" not in archive.server.said()


@pytest.mark.parametrize("kind", KINDS)
def test_the_segmentation_is_valid_and_holds_the_mask(archive, kind, tmp_path):
    params = json.dumps({"label_info": [{"name": "polyp", "model_name": BUNDLE.folder_name}]})
    path = f"/infer/{BUNDLE.folder_name}?image={archive.series[kind]}"

    image = archive.server.post(f"{path}&output=image")
    answer = archive.server.post(f"{path}&output=dicom_seg", data={"params": params})

    assert (image.status_code, answer.status_code) == (200, 200), archive.server.said()[-2000:]
    mask = _rows(image.content)
    assert 0 < mask.sum() < mask.size
    seg = pydicom.dcmread(io.BytesIO(answer.content))
    assert seg.Modality == "SEG"
    assert [segment.SegmentLabel for segment in seg.SegmentSequence] == ["polyp"]
    stored = np.zeros_like(mask)
    for frame, group in zip(
        seg.pixel_array.reshape(-1, *mask.shape[1:]), seg.PerFrameFunctionalGroupsSequence, strict=True
    ):
        stored[_place(group, kind, mask)] = frame
    assert np.array_equal(stored, mask)
    assert _errors(answer.content, tmp_path) == []


def test_a_photograph_gets_the_code_of_the_bundle_and_not_that_of_the_spleen(archive):
    params = json.dumps({"label_info": [{"name": "polyp"}]})

    answer = archive.server.post(
        f"/infer/{BUNDLE.folder_name}?image={archive.series['OP']}&output=dicom_seg", data={"params": params}
    )

    (segment,) = pydicom.dcmread(io.BytesIO(answer.content)).SegmentSequence
    (code,) = segment.SegmentedPropertyTypeCodeSequence
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("68496003", "SCT")


def _rows(content: bytes) -> np.ndarray:
    """Return the mask ``(frames, rows, columns)`` of a compressed NIfTI file."""
    pixels = np.asarray(nibabel.Nifti1Image.from_bytes(gzip.decompress(content)).dataobj)
    return pixels.reshape(*pixels.shape[:2], -1).transpose(2, 1, 0).astype(np.uint8)


def _place(group: pydicom.Dataset, kind: str, mask: np.ndarray) -> int:
    if kind != "CT":
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        return int(source.get("ReferencedFrameNumber") or 1) - 1
    # dcmqi leaves empty slices out, and counts the others along the axis of the volume
    filled = np.flatnonzero(mask.reshape(len(mask), -1).any(axis=1))
    return int(filled[int(group.FrameContentSequence[0].DimensionIndexValues[-1]) - 1])


def _errors(content: bytes, folder: Path) -> list[str]:
    if shutil.which("dciodvfy") is None:
        pytest.skip("no dciodvfy: apt-get install dicom3tools")
    (folder / "seg.dcm").write_bytes(content)
    done = subprocess.run(["dciodvfy", folder / "seg.dcm"], capture_output=True, text=True, check=False)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]
