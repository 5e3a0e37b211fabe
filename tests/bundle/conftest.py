"""A small bundle of MONAI's own parts, written anew for each test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TRAIN: dict[str, Any] = {
    "imports": ["$import msrf_monai.bundle as msrf_bundle"],
    "bundle_root": ".",
    "dataset_dir": "data",
    "output_dir": "$@bundle_root + '/eval'",
    "device": "cpu",
    "seed": 0,
    "val_interval": 1,
    "network_def": {
        "_target_": "monai.networks.nets.BasicUNet",
        "spatial_dims": 2,
        "in_channels": 3,
        "out_channels": 1,
        "features": [8, 8, 8, 8, 8, 8],
    },
    "optimizer": {"_target_": "torch.optim.Adam", "params": "$@network_def.parameters()", "lr": 0.001},
    "train": {
        "trainer": {"_target_": "SupervisedTrainer", "max_epochs": 1, "device": "@device"},
        "handlers": [{"_target_": "StatsHandler", "iteration_log": False}],
        "metrics": {"val_dice": 1},
    },
    "initialize": [
        "$msrf_bundle.prepare_run(seed=@seed, output_dir=@output_dir, bundle_root=@bundle_root, device=@device)"
    ],
    "run": ["$print('net', sum(p.numel() for p in @network_def.parameters()))"],
    "training": "@run",
    "finalize": ["$msrf_bundle.finish_manifest(@output_dir)"],
}


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """Folder of a toy bundle with ``configs/train.json`` and nothing else."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "train.json").write_text(json.dumps(TRAIN, indent=4))
    return tmp_path


@pytest.fixture
def run_toy(toy: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``python -m monai.bundle`` in the toy bundle's folder as a user would."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        root = str(Path(__file__).parents[2])
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root, **environment}
        command = [sys.executable, "-m", "monai.bundle", *arguments]
        return subprocess.run(command, cwd=toy, env=env, capture_output=True, text=True, timeout=300, check=False)

    return run
