"""What every test may use: where the real data is, and fixed seeds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from monai.utils import set_determinism

REPOSITORY = Path(__file__).resolve().parents[1]


def data_folder() -> Path | None:
    """Return the folder of the real data: MSRF_DATA_DIR, or shared/data beside the checkout, or None."""
    given = os.environ.get("MSRF_DATA_DIR")
    folder = Path(given) if given else REPOSITORY.parent / "shared" / "data"
    return folder if folder.is_dir() else None


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
