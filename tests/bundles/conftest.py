"""A bundle that was trained once for all tests of this session."""

from __future__ import annotations

from pathlib import Path

import pytest

from msrf_monai.data import synthesize_dataset
from support.bundle_runs import SMALL, SMALL_SSR, SSR, MainJob, run_bundle


@pytest.fixture(scope="session")
def synthetic_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve drawn images with lesions, not square."""
    folder = tmp_path_factory.mktemp("drawn") / "lesions"
    synthesize_dataset("lesion", folder, counts=(12, 4, 4), size=(64, 96), seed=3)
    return folder


@pytest.fixture(scope="session")
def main_job(tmp_path_factory: pytest.TempPathFactory, synthetic_data: Path) -> MainJob:
    """Train MSRF-Net for two epochs through the bundle."""
    root = tmp_path_factory.mktemp("main_job")
    result = run_bundle(
        "training", "train.json", bundle_root=root, dataset_dir=synthetic_data, max_epochs=2, tensorboard=True, **SMALL
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return MainJob(root, synthetic_data, result.stdout + result.stderr)


@pytest.fixture(scope="session")
def ssr_job(tmp_path_factory: pytest.TempPathFactory, synthetic_data: Path) -> MainJob:
    """Train SSR-U-Net for two epochs through its bundle."""
    root = tmp_path_factory.mktemp("ssr_job")
    overrides = {"bundle_root": root, "dataset_dir": synthetic_data, "max_epochs": 2, **SMALL_SSR}
    result = run_bundle("training", "train.json", bundle=SSR, **overrides)
    assert result.returncode == 0, result.stderr[-3000:]
    return MainJob(root, synthetic_data, result.stdout + result.stderr)
