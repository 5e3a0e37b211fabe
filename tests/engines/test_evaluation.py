"""The report of an evaluation: rows, averages, intervals, files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from msrf_monai.engines import SegmentationReport, case_row, summarise
from msrf_monai.engines.evaluation import _gathered
from msrf_monai.errors import ConfigError, DataError, InputError


def _cases(count: int = 6) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(4)
    made = []
    for index in range(count):
        label = (torch.rand(1, 16, 24, generator=generator) > 0.6).float()
        flips = torch.rand(1, 16, 24, generator=generator) > 0.8
        made.append((f"/data/set/images/c{index}.png", torch.where(flips, 1 - label, label), label))
    return made


def _run(handler: SegmentationReport, cases: list[tuple[str, torch.Tensor, torch.Tensor]]) -> Engine:
    def step(engine: Engine, batch: list[tuple[str, torch.Tensor, torch.Tensor]]) -> list[dict[str, torch.Tensor]]:
        engine.state.batch = [{"image": MetaTensor(pred, meta={"filename_or_obj": name})} for name, pred, _ in batch]
        return [{"pred": pred, "label": MetaTensor(label)} for _, pred, label in batch]

    engine = Engine(step)
    handler.attach(engine)
    engine.run([cases[:2], cases[2:]])
    return engine


def test_the_averages_equal_scikit_learns(tmp_path: Path) -> None:
    cases = _cases()
    engine = _run(SegmentationReport(str(tmp_path), dataset_dir="/data/set"), cases)
    summary = json.loads((tmp_path / "summary.json").read_text())
    truth = np.concatenate([label.flatten().numpy() for _, _, label in cases])
    found = np.concatenate([pred.flatten().numpy() for _, pred, _ in cases])
    macro = np.mean([f1_score(label.flatten(), pred.flatten()) for _, pred, label in cases])
    expected = {
        "macro_dsc": macro,
        "pooled_iou": jaccard_score(truth, found),
        "pooled_precision": precision_score(truth, found),
        "pooled_recall": recall_score(truth, found),
    }
    assert summary["paper"] == pytest.approx(expected)
    assert summary["images"] == 6
    assert engine.state.metrics["macro_dsc"] == pytest.approx(macro)
    assert engine.state.metrics["mean_dice"] == pytest.approx(macro)
    assert summary["per_image"]["dice"]["std"] == pytest.approx(
        np.std([f1_score(label.flatten(), pred.flatten()) for _, pred, label in cases], ddof=1)
    )
    for part in (summary["per_image"]["dice"], summary["per_image"]["hd95_px"]):
        assert part["interval"][0] <= part["mean"] <= part["interval"][1]
    for part in summary["pooled"].values():
        assert part["interval"][0] <= part["value"] <= part["interval"][1]
    assert summary["versions"].keys() == {"msrf_monai", "monai", "torch"}


def test_each_image_has_one_row_by_its_path_in_the_data_set(tmp_path: Path) -> None:
    _run(SegmentationReport(str(tmp_path), dataset_dir="/data/set"), _cases())
    rows = list(csv.DictReader((tmp_path / "cases.csv").open()))
    assert [row["file"] for row in rows] == [f"images/c{index}.png" for index in range(6)]
    pred, label = _cases()[3][1:]
    assert float(rows[3]["dice"]) == pytest.approx(f1_score(label.flatten(), pred.flatten()))
    assert int(rows[3]["truth_area_px"]) == int(label.sum())
    assert int(rows[3]["pred_area_px"]) == int(pred.sum())
    assert int(rows[3]["tp"]) + int(rows[3]["fp"]) + int(rows[3]["fn"]) + int(rows[3]["tn"]) == 16 * 24


def test_files_outside_the_data_set_are_named_without_their_folder(tmp_path: Path) -> None:
    _run(SegmentationReport(str(tmp_path), dataset_dir="/data/other"), _cases())
    assert next(csv.DictReader((tmp_path / "cases.csv").open()))["file"] == "c0.png"


def test_files_of_one_name_in_two_folders_have_a_row_each(tmp_path: Path) -> None:
    pred, label = _cases(1)[0][1:]
    names = ["/elsewhere/seq1/001.png", "/elsewhere/seq2/001.png", "/elsewhere/seq2/002.png", "/data/set/002.png"]
    _run(SegmentationReport(str(tmp_path), dataset_dir="/data/set"), [(name, pred, label) for name in names])
    table = (tmp_path / "cases.csv").read_text()
    shown = [row["file"] for row in csv.DictReader(table.splitlines())]
    assert shown == ["002.png", "seq1/001.png", "seq2/001.png", "seq2/002.png"]
    assert "elsewhere" not in table
    assert json.loads((tmp_path / "summary.json").read_text())["images"] == 4


def test_links_to_one_file_are_two_images(tmp_path: Path) -> None:
    (tmp_path / "store.png").touch()
    links = [tmp_path / "set" / name for name in ("a.png", "b.png")]
    (tmp_path / "set").mkdir()
    for link in links:
        link.symlink_to(tmp_path / "store.png")
    pred, label = _cases(1)[0][1:]
    report = SegmentationReport(str(tmp_path / "out"), dataset_dir=str(tmp_path / "set"))
    _run(report, [(str(link), pred, label) for link in [*links, links[0]]])
    rows = list(csv.DictReader((tmp_path / "out" / "cases.csv").open()))
    assert [row["file"] for row in rows] == ["a.png", "b.png"]


def test_a_one_sided_empty_mask_has_no_distance_and_is_counted() -> None:
    empty, full = torch.zeros(4, 5), torch.ones(4, 5)
    rows = [{"file": "a", **case_row(empty, full)}, {"file": "b", **case_row(full, full)}]
    assert rows[0]["hd95_px"] is None
    summary = summarise(rows, worst=1)
    assert summary["per_image"]["hd95_px"]["undefined"] == 1
    assert summary["per_image"]["hd95_px"]["mean"] == 0.0
    assert summary["worst"] == [{"file": "a", "dice": 0.0}]


def test_without_any_distance_the_mean_is_missing_and_the_file_is_valid(tmp_path: Path) -> None:
    engine = _run(SegmentationReport(str(tmp_path)), [("a", torch.zeros(1, 4, 5), torch.ones(1, 4, 5))] * 3)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["per_image"]["hd95_px"]["mean"] is None
    assert "mean_hd95_px" not in engine.state.metrics
    assert summary["images"] == 1  # one file, however often it came


def test_another_geometry_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"prediction for c0 has shape \(4, 5\) and its mask \(5, 4\)"):
        _run(SegmentationReport(str(tmp_path)), [("c0", torch.zeros(1, 4, 5), torch.zeros(1, 5, 4))] * 3)


def test_undecided_predictions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="decided mask"):
        _run(SegmentationReport(str(tmp_path)), [("c0", torch.full((1, 4, 5), 0.3), torch.zeros(1, 4, 5))] * 3)


def test_nothing_to_evaluate_is_refused() -> None:
    with pytest.raises(InputError, match="no image to summarise"):
        summarise([])


@pytest.mark.parametrize("arguments", [{"confidence": 1.0}, {"samples": 0}, {"worst": -1}])
def test_wrong_arguments_are_refused(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="confidence must be in"):
        SegmentationReport(str(tmp_path), **arguments)


def test_processes_rows_are_joined_in_order_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = [{"_path": "/c", "dice": 1.0}, {"_path": "/a", "dice": 0.5}]
    theirs = [{"_path": "/b", "dice": 0.2}, {"_path": "/c", "dice": 1.0}]
    monkeypatch.setattr("msrf_monai.engines.evaluation.idist.get_world_size", lambda: 2)
    monkeypatch.setattr("msrf_monai.engines.evaluation.idist.all_gather", lambda text: [text, json.dumps(theirs)])
    rows = SegmentationReport("unused")._named(_gathered(mine))
    assert rows == [{"file": "a", "dice": 0.5}, {"file": "b", "dice": 0.2}, {"file": "c", "dice": 1.0}]


def test_images_without_a_recorded_file_are_all_kept() -> None:
    rows = [{"_path": "(file not recorded)", "dice": 0.1}, {"_path": "(file not recorded)", "dice": 0.2}]
    named = SegmentationReport("unused")._named(_gathered(rows))
    assert [row["file"] for row in named] == ["(file not recorded)"] * 2


def test_it_reports_the_same_dice_as_the_key_metric(tmp_path: Path, job: ModuleType) -> None:
    run = job.build(tmp_path, epochs=1, validation_handlers=[SegmentationReport(str(tmp_path))])
    run["trainer"].run()
    metrics = run["evaluator"].state.metrics
    assert metrics["macro_dsc"] == pytest.approx(float(metrics["val_dice"]))
    assert len(list(csv.DictReader((tmp_path / "cases.csv").open()))) == 5
