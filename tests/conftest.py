"""What every test may use: where the real data is, and fixed seeds."""

from __future__ import annotations

from pathlib import Path

import pytest
from monai.utils import set_determinism

from support.real_data import REPOSITORY, data_folder


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the real data, or a skip that says how to bring it."""
    folder = data_folder()
    if folder is None:
        pytest.skip("no real data here: set MSRF_DATA_DIR to the folder that holds Kvasir-SEG, DSB2018, …")
    return folder


@pytest.fixture(scope="session")
def parity_root(data_root: Path) -> Path:
    """The folder of the fixtures made by the original implementations, beside the real data."""
    folder = data_root.parent / "parity"
    if not folder.is_dir():
        pytest.skip(f"no parity fixtures at {folder}: set MSRF_DATA_DIR to a data folder that has ../parity beside it")
    return folder


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    """Seed every generator before each test."""
    set_determinism(seed=0)


@pytest.fixture(scope="session")
def dicom_samples(data_root: Path) -> Path:
    """The folder of DICOM samples among the real data, or a skip that says how to bring it."""
    folder = data_root / "dicom_samples"
    if not folder.is_dir():
        pytest.skip("no DICOM samples: set MSRF_DATA_DIR to a folder that holds dicom_samples")
    return folder
