"""A bundle that was trained once for all tests of this session."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from msrf_monai.data import synthesize_dataset
from support.bundle_runs import IMFF, SMALL, SMALL_IMFF, SMALL_SSR, SSR, MainJob, run_bundle


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


@pytest.fixture(scope="session")
def vessel_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn retinas with fields of view, not square; a second observer saw the test images as the first saw others."""
    folder = tmp_path_factory.mktemp("drawn") / "vessels"
    synthesize_dataset("vessels", folder, counts=(6, 2, 3), size=(56, 72), seed=3)
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "labels2").mkdir()
    for item, other in zip(content["test"], content["training"], strict=False):
        item["label2"] = item["label"].replace("labels/", "labels2/")
        shutil.copy(folder / other["label"], folder / item["label2"])
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="session")
def imff_job(tmp_path_factory: pytest.TempPathFactory, vessel_data: Path) -> MainJob:
    """Train IMFF-Net for two epochs through its bundle."""
    root = tmp_path_factory.mktemp("imff_job")
    overrides = {"bundle_root": root, "dataset_dir": vessel_data, "max_epochs": 2, **SMALL_IMFF}
    result = run_bundle("training", "train.json", bundle=IMFF, **overrides)
    assert result.returncode == 0, result.stderr[-3000:]
    return MainJob(root, vessel_data, result.stdout + result.stderr)
