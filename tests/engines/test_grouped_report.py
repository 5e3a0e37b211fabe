"""The tables of an evaluation: targets by size, and the data sets of a pool."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from scipy import ndimage

from msrf_monai.engines import GroupedSegmentationReport, group_by_target_size, table_of_groups
from msrf_monai.errors import ConfigError
from msrf_monai.metrics import average_surface_distance, hausdorff

SIDE = 40


def square(side: int, at: int = 3) -> torch.Tensor:
    """A square target, (1, X, Y)."""
    mask = torch.zeros(1, SIDE, SIDE)
    mask[:, at : at + side, at : at + side] = 1
    return mask


def test_distances_are_those_of_the_outlines() -> None:
    pred, label = square(10), square(14, at=6)
    outlines = [mask[0].bool().numpy() & ~ndimage.binary_erosion(mask[0].numpy()) for mask in (pred, label)]
    to_other = [ndimage.distance_transform_edt(~other)[own] for own, other in (outlines, outlines[::-1])]

    assert float(hausdorff(pred, label)) == pytest.approx(max(float(d.max()) for d in to_other))
    assert float(average_surface_distance(pred, label)) == pytest.approx(float(np.concatenate(to_other).mean()))


def row(area: int, dice: float, **more: Any) -> dict[str, Any]:
    counts = {"tp": area, "fp": 0, "fn": 0, "tn": 1000 - area}
    return {"truth_area_px": area, "dice": dice, "iou": dice, "precision": 1.0, "recall": dice, **counts, **more}


def test_targets_are_divided_at_the_papers_shares() -> None:
    rows = [row(area, 0.5) for area in (0, 1, 4, 5, 10, 49, 50, 999)]
    groups = group_by_target_size(rows)
    areas = {name: [each["truth_area_px"] for each in found] for name, found in groups.items()}
    assert areas == {"no target": [0], "< 0.5 %": [1, 4], "0.5 - 1 %": [5], "1 - 5 %": [10, 49], ">= 5 %": [50, 999]}


def test_averages_leave_out_what_is_undefined_and_say_none_of_an_empty_group() -> None:
    rows = [row(10, 0.4, hd_px=2.0, assd_px=1.0), row(10, 0.8, hd_px=None, assd_px=None)]
    table = table_of_groups({"both": rows, "none": []})
    assert table["both"]["images"] == 2
    assert table["both"]["dice"] == pytest.approx(0.6)
    assert table["both"]["dice_std"] == pytest.approx(np.std([0.4, 0.8], ddof=1), abs=1e-6)
    assert (table["both"]["hd_px"], table["both"]["hd_px_std"]) == (2.0, 0.0)
    assert table["none"]["images"] == 0
    assert table["none"]["dice"] is None


def evaluate(folder: Path, items: list[tuple[torch.Tensor, torch.Tensor, dict[str, str]]]) -> None:
    def step(engine: Engine, batch: Any) -> Any:
        index, (pred, label, more) = batch
        engine.state.batch = [{"id": f"case {index}", **more}]
        return [{"pred": pred, "label": label}]

    engine = Engine(step)
    GroupedSegmentationReport(str(folder), samples=20).attach(engine)
    engine.run(list(enumerate(items)), max_epochs=1)


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as handle:
        return list(csv.DictReader(handle))


def test_tables_of_sizes_and_data_sets_are_written(tmp_path: Path) -> None:
    evaluate(
        tmp_path,
        [
            (square(2), square(2), {"dataset": "busi"}),
            (square(20), square(10), {"dataset": "glas"}),
            (square(0), square(20), {"dataset": "glas"}),
            (square(0), square(0), {"dataset": "glas"}),
        ],
    )
    by_size = {each["target share of the image"]: each for each in read(tmp_path / "by_target_size.csv")}
    assert [each["images"] for each in by_size.values()] == ["1", "1", "0", "0", "2"]
    assert float(by_size["< 0.5 %"]["dice"]) == 1.0
    assert float(by_size[">= 5 %"]["dice"]) == pytest.approx(0.4 / 2)
    by_dataset = {each["dataset"]: each for each in read(tmp_path / "by_dataset.csv")}
    assert [(name, each["images"]) for name, each in by_dataset.items()] == [("busi", "1"), ("glas", "3")]
    assert float(by_dataset["glas"]["hd_px"]) == pytest.approx(200**0.5)  # of the one image with both masks
    cases = read(tmp_path / "cases.csv")
    assert [each["hd_px"] for each in cases].count("") == 2
    assert {each["dataset"] for each in cases} == {"busi", "glas"}


def test_a_single_data_set_gets_no_table_of_data_sets(tmp_path: Path) -> None:
    evaluate(tmp_path, [(square(2), square(2), {})])
    assert (tmp_path / "by_target_size.csv").is_file()
    assert not (tmp_path / "by_dataset.csv").exists()


@pytest.mark.parametrize("edges", [[0.1, 0.05], [0.1, 0.1], [0.0, 0.1], [5.0]])
def test_wrong_edges_are_named(tmp_path: Path, edges: list[float]) -> None:
    with pytest.raises(ConfigError, match="size_edges is"):
        GroupedSegmentationReport(str(tmp_path), size_edges=edges)
