"""An Orthanc of each test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.orthanc import Orthanc


@pytest.fixture(scope="session")
def dicom_samples(data_root: Path) -> Path:
    """The folder of DICOM samples among the real data, or a skip that says how to bring it."""
    folder = data_root / "dicom_samples"
    if not folder.is_dir():
        pytest.skip("no DICOM samples: set MSRF_DATA_DIR to a folder that holds dicom_samples")
    return folder


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    with Orthanc(tmp_path / "orthanc") as server:
        yield server
