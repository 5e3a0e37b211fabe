"""An archive that is empty when the server starts, and gets a series afterwards."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient

from msrf_monai.clinical.outputs import OutputOptions, write_outputs
from msrf_monai.clinical.reading import open_case
from support.bundle_runs import SSR
from support.clinical_cases import prediction_of
from support.dicom_files import as_bytes, image_dataset, pattern
from support.dicom_writing import POLYP, PRODUCER, blobs
from support.label_server import NO_NETWORK, LabelServer
from support.orthanc import Orthanc
from support.small_label_bundles import small_bundle

pytestmark = pytest.mark.label


def test_a_series_that_comes_after_the_start_is_offered_and_its_results_are_not(tmp_path: Path) -> None:
    bundle = small_bundle(SSR, tmp_path / "bundles")
    content = as_bytes(image_dataset(pattern(40, 60)))
    header = pydicom.dcmread(io.BytesIO(content))
    variables = {**NO_NETWORK, "MONAI_LABEL_DICOMWEB_CACHE_EXPIRY": "1"}
    with (
        Orthanc(tmp_path / "orthanc") as archive,
        LabelServer(archive.dicomweb, [bundle], tmp_path / "app", variables=variables) as server,
    ):
        client = DICOMwebClient(archive.dicomweb)
        assert datastore(server)["total"] == 0
        client.store_instances([header])
        wait_until(lambda: datastore(server)["total"] == 1)
        offered = server.post("/activelearning/random", json={}).json()
        client.store_instances(results_of(content, tmp_path))
        # its segmentation makes it an annotated image, and no second one
        wait_until(lambda: datastore(server)["completed"] == 1)
        found = datastore(server)
        offered_then = server.post("/activelearning/random", json={}).json()

    assert offered["id"] == header.SeriesInstanceUID
    assert (found["total"], found["completed"]) == (1, 1)
    assert not offered_then


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for the next list of the archive, a second after the one before."""
    until = time.monotonic() + 60
    while not holds() and time.monotonic() < until:
        time.sleep(0.5)
    assert holds()


def results_of(content: bytes, folder: Path) -> list[pydicom.Dataset]:
    """Return a segmentation, a report and outlines of an image, as a run writes them."""
    path = folder / "image.dcm"
    path.write_bytes(content)
    case = open_case(path)
    written = write_outputs(
        case,
        prediction_of(blobs(case.info.frames, case.info.rows, case.info.columns), classes=1),
        folder=folder / "results",
        predictor_identity=PRODUCER,
        segments=[POLYP],
        options=OutputOptions(outputs=("seg", "sr", "pr")),
    )
    return [pydicom.dcmread(folder / "results" / each.path) for each in written if each.path.endswith(".dcm")]


def datastore(server: LabelServer) -> dict[str, Any]:
    """Return what the server says of the archive."""
    return dict(server.get("/info/").json()["datastore"])
