"""The main job through SSR-U-Net's bundle, its recalibration overlays and the papers' recipes."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image

from msrf_monai.bundle import check_torchscript
from msrf_monai.data import load_datalist, prepare_dataset
from msrf_monai.networks.nets.recalibrated_unet import Recalibration
from support.bundle_runs import SMALL_SSR, SMALL_SSR_INFERENCE, SSR, MainJob, run_bundle

RECALIBRATIONS = sorted(path.stem for path in (SSR / "configs" / "recalibration").glob("*.json"))
# The same small run inside this process, where values need no shell; blocks that divide channels need 16 of them.
SMALL_HERE: dict[str, Any] = {
    "network_def::features": [16, 16, 32, 32],
    "image_size": [48, 40],
    "patch_size": [48, 40],
    "batch_size": 4,
    "max_epochs": 1,
    "device": "cpu",
}


def train_here(*configs: str, root: Path, data: Path, **overrides: Any) -> list[dict[str, float]]:
    """Train in this process and return the rows of the history."""
    workflow = ConfigWorkflow(
        config_file=[str(SSR / "configs" / name) for name in ("train.json", *configs)],
        workflow_type="train",
        logging_file=False,
        bundle_root=str(root),
        dataset_dir=str(data),
        **{**SMALL_HERE, **overrides},
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    rows: list[dict[str, float]] = json.loads((root / "eval" / "history.json").read_text())
    return rows


def tensors(value: Any, name: str = "") -> dict[str, torch.Tensor]:
    """Return every tensor of a nested state by its path."""
    if isinstance(value, torch.Tensor):
        return {name: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return {k: v for key, part in items for k, v in tensors(part, f"{name}/{key}").items()}


def test_training_leaves_weights_pictures_and_a_record(ssr_job: MainJob) -> None:
    weights = torch.load(ssr_job.root / "models" / "model.pt", weights_only=True)
    assert all(isinstance(v, torch.Tensor) for v in weights.values())
    run = ssr_job.root / "eval"
    for picture in ("curves.png", "gallery.png"):
        with Image.open(run / picture) as image:
            assert min(image.size) >= 300
    rows = list(csv.DictReader((run / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert {"train_loss", "val_dice", "val_iou"} <= rows[0].keys()
    assert json.loads((run / "run.json").read_text())["seed"] == 42
    assert json.loads((ssr_job.root / "models" / "model.json").read_text())["metric"] == "val_dice"


def test_resumed_training_ends_with_the_bits_of_one_without_a_stop(ssr_job: MainJob, tmp_path: Path) -> None:
    common = {"bundle": SSR, "bundle_root": tmp_path, "dataset_dir": ssr_job.data, **SMALL_SSR}
    first = run_bundle("training", "train.json", lr_scheduler__t_total=2, max_epochs=1, **common)
    assert first.returncode == 0, first.stderr[-2000:]
    second = run_bundle("training", "train.json", max_epochs=2, resume=True, **common)
    assert second.returncode == 0, second.stderr[-2000:]

    one, two = (
        tensors(torch.load(root / "models" / "state" / "training_state.pt", weights_only=True))
        for root in (ssr_job.root, tmp_path)
    )

    assert one.keys() == two.keys()
    assert [k for k, v in one.items() if not torch.equal(v, two[k])] == []


def test_two_processes_score_every_test_image_once(ssr_job: MainJob, tmp_path: Path) -> None:
    common = {"bundle": SSR, "bundle_root": ssr_job.root, "dataset_dir": ssr_job.data, **SMALL_SSR}
    configs = ["train.json", "evaluate.json"]
    single = run_bundle("evaluating", *configs, output_dir=tmp_path / "one", **common)
    double = run_bundle(
        "evaluating", *configs, "multi_gpu_evaluate.json", torchrun=2, output_dir=tmp_path / "two", **common
    )
    assert single.returncode == 0, single.stderr[-2000:]
    assert double.returncode == 0, double.stderr[-2000:]

    one, two = (list(csv.DictReader((tmp_path / name / "cases.csv").open())) for name in ("one", "two"))

    assert {Path(row["file"]).stem for row in one} == {
        Path(item["image"]).stem for item in load_datalist(ssr_job.data, "test")
    }
    assert sorted(one, key=str) == sorted(two, key=str)
    summary = json.loads((tmp_path / "one" / "summary.json").read_text())
    assert summary["paper"]["macro_dsc"] == pytest.approx(np.mean([float(row["dice"]) for row in one]), abs=1e-4)


@pytest.mark.slow
def test_two_processes_train(ssr_job: MainJob, tmp_path: Path) -> None:
    result = run_bundle(
        "training",
        "train.json",
        "recalibration/multifractal.json",
        "multi_gpu_train.json",
        bundle=SSR,
        torchrun=2,
        max_epochs=1,
        bundle_root=tmp_path,
        dataset_dir=ssr_job.data,
        **SMALL_SSR,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert (tmp_path / "models" / "model.pt").is_file()


def test_inference_gives_a_mask_of_each_image_in_its_own_size(ssr_job: MainJob, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    (folder / "ward").mkdir(parents=True)
    images = [item["image"] for item in load_datalist(ssr_job.data, "test")]
    for k, name in enumerate(("a.png", "b.jpg", "ward/a.png", "c.tif")):
        Image.open(images[k % len(images)]).convert("RGB").resize((150 + 10 * k, 90)).save(folder / name)
    Image.new("L", (1, 1), 90).save(folder / "one_pixel.png")

    result = run_bundle(
        "evaluating",
        "inference.json",
        bundle=SSR,
        bundle_root=ssr_job.root,
        dataset_dir=folder,
        output_dir=out,
        save_probabilities=True,
        save_overlays=True,
        **SMALL_SSR_INFERENCE,
    )

    assert result.returncode == 0, result.stderr[-2000:]
    masks = [np.asarray(Image.open(path)) for path in sorted(out.rglob("*_seg.png"))]
    assert {mask.shape for mask in masks} == {(90, 150), (90, 160), (90, 170), (90, 180), (1, 1)}
    assert all(set(np.unique(mask)) <= {0, 255} for mask in masks)
    assert len(list(out.rglob("*_prob.png"))) == len(list(out.rglob("*_overlay.jpg"))) == 5


@pytest.mark.parametrize("name", RECALIBRATIONS)
def test_one_override_exchanges_the_block_and_trains(ssr_job: MainJob, tmp_path: Path, name: str) -> None:
    (row,) = train_here(f"recalibration/{name}.json", root=tmp_path, data=ssr_job.data)

    assert np.isfinite(row["train_loss"])
    weights = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    norms = [key for key in weights if key.endswith("running_mean")]
    has_norm = {"ssr": 3, "srm": 3, "multifractal": 6}  # singularity strength; mean and deviation; and the level sets
    assert len(norms) == has_norm.get(name, 0)


@pytest.mark.parametrize("name", RECALIBRATIONS)
def test_every_block_is_exported_by_script(tmp_path: Path, name: str) -> None:
    block = "$None" if name == "none" else name
    overrides = {"network_def::recalibration": block, "network_def::features": SMALL_HERE["network_def::features"]}
    assert check_torchscript(SSR, tmp_path, **overrides) == []


def test_every_recalibration_of_the_network_has_its_overlay() -> None:
    assert sorted(["none", *get_args(Recalibration)]) == RECALIBRATIONS


@pytest.mark.parametrize("recipe", ["eusipco2024", "multifractal2025"])
def test_published_recipe_keeps_the_weights_of_the_lowest_validation_loss(
    ssr_job: MainJob, tmp_path: Path, recipe: str
) -> None:
    rows = train_here(f"recipes/{recipe}.json", root=tmp_path, data=ssr_job.data, max_epochs=4, learning_rate=0.01)

    losses = [row["val_loss"] for row in rows]
    record = json.loads((tmp_path / "models" / "model.json").read_text())
    assert record["metric"] == "val_loss"
    assert record["value"] == pytest.approx(min(losses))
    assert record["epoch"] == 1 + int(np.argmin(losses))
    assert {row["learning_rate"] for row in rows} == {0.01}


def test_weights_of_another_width_are_refused_in_one_line(ssr_job: MainJob, tmp_path: Path) -> None:
    result = run_bundle(
        "evaluating",
        "inference.json",
        bundle=SSR,
        bundle_root=ssr_job.root,
        dataset_dir=ssr_job.data / "images",
        output_dir=tmp_path,
        **{**SMALL_SSR_INFERENCE, "network_def__features": "[4,8,16,16]"},
    )
    assert result.returncode == 1
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert "model.pt" in line


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


def test_readme_of_the_bundle_names_every_config() -> None:
    text = (SSR / "docs" / "README.md").read_text()
    assert [p.name for p in (SSR / "configs").rglob("*.json") if p.name not in text] == []
