"""What IMFF-Net's bundle trains by its overlays and settings: widths, ablations, clDice, the published recipe."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from msrf_monai.bundle import check_torchscript, read_json
from msrf_monai.data import load_datalist, prepare_dataset
from msrf_monai.networks import IMFFNet
from support.bundle_results import history, kept, read_mask, table, weights_of
from support.bundle_runs import IMFF, run_here

NARROW = [4, 4, 8, 8, 8]
PARAMETERS = {"full": 34_684_354, "half": 8_677_090, "quarter": 2_172_274, "eighth": 544_570}
# Ablation: levels with attention-pooling fusion, whether there is a side pyramid, number of shares that are learnt.
ABLATIONS = {
    "apf_on_all_skips": ({0, 1, 2, 3}, True, 0),
    "learnable_mixing": ({1}, True, 5),
    "no_apf": (set(), True, 0),
    "no_udff": ({1}, False, 0),
    "plain_unet": (set(), False, 0),
}
# One tiny epoch; pictures and the state for a resume are left out.
TINY: dict[str, Any] = {
    "features": NARROW,
    "patch_size": [32, 32],
    "window_size": [48, 48],
    "crops_per_image": 1,
    "train_limit": 4,
    "batch_size": 2,
    "max_epochs": 1,
    "device": "cpu",
    "train::handlers::10::_disabled_": True,
    "train::handlers::11::_disabled_": True,
    "validate::handlers::3::_disabled_": True,
}
SQUASHED: dict[str, Any] = {"image_size": [48, 32], "patch_size": [48, 32], "window_size": [48, 32]}


def train_here(*overlays: str, root: Path, data: Path, **overrides: Any) -> list[dict[str, float]]:
    """Train in this process and return the rows of the history."""
    run_here(IMFF, "train.json", *overlays, bundle_root=root, dataset_dir=data, **{**TINY, **overrides})
    return history(root)


@pytest.mark.parametrize("width", sorted(PARAMETERS))
def test_every_width_trains(vessel_data: Path, tmp_path: Path, width: str) -> None:
    features = read_json(IMFF.configs / "widths" / f"{width}.json")["features"]

    (row,) = train_here(f"widths/{width}.json", root=tmp_path, data=vessel_data, features=features, train_limit=2)

    assert np.isfinite(row["train_loss"])
    learnt = {k: v for k, v in weights_of(tmp_path).items() if "running_" not in k and "num_batches" not in k}
    assert sum(v.numel() for v in learnt.values()) == PARAMETERS[width]


def test_the_default_is_a_quarter_of_the_published_width() -> None:
    quarter = read_json(IMFF.configs / "widths" / "quarter.json")
    for name in ("train", "inference"):
        assert read_json(IMFF.configs / f"{name}.json")["features"] == quarter["features"]


@pytest.mark.parametrize("name", sorted(ABLATIONS))
def test_every_ablation_trains_the_network_that_it_names(vessel_data: Path, tmp_path: Path, name: str) -> None:
    levels, has_pyramid, shares = ABLATIONS[name]

    (row,) = train_here(f"ablations/{name}.json", root=tmp_path, data=vessel_data)

    assert np.isfinite(row["train_loss"])
    weights = weights_of(tmp_path)
    assert {int(key.split(".")[1]) for key in weights if key.startswith("skips.")} == levels
    assert any(key.startswith("fusion.") for key in weights) is has_pyramid
    default = IMFFNet(features=NARROW).state_dict().keys()
    assert len([key for key, v in weights.items() if v.numel() == 1 and key not in default]) == shares


def test_every_ablation_is_tested() -> None:
    assert sorted(ABLATIONS) == sorted(path.stem for path in (IMFF.configs / "ablations").glob("*.json"))
    assert sorted(PARAMETERS) == sorted(path.stem for path in (IMFF.configs / "widths").glob("*.json"))


# the others are these with less
@pytest.mark.parametrize("name", ["apf_on_all_skips", "learnable_mixing", "plain_unet"])
def test_ablations_are_exported_by_script(tmp_path: Path, name: str) -> None:
    overlay = read_json(IMFF.configs / "ablations" / f"{name}.json")
    overrides = {key.replace("#", "::"): value for key, value in overlay.items()}
    assert check_torchscript(IMFF.folder, tmp_path, features=NARROW, **overrides) == []


def test_soft_cldice_joins_the_loss_after_the_epochs_that_are_asked_for(vessel_data: Path, tmp_path: Path) -> None:
    overrides = {**TINY, "max_epochs": 4, "train_limit": 2, "cldice_weight": 0.3, "cldice_after": 1}
    workflow = run_here(IMFF, "train.json", bundle_root=tmp_path, dataset_dir=vessel_data, **overrides)

    # 0 up to the first epoch, then by a fifth of the weight each epoch
    assert workflow.parser.get_parsed_content("loss").cldice_weight == pytest.approx(0.3 * 3 / 5)
    assert all(np.isfinite(row["train_loss"]) for row in history(tmp_path))


def test_the_published_recipe_keeps_the_last_weights_and_its_rate(vessel_data: Path, tmp_path: Path) -> None:
    overrides = {**TINY, **SQUASHED, "max_epochs": 3}
    folders = {"bundle_root": tmp_path, "dataset_dir": vessel_data}
    workflow = run_here(IMFF, "train.json", "recipes/published.json", **folders, **overrides)

    assert {row["learning_rate"] for row in history(tmp_path)} == {1e-3}
    assert kept(tmp_path)["epoch"] == 3
    item = workflow.parser.get_parsed_content("train#dataset")[0]
    assert item.keys() == {"image", "label"}
    assert item["image"].shape == (3, 48, 32)
    assert 0 <= item["image"].min() < item["image"].max() <= 1
    assert ((item["label"] > 0) & (item["label"] < 1)).any()  # resized as published, not decided again
    network, average = (workflow.parser.get_parsed_content(name) for name in ("network", "validate#evaluator"))
    assert average.network is network

    # whichever order the overlays are named in, masks are scored at the size of the photographs
    overlays = ("recipes/published.json", "evaluate.json")
    small = {"features": NARROW, "device": "cpu", **SQUASHED}
    for k, order in enumerate((overlays, overlays[::-1])):
        run_here(IMFF, "train.json", *order, **folders, output_dir=tmp_path / str(k), topology=False, **small)
    cases = table(tmp_path / "0" / "cases.csv")
    assert cases == table(tmp_path / "1" / "cases.csv")
    full = [row for row in cases if row["protocol"] == "full_0.5"]
    assert [sum(int(row[n]) for n in ("tp", "fp", "fn", "tn")) for row in full] == [56 * 72] * 3

    (tmp_path / "in").mkdir()
    Image.open(load_datalist(vessel_data, "test")[0]["image"]).resize((90, 60)).save(tmp_path / "in" / "a.jpg")
    folders = {"bundle_root": tmp_path, "dataset_dir": tmp_path / "in", "output_dir": tmp_path / "out"}
    del small["patch_size"]
    run_here(IMFF, "inference.json", "recipes/published_inference.json", **folders, **small)
    assert read_mask(tmp_path / "out" / "a_seg.png").shape == (60, 90)


@pytest.mark.realdata
def test_real_photographs_are_prepared_learnt_scored_and_segmented(data_root: Path, tmp_path: Path) -> None:
    source, data, root = tmp_path / "source", tmp_path / "data", tmp_path / "bundle"
    for path in sorted((data_root / "CHASE_DB1").glob("*/Image_*")):
        if path.stem[6:] in ("01L", "01R", "02L", "10L", "11R"):
            (source / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, source / path.parent.name)
    prepare_dataset("chase_db1", source, data, images="reference")

    sizes = {"features": [4, 8, 8], "window_size": [576, 576]}
    (row,) = train_here("datasets/chase_db1.json", root=root, data=data, **sizes)
    common = {"bundle_root": root, "device": "cpu", **sizes}
    run_here(
        IMFF, "train.json", "evaluate.json", dataset_dir=data, output_dir=tmp_path / "test", topology=False, **common
    )
    (tmp_path / "in").mkdir()
    shutil.copy(source / "images" / "Image_11R.jpg", tmp_path / "in")
    run_here(IMFF, "inference.json", dataset_dir=tmp_path / "in", output_dir=tmp_path / "out", **common)

    assert np.isfinite(row["train_loss"])
    (case,) = (each for each in table(tmp_path / "test" / "cases.csv") if each["protocol"] == "fov_observer")
    assert case["file"].endswith("Image_11R.jpg")
    assert 0.6 < float(case["f1"]) < 0.95  # the second observer against the first
    assert read_mask(tmp_path / "out" / "Image_11R_seg.png").shape == (960, 999)
