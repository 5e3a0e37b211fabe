"""The numbers of a vessel report: both protocols, pooled and per image, observers, calibration, tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.transforms import AsDiscreted, Compose, CopyItemsd
from PIL import Image
from sklearn.metrics import f1_score, roc_auc_score

from msrf_monai.engines import ChooseThreshold, VesselReport
from msrf_monai.engines.vessel_report_cases import PixelCounts, VesselMaps, protocols_for, score_case
from msrf_monai.metrics import pooled_vessel_scores, vessel_scores
from support.vessel_items import SIZE, Item, inside_of, rows_of, run_handler, summary_of, vessel_item
from support.vessel_truth import scikit_learn


def test_pooled_scores_inside_the_field_of_view_are_scikit_learns(folder: Path, items: list[Item]) -> None:
    pooled = summary_of(folder)["protocols"]["fov_chosen"]["pooled"]
    said, true = (np.concatenate(inside_of(items, key)) for key in ("probability", "label"))
    tolerances = {"auc_roc": 1e-5, "auc_pr": 2e-4, "ece": 1e-6}  # the areas are of probabilities in steps
    for name, expected in scikit_learn(said, true, 0.4).items():
        assert pooled[name] == pytest.approx(expected, abs=tolerances.get(name)), name


def test_pooled_scores_are_those_of_the_metrics(folder: Path, items: list[Item]) -> None:
    maps = [[item[key][0].as_subclass(torch.Tensor) for item in items] for key in ("probability", "label", "fov")]
    for name, threshold in (("fov_chosen", 0.4), ("fov_0.5", 0.5)):
        pooled = summary_of(folder)["protocols"][name]["pooled"]
        assert pooled == pytest.approx(pooled_vessel_scores(*maps, threshold=threshold), abs=2e-4)


def test_means_over_images_are_those_of_the_metrics(folder: Path, items: list[Item]) -> None:
    expected = [
        vessel_scores(item["probability"][0], item["label"][0], item["fov"][0], threshold=0.4) for item in items
    ]
    found = summary_of(folder)["protocols"]["fov_chosen"]["per_image"]
    for name in expected[0]:
        values = [scores[name] for scores in expected]
        assert found[name]["mean"] == pytest.approx(np.mean(values)), name
        assert found[name]["std"] == pytest.approx(np.std(values, ddof=1)), name
        assert found[name]["interval"][0] <= found[name]["mean"] + 1e-12
        assert found[name]["interval"][1] >= found[name]["mean"] - 1e-12


def test_the_legacy_protocol_counts_whole_images_at_one_half(folder: Path, items: list[Item]) -> None:
    protocol = summary_of(folder)["protocols"]["full_0.5"]
    f1 = [f1_score(item["label"].flatten(), item["probability"].flatten() >= 0.5) for item in items]
    auc = [roc_auc_score(item["label"].flatten(), item["probability"].flatten()) for item in items]
    assert (protocol["region"], protocol["threshold"]) == ("full", 0.5)
    assert protocol["per_image"]["f1"]["mean"] == pytest.approx(np.mean(f1))
    assert protocol["per_image"]["auc_roc"]["mean"] == pytest.approx(np.mean(auc))
    assert "cldice" not in protocol["per_image"]


def test_the_second_observer_has_rows_of_its_own(folder: Path, items: list[Item]) -> None:
    protocols = summary_of(folder)["protocols"]
    true, seen = (np.concatenate(inside_of(items, key)) for key in ("label", "label2"))
    assert protocols["fov_observer"]["pooled"]["f1"] == pytest.approx(f1_score(true, seen))
    assert protocols["fov_observer"]["threshold"] is None
    assert "auc_roc" not in protocols["fov_observer"]["pooled"]
    assert protocols["fov_observer"]["per_image"]["cldice"]["mean"] is not None
    whole = [f1_score(item["label"].flatten(), item["label2"].flatten()) for item in items]
    assert protocols["full_observer"]["per_image"]["f1"]["mean"] == pytest.approx(np.mean(whole))


def test_the_tables_have_a_row_for_each_image_protocol_and_average(folder: Path) -> None:
    cases = rows_of(folder / "cases.csv")
    names = ["fov_chosen", "fov_0.5", "fov_observer", "full_0.5", "full_observer"]
    assert [row["protocol"] for row in cases] == names * 5
    assert cases[5]["file"] == "images/c1.png"
    assert cases[2]["auc_roc"] == ""
    tables = rows_of(folder / "tables.csv")
    assert [row["protocol"] for row in tables[::9]] == names
    assert [row["aggregate"] for row in tables[:9]] == [
        *("pooled", "mean", "std", "median", "min", "max", "interval_low", "interval_high", "undefined")
    ]
    summary = summary_of(folder)
    assert float(tables[1]["f1"]) == summary["protocols"]["fov_chosen"]["per_image"]["f1"]["mean"]
    assert tables[0]["cldice"] == ""
    assert summary["primary"] == "fov_chosen"
    assert [worst["f1"] for worst in summary["worst"]] == sorted(worst["f1"] for worst in summary["worst"])


def test_metrics_of_the_engine_are_the_primary_ones(items: list[Item], tmp_path: Path) -> None:
    engine = run_handler(VesselReport(str(tmp_path), threshold=0.4, topology=False, overlays=False), items)
    primary = summary_of(tmp_path)["protocols"]["fov_chosen"]
    assert engine.state.metrics["pooled_f1"] == primary["pooled"]["f1"]
    assert engine.state.metrics["mean_auc_roc"] == primary["per_image"]["auc_roc"]["mean"]
    assert not [name for name in engine.state.metrics if "cldice" in name]


def test_at_one_half_there_is_one_threshold_only(items: list[Item], tmp_path: Path) -> None:
    run_handler(VesselReport(str(tmp_path), topology=False, overlays=False), items)
    summary = summary_of(tmp_path)
    assert summary["primary"] == "fov_0.5"
    assert "fov_chosen" not in summary["protocols"]


def test_the_calibration_has_the_bins_of_the_diagram(folder: Path, items: list[Item]) -> None:
    calibration = summary_of(folder)["calibration"]
    said, true = (np.concatenate(inside_of(items, key)) for key in ("probability", "label"))
    place = np.clip(np.ceil(said.astype(np.float64) * 15).astype(int) - 1, 0, 14)
    assert [each["pixels"] for each in calibration["bins"]] == np.bincount(place, minlength=15).tolist()
    assert calibration["bins"][9]["vessel_share"] == pytest.approx(true[place == 9].mean())
    assert calibration["bins"][9]["mean_probability"] == pytest.approx(said[place == 9].mean(), rel=1e-6)
    with Image.open(folder / "reliability.png") as picture:
        assert min(picture.size) > 300


def test_in_monais_evaluator_fields_of_view_and_observers_are_found_in_the_batch(tmp_path: Path) -> None:
    items = [
        {**vessel_item(index), "image": vessel_item(index)["probability"]} for index in range(3)
    ]  # the input is the answer
    given = [
        {**item, "image": MetaTensor(item["image"], meta=vessel_item(k)["image"].meta)} for k, item in enumerate(items)
    ]
    dataset = [{key: item[key] for key in ("image", "label", "fov", "label2")} for item in given]
    network = torch.nn.Identity()
    post = Compose([CopyItemsd("pred", names="probability"), AsDiscreted("pred", threshold=0.5)])
    chosen = ChooseThreshold(str(tmp_path))
    for handler in (chosen, VesselReport(str(tmp_path), threshold=chosen, topology=False)):
        SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(Dataset(dataset), batch_size=2),
            network=network,
            postprocessing=post,
            val_handlers=[handler],
        ).run()

    assert json.loads((tmp_path / "threshold.json").read_text())["pixels"] == "in the field of view"
    protocols = summary_of(tmp_path)["protocols"]
    assert protocols["fov_observer"]["images"] == 3
    said, true = (np.concatenate(inside_of(items, key)) for key in ("probability", "label"))
    assert protocols["fov_0.5"]["pooled"]["f1"] == pytest.approx(f1_score(true, said >= 0.5))
    assert summary_of(tmp_path)["notes"] == []


def test_an_image_that_comes_twice_counts_once(items: list[Item], folder: Path, tmp_path: Path) -> None:
    run_handler(VesselReport(str(tmp_path), dataset_dir="/data/set", threshold=0.4), [*items, items[0], items[3]])
    for name in ("cases.csv", "tables.csv"):
        assert (tmp_path / name).read_text() == (folder / name).read_text()


def test_counts_of_levels_give_the_areas_of_saturated_probabilities_too() -> None:
    generator = torch.Generator().manual_seed(1)
    label = torch.rand(400, 300, generator=generator) > 0.9
    logits = torch.randn(400, 300, generator=generator, dtype=torch.float64) * 6 + torch.where(label, 9.0, -9.0)
    said = torch.sigmoid(logits).float()
    counts = PixelCounts.of(VesselMaps(said, label))
    exact = pooled_vessel_scores([said], [label])
    assert counts.auc_roc() == pytest.approx(exact["auc_roc"], abs=1e-5)
    assert counts.auc_pr() == pytest.approx(exact["auc_pr"], abs=1e-4)
    assert counts.ece() == pytest.approx(exact["ece"], abs=1e-9)
    assert np.isnan(PixelCounts.none().ece())


def test_rows_of_an_image_are_plain_json() -> None:
    item = vessel_item(0)
    maps = VesselMaps(*(item[key][0] for key in ("probability", "label", "fov", "label2")))
    rows = score_case(maps, protocols_for(0.3, has_observer=True, topology=False))
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert sum(rows[0][name] for name in ("tp", "fp", "fn", "tn")) == int(item["fov"].sum())
    assert sum(rows[-1][name] for name in ("tp", "fp", "fn", "tn")) == SIZE[0] * SIZE[1]
