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


METADATA: dict[str, Any] = {
    "schema": "text",
    "name": "text",
    "task": "text",
    "description": "text",
    "authors": "text",
    "copyright": "text",
    "data_source": "text",
    "data_type": "text",
    "image_classes": "text",
    "label_classes": "text",
    "pred_classes": "text",
    "intended_use": "text",
    "version": "0.1.0",
    "changelog": {"0.1.0": "first"},
    "monai_version": "1.6.1",
    "pytorch_version": "2.13.0",
    "numpy_version": "2.4.6",
    "required_packages_version": {"Pytorch_Ignite": "0.5.5"},
    "eval_metrics": {},
    "references": [],
    "network_data_format": {
        "inputs": {
            "image": {
                "type": "image",
                "format": "RGB",
                "num_channels": 3,
                "spatial_shape": [32, 40],
                "dtype": "float32",
                "value_range": [0, 1],
                "channel_def": {"0": "R", "1": "G", "2": "B"},
            }
        },
        "outputs": {
            "pred": {
                "type": "image",
                "format": "segmentation",
                "num_channels": 1,
                "spatial_shape": [32, 40],
                "dtype": "float32",
                "value_range": [0, 1],
                "channel_def": {"0": "background", "1": "blob"},
            }
        },
    },
}

INFERENCE: dict[str, Any] = {
    "bundle_root": ".",
    "dataset_dir": "data",
    "device": "cpu",
    "network_def": {
        "_target_": "torch.nn.Conv2d",
        "in_channels": 3,
        "out_channels": 1,
        "kernel_size": 3,
        "padding": 1,
    },
    "network": "$@network_def.to(@device)",
    "data": "$[{'image': torch.ones(3, 8, 6)}]",
    "dataset": {"_target_": "monai.data.Dataset", "data": "@data"},
    "dataloader": {"_target_": "monai.data.DataLoader", "dataset": "@dataset", "batch_size": 1},
    "inferer": {"_target_": "monai.inferers.SimpleInferer"},
    "evaluator": {
        "_target_": "monai.engines.SupervisedEvaluator",
        "device": "@device",
        "val_data_loader": "@dataloader",
        "network": "@network",
        "inferer": "@inferer",
    },
    "run": ["$@evaluator.run()"],
    "evaluating": "@run",
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Folder of a bundle that keeps every rule, with a convolution as its network."""
    root = tmp_path / "toy_image_segmentation"
    (root / "configs").mkdir(parents=True)
    (root / "docs").mkdir()
    for name in ("LICENSE", "docs/README.md", "docs/data_license.txt"):
        (root / name).write_text("text\n")
    (root / "configs" / "logging.conf").write_text("[loggers]\nkeys=root\n")
    for name in ("train", "evaluate", "multi_gpu_train", "multi_gpu_evaluate"):
        (root / "configs" / f"{name}.json").write_text("{}\n")
    write_config(root, "inference", INFERENCE)
    write_config(root, "metadata", METADATA)
    return root


def write_config(root: Path, name: str, content: dict[str, Any]) -> Path:
    """Write one config of a bundle the way the rules want it."""
    path = root / "configs" / f"{name}.json"
    path.write_text(json.dumps(content, indent=4) + "\n")
    return path
