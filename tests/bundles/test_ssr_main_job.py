"""What SSR-U-Net's bundle has beside the jobs of every bundle: its recalibration overlays and the papers' recipes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from msrf_monai.bundle import check_torchscript
from msrf_monai.data import prepare_dataset
from msrf_monai.networks.nets.recalibrated_unet import Recalibration
from support.bundle_results import history, kept, weights_of
from support.bundle_runs import SSR, finished, run_bundle, run_here

RECALIBRATIONS = sorted(path.stem for path in (SSR.configs / "recalibration").glob("*.json"))
# One short epoch; blocks that divide channels need 16 of them.
SHORT: dict[str, Any] = {
    "network_def::features": [16, 16, 32, 32],
    "image_size": [48, 40],
    "patch_size": [48, 40],
    "batch_size": 4,
    "max_epochs": 1,
    "device": "cpu",
}


def train_here(*overlays: str, root: Path, data: Path, **overrides: Any) -> list[dict[str, float]]:
    """Train in this process and return the rows of the history."""
    run_here(SSR, "train.json", *overlays, bundle_root=root, dataset_dir=data, **{**SHORT, **overrides})
    return history(root)


@pytest.mark.parametrize("name", RECALIBRATIONS)
def test_one_override_exchanges_the_block_and_trains(lesion_data: Path, tmp_path: Path, name: str) -> None:
    (row,) = train_here(f"recalibration/{name}.json", root=tmp_path, data=lesion_data)

    assert np.isfinite(row["train_loss"])
    norms = [key for key in weights_of(tmp_path) if key.endswith("running_mean")]
    has_norm = {"ssr": 3, "srm": 3, "multifractal": 6}  # singularity strength; mean and deviation; and the level sets
    assert len(norms) == has_norm.get(name, 0)


def test_block_with_the_most_running_statistics_trains_in_two_processes(lesion_data: Path, tmp_path: Path) -> None:
    configs = ("train.json", "recalibration/multifractal.json", "multi_gpu_train.json")
    folders = {"bundle_root": tmp_path, "dataset_dir": lesion_data}
    finished(run_bundle(SSR, "training", *configs, torchrun=2, **folders, **SSR.small(*configs), max_epochs=1))
    assert all(torch.isfinite(v).all() for v in weights_of(tmp_path).values())


@pytest.mark.parametrize("name", RECALIBRATIONS)
def test_every_block_is_exported_by_script(tmp_path: Path, name: str) -> None:
    block = "$None" if name == "none" else name
    overrides = {"network_def::recalibration": block, "network_def::features": SHORT["network_def::features"]}
    assert check_torchscript(SSR.folder, tmp_path, **overrides) == []


def test_every_recalibration_of_the_network_has_its_overlay() -> None:
    assert sorted(["none", *get_args(Recalibration)]) == RECALIBRATIONS


@pytest.mark.parametrize("recipe", ["eusipco2024", "multifractal2025"])
def test_published_recipe_keeps_the_weights_of_the_lowest_validation_loss(
    lesion_data: Path, tmp_path: Path, recipe: str
) -> None:
    rows = train_here(f"recipes/{recipe}.json", root=tmp_path, data=lesion_data, max_epochs=4, learning_rate=0.01)

    losses = [row["val_loss"] for row in rows]
    record = kept(tmp_path)
    assert record["metric"] == "val_loss"
    assert record["value"] == pytest.approx(min(losses))
    assert record["epoch"] == 1 + int(np.argmin(losses))
    assert {row["learning_rate"] for row in rows} == {0.01}


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "folder", "overlay"),
    [
        ("isic2017", "ISIC2017_256x192", "isic2018"),
        ("busi", "BUSI", "busi"),
        ("kvasir_seg", "Kvasir-SEG", "kvasir_seg"),
    ],
)
def test_real_images_are_prepared_and_learnt(
    data_root: Path, tmp_path: Path, name: str, folder: str, overlay: str
) -> None:
    source, data = tmp_path / "source", tmp_path / "data"
    for kind in ("images", "masks"):
        (source / kind).mkdir(parents=True)
        for path in sorted((data_root / folder / kind).iterdir())[:60:5]:
            shutil.copy(path, source / kind)
    prepare_dataset(name, source, data, images="reference")

    sizes = {"image_size": [56, 40], "patch_size": [56, 40]}
    (row,) = train_here(f"datasets/{overlay}.json", root=tmp_path / "bundle", data=data, **sizes)

    assert np.isfinite(row["train_loss"])
    assert 0 <= row["val_dice"] <= 1
    assert (tmp_path / "bundle" / "models" / "model.pt").is_file()
