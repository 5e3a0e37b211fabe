"""The page of a vessel report and its pictures, and what it says of images that lack something."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from msrf_monai.engines import VesselReport
from msrf_monai.engines.vessel_report_cases import PixelCounts, Protocol, VesselMaps, _row, protocols_for
from msrf_monai.engines.vessel_report_page import worth_showing
from msrf_monai.engines.vessel_report_tables import summarise_vessels
from msrf_monai.errors import ConfigError, DataError, InputError
from support.html_page import Page
from support.vessel_items import LEVELS, SIZE, Item, run_handler, summary_of, vessel_item


def test_the_page_holds_its_pictures_and_links_to_those_beside_it(folder: Path) -> None:
    html = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(html)

    assert (page.open, page.wrong) == ([], [])
    assert not re.search(r"https?://|@import|url\(|<script", html)
    assert len(page.sources) == 6  # five images and the reliability diagram
    for source in page.sources:
        with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as picture:
            picture.load()
    assert sorted(page.links) == [f"overlays/images/c{index}_vessels.png" for index in range(5)]
    assert all((folder / link).is_file() for link in page.links)


def test_the_page_shows_the_numbers_of_the_summary(folder: Path) -> None:
    text = Page((folder / "report.html").read_text(encoding="utf-8")).text
    for protocol in summary_of(folder)["protocols"].values():
        assert f"{protocol['per_image']['f1']['mean']:.4f}" in text
        if protocol["region"] == "fov":
            assert f"{protocol['pooled']['f1']:.4f}" in text
    assert "model, threshold 0.4 (chosen)" in text
    assert "second observer" in text
    assert "never compare accuracy, specificity or AUC-ROC" in text
    assert "Retinal vessels: set" in text


def test_without_fields_of_view_and_observers_the_page_says_so(tmp_path: Path) -> None:
    items = [vessel_item(0, fov=False, observer=False), vessel_item(1, observer=True)]
    run_handler(VesselReport(str(tmp_path), threshold=0.4, topology=False, overlays=False), items)
    summary = summary_of(tmp_path)
    assert "1 of 2 images have no field of view" in summary["notes"][0]
    assert "of the 1 images that have such a mask" in summary["notes"][1]
    assert summary["protocols"]["fov_observer"]["images"] == 1
    bare = tmp_path / "bare"
    run_handler(VesselReport(str(bare), topology=False, overlays=False), [vessel_item(0, fov=False, observer=False)])
    protocols = summary_of(bare)["protocols"]
    assert protocols.keys() == {"fov_0.5", "full_0.5"}
    assert protocols["fov_0.5"]["per_image"]["f1"] == protocols["full_0.5"]["per_image"]["f1"]


def test_probabilities_cleared_outside_the_field_of_view_are_noted(items: list[Item], tmp_path: Path) -> None:
    cleared = [{**item, "probability": item["probability"] * item["fov"]} for item in items[:2]]
    for name, given in (("as_is", items[:2]), ("cleared", cleared)):
        run_handler(VesselReport(str(tmp_path / name), topology=False, overlays=False), given)
    assert summary_of(tmp_path / "as_is")["notes"] == []
    assert "all probabilities are 0" in summary_of(tmp_path / "cleared")["notes"][0]
    assert "all probabilities are 0" in (tmp_path / "cleared" / "report.html").read_text(encoding="utf-8")


def test_images_without_vessels_have_undefined_scores_and_a_whole_report(tmp_path: Path) -> None:
    empty = vessel_item(0)
    empty["label"] = torch.zeros_like(empty["label"].as_tensor())
    nothing = {**empty, "probability": torch.zeros(1, *SIZE), "image": MetaTensor(torch.zeros(3, *SIZE))}
    run_handler(VesselReport(str(tmp_path), threshold=0.4), [empty, nothing, vessel_item(1)])
    summary = summary_of(tmp_path)
    assert summary["protocols"]["fov_chosen"]["per_image"]["sensitivity"]["undefined"] == 2
    assert summary["protocols"]["fov_chosen"]["per_image"]["f1"]["undefined"] == 1
    assert "undefined" in (tmp_path / "report.html").read_text(encoding="utf-8")
    only = tmp_path / "only"
    engine = run_handler(VesselReport(str(only)), [nothing])
    assert "pooled_f1" not in engine.state.metrics
    assert summary_of(only)["protocols"]["fov_0.5"]["pooled"]["f1"] is None


def test_pictures_are_spread_from_the_worst_to_the_best(items: list[Item], tmp_path: Path) -> None:
    run_handler(VesselReport(str(tmp_path), dataset_dir="/data/set", topology=False, pictures=3), items)
    pictures = summary_of(tmp_path)["pictures"]
    links = Page((tmp_path / "report.html").read_text(encoding="utf-8")).links
    assert links == [pictures[place]["overlay"] for place in (0, 2, 4)]
    assert [picture["f1"] for picture in pictures] == sorted(picture["f1"] for picture in pictures)
    assert len(list((tmp_path / "overlays").rglob("*.png"))) == 5
    assert worth_showing(0, 5) == []
    assert worth_showing(2, 5) == [0, 1]


def test_names_with_spaces_and_signs_are_links_that_work(tmp_path: Path) -> None:
    item = vessel_item(0)
    item["image"] = MetaTensor(item["image"].as_tensor(), meta={"filename_or_obj": "/x/a b%20#1 <é>.png"})
    run_handler(VesselReport(str(tmp_path), topology=False), [item])
    (link,) = Page((tmp_path / "report.html").read_text(encoding="utf-8")).links
    assert (tmp_path / unquote(link)).is_file()


def test_the_page_names_the_prepared_data_set(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"name": "chase <db> 1"}))
    run_handler(
        VesselReport(str(tmp_path / "out"), dataset_dir=str(tmp_path), topology=False, overlays=False), [vessel_item(0)]
    )
    assert "Retinal vessels: chase &lt;db&gt; 1" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probability": None}, "has no 'probability' for it"),
        ({"label": None}, "has no 'label' for it"),
        (
            {"fov": torch.ones(1, *LEVELS)},
            r"different shapes \(the probability \(40, 32\).*the field of view \(32, 40\)",
        ),
        ({"probability": torch.full((1, *SIZE), 1.5)}, r"c0.png: cannot be scored: probabilities must be in \[0, 1\]"),
        ({"label": torch.full((1, *SIZE), 0.5)}, "c0.png: cannot be scored: label must be"),
    ],
)
def test_items_that_cannot_be_scored_are_refused_by_name(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        run_handler(VesselReport(str(tmp_path), topology=False), [{**vessel_item(0), **change}])


@pytest.mark.parametrize("arguments", [{"confidence": 1.0}, {"samples": 0}, {"pictures": -1}, {"threshold": 1.5}])
def test_wrong_arguments_are_refused(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        VesselReport(str(tmp_path), **arguments)


def test_nothing_to_report_is_refused() -> None:
    with pytest.raises(InputError, match="no image to report on"):
        summarise_vessels([], PixelCounts.none(), protocols_for(0.5, has_observer=False))
    with pytest.raises(InputError, match="no second observer"):
        _row(VesselMaps(torch.zeros(2, 2), torch.zeros(2, 2)), Protocol("x", "fov", "observer", None, False))
