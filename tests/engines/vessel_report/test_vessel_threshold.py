"""The threshold that validation images choose, and reports that read it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from sklearn.metrics import f1_score

from msrf_monai.engines import ChooseThreshold, VesselReport, read_threshold
from msrf_monai.errors import ConfigError, DataError, InputError
from support.vessel_items import SIZE, Item, inside_of, run_handler, summary_of, vessel_item


def test_the_threshold_is_the_best_of_all_candidates(items: list[Item], tmp_path: Path) -> None:
    chosen = ChooseThreshold(str(tmp_path), steps=50)
    engine = run_handler(chosen, [*items, items[1]])
    said, true = (np.concatenate(inside_of(items, key)) for key in ("probability", "label"))
    scores = {k / 50: f1_score(true, said >= np.float32(k / 50)) for k in range(1, 50)}
    content = json.loads((tmp_path / "threshold.json").read_text())
    assert scores[content["threshold"]] == pytest.approx(max(scores.values()))
    assert content["f1"] == pytest.approx(max(scores.values()))
    assert content["f1_at_0.5"] == pytest.approx(scores[0.5])
    assert content["images"] == 5
    assert content["pixels"] == "in the field of view"
    assert chosen.value == content["threshold"] == read_threshold(tmp_path / "threshold.json")
    assert engine.state.metrics["threshold"] == chosen.value


def test_a_report_reads_the_threshold_when_it_begins(items: list[Item], tmp_path: Path) -> None:
    report = VesselReport(str(tmp_path), threshold=tmp_path / "threshold.json", topology=False, overlays=False)
    with pytest.raises(DataError, match="evaluate the validation images first"):
        run_handler(report, items[2:])
    chosen = ChooseThreshold(str(tmp_path))
    by_object = VesselReport(str(tmp_path / "b"), threshold=chosen, topology=False, overlays=False)
    with pytest.raises(ConfigError, match="not chosen yet"):
        run_handler(by_object, items[2:])
    run_handler(chosen, items[:2])
    for each in (report, by_object):
        run_handler(each, items[2:])
    assert summary_of(tmp_path)["threshold"] == chosen.value
    assert summary_of(tmp_path)["threshold_source"] == "chosen on validation images"
    assert (tmp_path / "b" / "cases.csv").read_text() == (tmp_path / "cases.csv").read_text()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"threshold": "x"}', '{"threshold": 2}', '{"threshold": NaN}'])
def test_a_file_without_a_threshold_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(DataError, match=r"t\.json: "):
        read_threshold(tmp_path / "t.json")


def test_a_threshold_needs_images_with_vessels(tmp_path: Path) -> None:
    chosen = ChooseThreshold(str(tmp_path))
    with pytest.raises(InputError, match="no validation image"):
        chosen(Engine(lambda engine, batch: None))
    item = vessel_item(0, fov=False)
    with pytest.raises(InputError, match="no pixel of the truth is a vessel"):
        run_handler(chosen, [{**item, "label": torch.zeros(1, *SIZE)}])
    run_handler(chosen, [item])
    assert "no field of view was given" in json.loads((tmp_path / "threshold.json").read_text())["pixels"]
