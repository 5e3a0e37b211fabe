"""An archive that is empty when the server starts, and gets a series afterwards."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient

from support.bundle_runs import SSR
from support.dicom_files import as_bytes, image_dataset, pattern
from support.label_server import NO_NETWORK, LabelServer
from support.orthanc import Orthanc
from support.small_label_bundles import small_bundle

pytestmark = pytest.mark.label


def test_a_series_that_comes_after_the_start_is_offered(tmp_path: Path) -> None:
    bundle = small_bundle(SSR, tmp_path / "bundles")
    header = pydicom.dcmread(io.BytesIO(as_bytes(image_dataset(pattern(40, 60)))))
    variables = {**NO_NETWORK, "MONAI_LABEL_DICOMWEB_CACHE_EXPIRY": "1"}
    with (
        Orthanc(tmp_path / "orthanc") as archive,
        LabelServer(archive.dicomweb, [bundle], tmp_path / "app", variables=variables) as server,
    ):
        assert listed(server) == 0
        DICOMwebClient(archive.dicomweb).store_instances([header])
        until = time.monotonic() + 60
        while listed(server) == 0 and time.monotonic() < until:
            time.sleep(0.5)

        assert listed(server) == 1
        offered = server.post("/activelearning/random", json={}).json()

    assert offered["id"] == header.SeriesInstanceUID


def listed(server: LabelServer) -> int:
    """How many series the server knows of."""
    return int(server.get("/info/").json()["datastore"]["total"])
