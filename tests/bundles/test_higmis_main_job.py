"""What Hi-gMISnet's bundle has beside the jobs of every bundle: four networks, fusions, data sets, pools, export."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from msrf_monai.bundle import build_network, export_torchscript, largest_difference, read_json
from msrf_monai.data import load_datalist, prepare_dataset, synthesize_dataset
from msrf_monai.engines import load_weights
from msrf_monai.errors import CheckpointError
from msrf_monai.networks import HiGMISNet
from support.bundle_results import history, kept, table, training_state, weights_of
from support.bundle_runs import HIGMIS, Evaluate, MainJob, run_here

# Published sizes, (width, height) as MONAI has them.
PUBLISHED_SIZES = {
    "physionet_ich": [256, 256],
    "busi": [256, 256],
    "cvc_clinicdb": [384, 288],
    "monuseg": [512, 512],
    "glas": [512, 512],
    "isic2018": [128, 128],
    "drive": [512, 512],
    "montgomery": [256, 256],
    "promise12": [256, 256],
}
# One short epoch, or the evaluation after it.
SHORT: dict[str, Any] = {**HIGMIS.small("train.json"), "batch_size": 2, "max_epochs": 1, "device": "cpu"}


def train_here(*overlays: str, root: Path, data: Path, **overrides: Any) -> list[dict[str, float]]:
    """Train in this process and return the rows of the history."""
    run_here(HIGMIS, "train.json", *overlays, bundle_root=root, dataset_dir=data, **{**SHORT, **overrides})
    return history(root)


def pair_of(job: MainJob) -> HiGMISNet:
    """Return the trained pair of generators."""
    network = HiGMISNet(features=4, backbones=()).eval()
    load_weights(network, job.root / "models" / "model.pt")
    return network


def test_training_leaves_the_pair_its_fusion_pictures_and_every_term(higmis_job: MainJob) -> None:
    root = higmis_job.root
    assert {name.partition(".")[0] for name in weights_of(root)} == {"lesion", "background", "fusion_code"}
    record = kept(root)
    assert pair_of(higmis_job).fusion == record["fusion"]
    with Image.open(root / "eval" / "curves.png") as image:
        assert image.size[1] >= 1000  # three lines of panels
    rows = history(root)
    assert [row["epoch"] for row in rows] == [1, 2]
    best = rows[int(record["epoch"]) - 1]
    assert best["val_dice"] == best[f"val_dice_{record['fusion']}"] == pytest.approx(record["value"])
    groups = {name.split("_")[2] for name in best if name.startswith("train_loss_")}
    assert groups == {"lesion", "background", "reciprocal", "discriminator"}


def test_state_for_a_resume_holds_all_networks_and_both_optimisers(higmis_job: MainJob) -> None:
    names = {name.split("/")[2] for name in training_state(higmis_job.root) if name.startswith("/objects/")}
    assert names >= {
        *("network", "optimizer", "lesion_discriminator", "background_discriminator", "discriminator_optimizer", "ema")
    }


def test_evaluation_uses_the_chosen_fusion_is_deterministic_and_divides_by_size(
    higmis_job: MainJob, evaluated: Evaluate, tmp_path: Path
) -> None:
    configs, folders = ("train.json", "evaluate.json"), {"bundle_root": higmis_job.root, "dataset_dir": higmis_job.data}
    first, second, other = evaluated(higmis_job), tmp_path / "two", tmp_path / "three"
    run_here(HIGMIS, *configs, **folders, **SHORT, output_dir=second)
    run_here(HIGMIS, *configs, **folders, **SHORT, output_dir=other, fusion="lesion")

    assert (first / "cases.csv").read_text() == (second / "cases.csv").read_text()
    cases = {Path(row["file"]).stem: row for row in table(first / "cases.csv")}
    network = pair_of(higmis_job)
    for item in load_datalist(higmis_job.data, "test"):
        row = cases[Path(item["image"]).stem]
        picture = Image.open(item["image"]).convert("RGB").resize((40, 32), Image.Resampling.LANCZOS)
        image = torch.from_numpy(np.asarray(picture).copy()).permute(2, 1, 0)[None] / 255
        with torch.no_grad():
            area = int((network(image) >= 0.5).sum())
        assert int(row["pred_area_px"]) == pytest.approx(area, abs=40 * 32 * 0.02)  # Pillow's and our Lanczos differ
    sizes = table(first / "by_target_size.csv")
    assert sum(int(row["images"]) for row in sizes) == len(cases) == 3
    lesion = [int(row["pred_area_px"]) for row in table(other / "cases.csv")]
    chosen = [int(row["pred_area_px"]) for row in table(first / "cases.csv")]
    assert network.fusion == "lesion" or lesion != chosen


@pytest.mark.parametrize("name", sorted(PUBLISHED_SIZES))
def test_data_set_has_its_published_size_and_trains(few_lesions: Path, tmp_path: Path, name: str) -> None:
    overlay = read_json(HIGMIS.configs / "datasets" / f"{name}.json")
    assert overlay["image_size"] == overlay["patch_size"] == PUBLISHED_SIZES[name]
    (row,) = train_here(f"datasets/{name}.json", root=tmp_path, data=few_lesions, train_limit=2, val_limit=1)
    assert np.isfinite(row["train_loss"])
    assert 0 <= row["val_dice"] <= 1


def test_every_data_set_of_the_article_has_an_overlay() -> None:
    assert {path.stem for path in (HIGMIS.configs / "datasets").glob("*.json")} == set(PUBLISHED_SIZES)


def test_default_size_is_the_small_one_that_was_trained(few_lesions: Path, tmp_path: Path) -> None:
    default = {**SHORT, "train_limit": 2, "val_limit": 1}
    for key in ("features", "backbones", "discriminator_channels", "learning_rate"):
        default.pop(key)
    workflow = run_here(HIGMIS, "train.json", bundle_root=tmp_path, dataset_dir=few_lesions, **default)
    network = workflow.parser.get_parsed_content("network_def")
    assert sum(p.numel() for p in network.lesion.parameters()) == 2_528_492
    assert np.isfinite(history(tmp_path)[0]["train_loss"])


@pytest.mark.parametrize(
    ("overlays", "width_and_height"),
    [
        (["sizes/published.json", "datasets/glas.json"], [512, 512]),
        (["datasets/glas.json", "sizes/published.json"], [512, 512]),
        (["recipes/published.json"], [256, 256]),
    ],
    ids=["before a data set", "behind it", "recipe"],
)
def test_published_size_is_the_article_s(overlays: list[str], width_and_height: list[int]) -> None:
    parser = ConfigParser(read_json(HIGMIS.configs / "train.json"))
    for overlay in overlays:
        parser.update(read_json(HIGMIS.configs / overlay))
    network, discriminator = (parser.get_parsed_content(key) for key in ("network_def", "lesion_discriminator_def"))
    assert sum(p.numel() for p in network.lesion.parameters()) == 67_983_357
    assert sum(p.numel() for p in discriminator.parameters()) == 2_767_553
    assert parser["image_size"] == parser["patch_size"] == width_and_height


def test_published_recipe_monitors_the_better_of_and_and_or_and_lets_nothing_couple(
    few_lesions: Path, tmp_path: Path
) -> None:
    (row,) = train_here("recipes/published.json", root=tmp_path, data=few_lesions, image_size=[32, 32])
    assert row["val_iou"] == max(row["val_iou_and"], row["val_iou_or"])
    assert {"val_iou_mean", "val_iou_lesion"}.isdisjoint(row)
    assert not any("reciprocal" in name for name in row)
    assert row["learning_rate"] == 0.005  # the override's, not halved yet
    assert kept(tmp_path)["fusion"] in ("and", "or")


def test_odd_sizes_and_a_fixed_fusion(few_lesions: Path, tmp_path: Path) -> None:
    odd = {"image_size": [45, 37], "patch_size": [45, 37], "fusion": "or", "train_limit": 2, "val_limit": 1}
    (row,) = train_here(root=tmp_path, data=few_lesions, **odd)
    assert [name for name in row if name.startswith("val_dice_")] == ["val_dice_or"]
    assert kept(tmp_path)["fusion"] == "or"


def test_one_network_learns_a_pool_and_is_tested_on_each_data_set(few_lesions: Path, tmp_path: Path) -> None:
    synthesize_dataset("nuclei", tmp_path / "nuclei", counts=(2, 1, 1), size=(40, 56), seed=4)
    pool = {"datasets": {"lesions": str(few_lesions), "nuclei": str(tmp_path / "nuclei")}, "samples_per_epoch": 4}
    train_here("multi_domain.json", root=tmp_path, data=few_lesions, **pool)
    out = tmp_path / "out"
    folders = {"bundle_root": tmp_path, "dataset_dir": few_lesions, "output_dir": out}
    run_here(HIGMIS, "train.json", "evaluate.json", "multi_domain.json", **folders, **SHORT, **pool)
    rows = {row["dataset"]: row for row in table(out / "by_dataset.csv")}
    assert {name: row["images"] for name, row in rows.items()} == {"lesions": "2", "nuclei": "1"}
    assert all(0 <= float(row["dice"]) <= 1 for row in rows.values())


def test_dropout_in_evaluation_is_an_option_of_the_bundle() -> None:
    image = torch.rand(1, 3, 32, 32)
    network, sampled = (
        build_network(HIGMIS.folder, features=4, backbones=[], mc_samples=samples, fusion="mean") for samples in (0, 2)
    )
    with torch.no_grad():
        assert torch.equal(network(image), network(image))
        assert not torch.equal(sampled(image), sampled(image))


def test_digest_of_trunk_weights_is_asked_for(tmp_path: Path, few_lesions: Path) -> None:
    path = tmp_path / "vgg16.pth"
    path.write_bytes(b"not these")
    options = {"backbones": ["vgg16"], "vgg_weights": str(path), "vgg_sha256": "0" * 64}
    with pytest.raises(Exception, match="verified_file") as raised:
        train_here(root=tmp_path, data=few_lesions, **options)
    cause: BaseException | None = raised.value
    while cause is not None and not isinstance(cause, CheckpointError):
        cause = cause.__cause__
    assert "is not the expected file" in str(cause)


SHAPES = [(1, 3, 64, 96), (2, 3, 72, 56)]
EXPORTED: dict[str, Any] = {"features": 4, "backbones": []}


def exported(job: MainJob) -> tuple[HiGMISNet, Path]:
    """Return the bundle's network with the trained weights, and the file of these."""
    network, weights = build_network(HIGMIS.folder, **EXPORTED), job.root / "models" / "model.pt"
    assert isinstance(network, HiGMISNet)
    load_weights(network, weights)
    return network, weights


def test_pair_becomes_one_torchscript_module_with_the_chosen_fusion(higmis_job: MainJob, tmp_path: Path) -> None:
    network, weights = exported(higmis_job)
    path = export_torchscript(HIGMIS.folder, tmp_path / "m.ts", checkpoint=weights, **EXPORTED)
    script = torch.jit.load(str(path)).eval()  # type: ignore[no-untyped-call]
    assert largest_difference(network, script, SHAPES) < 1e-3
    assert int(script.fusion_code) == int(network.fusion_code)


@pytest.mark.realdata
def test_real_ultrasound_is_prepared_and_learnt(data_root: Path, tmp_path: Path) -> None:
    source, data = tmp_path / "source", tmp_path / "data"
    for kind in ("images", "masks"):
        (source / kind).mkdir(parents=True)
        for path in sorted((data_root / "BUSI" / kind).iterdir())[:60:6]:
            shutil.copy(path, source / kind)
    prepare_dataset("busi", source, data, split="random", images="reference")

    (row,) = train_here("datasets/busi.json", root=tmp_path / "bundle", data=data)

    assert np.isfinite(row["train_loss"])
    assert 0 <= row["val_dice"] <= 1
