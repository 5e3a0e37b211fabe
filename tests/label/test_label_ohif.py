"""The page that MONAI Label serves to annotators: a study opens, a bundle runs, its mask is in the viewer.

Needs Chromium, Node and playwright-core; see docs/monai-label.md. The pictures stay in pytest's temporary folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient

from support.bundle_runs import SSR
from support.label_server import NO_NETWORK, LabelServer
from support.ohif_label import run_panel
from support.orthanc import Orthanc
from support.patient_ct import write_patient_ct
from support.real_data import REPOSITORY
from support.small_label_bundles import bright_bundle

pytestmark = [pytest.mark.label, pytest.mark.extended, pytest.mark.realdata]
WINDOW = (180.0, 400.0)
"""Half its brightness is 180 HU: bone, and vessels with contrast."""
KNOWN = (
    *("ERR_NAME_NOT_RESOLVED", "ERR_INTERNET_DISCONNECTED", "ERR_PROXY_CONNECTION_FAILED"),
    "/train/?check_if_running=true",
)
"""Addresses that are not reached, which `elsewhere` has; and the server's 404 for "no training is running"."""


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> list[Path]:
    return write_patient_ct(data_root, tmp_path_factory.mktemp("patient") / "ct", WINDOW)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, data_root: Path, series: list[Path]) -> Iterator[LabelServer]:
    """Start the server on an archive with the CT and a photograph, with a bundle that marks what is bright."""
    root = tmp_path_factory.mktemp("viewer")
    bundle = bright_bundle(root / "bundles", [128, 128])
    variables = {
        **NO_NETWORK,
        "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}",
        "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(root / "cache"),
    }
    with Orthanc(root / "orthanc") as archive:
        files = [*series, data_root / "dicom_samples" / "fundus_op8.dcm"]
        DICOMwebClient(archive.dicomweb).store_instances([pydicom.dcmread(path) for path in files])
        with LabelServer(archive.dicomweb, [bundle], root / "app", variables=variables) as running:
            yield running


def test_a_bundle_that_is_run_from_the_panel_fills_the_right_voxels(
    server: LabelServer, series: list[Path], tmp_path: Path
) -> None:
    headers = [pydicom.dcmread(path) for path in series]
    values = np.stack([header.pixel_array for header in headers]).astype(int)

    result = run_panel(server.url, headers[0].StudyInstanceUID, SSR.folder_name, tmp_path / "ct.png")

    assert result.status == 200
    assert {urlsplit(address).hostname for address in result.elsewhere} <= {"fonts.googleapis.com"}
    shown = result.labelmap
    assert shown is not None
    assert differing(shown.values, values) == 0
    np.testing.assert_allclose(shown.origin, headers[0].ImagePositionPatient, atol=1e-3)
    np.testing.assert_allclose(shown.direction[:2].ravel(), headers[0].ImageOrientationPatient, atol=1e-6)
    last = shown.origin + shown.direction[2] * shown.spacing[2] * (len(headers) - 1)
    np.testing.assert_allclose(last, headers[-1].ImagePositionPatient, atol=1e-2)
    # the same mask anywhere else would have been noticed
    moved = [np.flip(shown.values, axis) for axis in range(3)]
    moved += [np.roll(shown.values, step, axis) for axis in range(3) for step in (1, -1)]
    assert all(differing(each, values) > 100 for each in moved)
    assert surprises(result.problems) == []


def differing(labelmap: np.ndarray, values: np.ndarray) -> int:
    """Count the voxels of a labelmap that are not as the CT says, leaving out those at the border of 180 HU itself."""
    assert labelmap.shape == values.shape
    # the window has DICOM's shift of half a unit, and brightness is rounded
    decided = np.abs(values - WINDOW[0]) > 2
    assert decided.mean() > 0.99
    return int(np.count_nonzero(((labelmap > 0) != (values >= WINDOW[0])) & decided))


def surprises(problems: tuple[str, ...]) -> list[str]:
    """Return the errors of a page but for the fonts that it does without."""
    return [problem for problem in problems if not any(known in problem for known in KNOWN)]


def test_the_panel_asks_for_no_mask_of_a_photograph(server: LabelServer, data_root: Path, tmp_path: Path) -> None:
    """Its mode wants a volume; docs/monai-label.md says so, and this notices when it no longer holds."""
    study = pydicom.dcmread(data_root / "dicom_samples" / "fundus_op8.dcm").StudyInstanceUID

    result = run_panel(server.url, study, SSR.folder_name, tmp_path / "fundus.png", answer_within=20)

    assert SSR.folder_name in result.bundles
    assert result.status == 0
    assert result.labelmap is None or not result.labelmap.values.any()
    assert surprises(result.problems) == []
