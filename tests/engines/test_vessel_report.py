"""The vessel report: both protocols, pooled and per image, calibration, pictures, page, threshold, processes."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.transforms import AsDiscreted, Compose, CopyItemsd
from PIL import Image
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    matthews_corrcoef,
    precision_score,
    recall_score,
    roc_auc_score,
)

from msrf_monai.engines import ChooseThreshold, VesselReport, read_threshold
from msrf_monai.engines.vessel_report_cases import PixelCounts, Protocol, VesselMaps, _row, protocols_for, score_case
from msrf_monai.engines.vessel_report_page import worth_showing
from msrf_monai.engines.vessel_report_tables import summarise_vessels
from msrf_monai.errors import ConfigError, DataError, InputError
from msrf_monai.metrics import pooled_vessel_scores, vessel_scores

Item = dict[str, Any]
SIZE = (40, 32)  # columns, rows
LEVELS = (32, 40)


def _item(index: int, folder: str = "/data/set", *, observer: bool = True, fov: bool = True) -> Item:
    rng = np.random.default_rng(index)
    label = np.zeros(SIZE, np.float32)
    label[5 + index : 8 + index, 4:28] = 1
    label[10:35, 15:17] = 1
    probability = np.clip(0.6 * label + rng.normal(0.2, 0.15, SIZE), 0, 1).astype(np.float32)
    columns, rows = np.mgrid[: SIZE[0], : SIZE[1]]
    inside = np.hypot(columns - 20, rows - 16) < 15
    image = MetaTensor(torch.rand(3, *SIZE), meta={"filename_or_obj": f"{folder}/images/c{index}.png"})
    item: Item = {"image": image, "probability": torch.from_numpy(probability)[None], "label": MetaTensor(label[None])}
    item["pred"] = (item["probability"] >= 0.5).to(torch.uint8)
    if fov:
        item["fov"] = torch.from_numpy(inside[None].astype(np.uint8))
    if observer:
        item["label2"] = torch.from_numpy(np.roll(label, 1, axis=1)[None])
    return item


def _run(handler: Any, items: list[Item]) -> Engine:
    def step(engine: Engine, batch: list[Item]) -> list[Item]:
        engine.state.batch = [{"image": item["image"]} for item in batch]
        return batch

    engine = Engine(step)
    handler.attach(engine)
    engine.run([items[:2], items[2:]] if len(items) > 2 else [items])
    return engine


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def _summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def _inside(items: list[Item], key: str) -> list[np.ndarray]:
    return [item[key][0].numpy()[item["fov"][0].numpy() == 1] for item in items]


@pytest.fixture(autouse=True)
def _no_diagram(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the diagram, which takes most of the time; the report of ``folder`` has it."""
    monkeypatch.setattr("msrf_monai.engines.vessel_report.draw_reliability", lambda calibration: b"png")


@pytest.fixture(scope="module")
def items() -> list[Item]:
    """Five images with second observers and fields of view."""
    return [_item(index) for index in range(5)]


@pytest.fixture(scope="module")
def folder(items: list[Item], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on these images at the threshold 0.4."""
    out = tmp_path_factory.mktemp("report")
    _run(VesselReport(str(out), dataset_dir="/data/set", threshold=0.4), items)
    return out


def test_pooled_scores_inside_the_field_of_view_are_scikit_learns(folder: Path, items: list[Item]) -> None:
    pooled = _summary(folder)["protocols"]["fov_chosen"]["pooled"]
    said, true = (np.concatenate(_inside(items, key)) for key in ("probability", "label"))
    found = said >= 0.4

    assert pooled["f1"] == pytest.approx(f1_score(true, found))
    assert pooled["sensitivity"] == pytest.approx(recall_score(true, found))
    assert pooled["specificity"] == pytest.approx(recall_score(1 - true, ~found))
    assert pooled["ppv"] == pytest.approx(precision_score(true, found))
    assert pooled["npv"] == pytest.approx(precision_score(1 - true, ~found))
    assert pooled["mcc"] == pytest.approx(matthews_corrcoef(true, found))
    assert pooled["auc_roc"] == pytest.approx(roc_auc_score(true, said), abs=1e-5)
    assert pooled["auc_pr"] == pytest.approx(average_precision_score(true, said), abs=2e-4)


def test_pooled_scores_are_those_of_the_metrics(folder: Path, items: list[Item]) -> None:
    maps = [[item[key][0].as_subclass(torch.Tensor) for item in items] for key in ("probability", "label", "fov")]
    for name, threshold in (("fov_chosen", 0.4), ("fov_0.5", 0.5)):
        pooled = _summary(folder)["protocols"][name]["pooled"]
        assert pooled == pytest.approx(pooled_vessel_scores(*maps, threshold=threshold), abs=2e-4)


def test_means_over_images_are_those_of_the_metrics(folder: Path, items: list[Item]) -> None:
    expected = [
        vessel_scores(item["probability"][0], item["label"][0], item["fov"][0], threshold=0.4) for item in items
    ]
    found = _summary(folder)["protocols"]["fov_chosen"]["per_image"]
    for name in expected[0]:
        values = [scores[name] for scores in expected]
        assert found[name]["mean"] == pytest.approx(np.mean(values)), name
        assert found[name]["std"] == pytest.approx(np.std(values, ddof=1)), name
        assert found[name]["interval"][0] <= found[name]["mean"] + 1e-12
        assert found[name]["interval"][1] >= found[name]["mean"] - 1e-12


def test_the_legacy_protocol_counts_whole_images_at_one_half(folder: Path, items: list[Item]) -> None:
    protocol = _summary(folder)["protocols"]["full_0.5"]
    f1 = [f1_score(item["label"].flatten(), item["probability"].flatten() >= 0.5) for item in items]
    auc = [roc_auc_score(item["label"].flatten(), item["probability"].flatten()) for item in items]
    assert (protocol["region"], protocol["threshold"]) == ("full", 0.5)
    assert protocol["per_image"]["f1"]["mean"] == pytest.approx(np.mean(f1))
    assert protocol["per_image"]["auc_roc"]["mean"] == pytest.approx(np.mean(auc))
    assert "cldice" not in protocol["per_image"]


def test_the_second_observer_has_rows_of_its_own(folder: Path, items: list[Item]) -> None:
    protocols = _summary(folder)["protocols"]
    true, seen = (np.concatenate(_inside(items, key)) for key in ("label", "label2"))
    assert protocols["fov_observer"]["pooled"]["f1"] == pytest.approx(f1_score(true, seen))
    assert protocols["fov_observer"]["threshold"] is None
    assert "auc_roc" not in protocols["fov_observer"]["pooled"]
    assert protocols["fov_observer"]["per_image"]["cldice"]["mean"] is not None
    whole = [f1_score(item["label"].flatten(), item["label2"].flatten()) for item in items]
    assert protocols["full_observer"]["per_image"]["f1"]["mean"] == pytest.approx(np.mean(whole))


def test_the_tables_have_a_row_for_each_image_protocol_and_average(folder: Path) -> None:
    cases = _rows(folder / "cases.csv")
    names = ["fov_chosen", "fov_0.5", "fov_observer", "full_0.5", "full_observer"]
    assert [row["protocol"] for row in cases] == names * 5
    assert cases[5]["file"] == "images/c1.png"
    assert cases[2]["auc_roc"] == ""
    tables = _rows(folder / "tables.csv")
    assert [row["protocol"] for row in tables[::9]] == names
    assert [row["aggregate"] for row in tables[:9]] == [
        *("pooled", "mean", "std", "median", "min", "max", "interval_low", "interval_high", "undefined")
    ]
    summary = _summary(folder)
    assert float(tables[1]["f1"]) == summary["protocols"]["fov_chosen"]["per_image"]["f1"]["mean"]
    assert tables[0]["cldice"] == ""
    assert summary["primary"] == "fov_chosen"
    assert [worst["f1"] for worst in summary["worst"]] == sorted(worst["f1"] for worst in summary["worst"])


def test_metrics_of_the_engine_are_the_primary_ones(items: list[Item], tmp_path: Path) -> None:
    engine = _run(VesselReport(str(tmp_path), threshold=0.4, topology=False, overlays=False), items)
    primary = _summary(tmp_path)["protocols"]["fov_chosen"]
    assert engine.state.metrics["pooled_f1"] == primary["pooled"]["f1"]
    assert engine.state.metrics["mean_auc_roc"] == primary["per_image"]["auc_roc"]["mean"]
    assert not [name for name in engine.state.metrics if "cldice" in name]


def test_at_one_half_there_is_one_threshold_only(items: list[Item], tmp_path: Path) -> None:
    _run(VesselReport(str(tmp_path), topology=False, overlays=False), items)
    summary = _summary(tmp_path)
    assert summary["primary"] == "fov_0.5"
    assert "fov_chosen" not in summary["protocols"]


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.sources: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name == "src"]
        self.links += [value or "" for name, value in attrs if name == "href"]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)


def test_the_page_holds_its_pictures_and_links_to_those_beside_it(folder: Path) -> None:
    html = (folder / "report.html").read_text(encoding="utf-8")
    page = _Page(html)

    assert (page.open, page.wrong) == ([], [])
    assert not re.search(r"https?://|@import|url\(|<script", html)
    assert len(page.sources) == 6  # five images and the reliability diagram
    for source in page.sources:
        with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as picture:
            picture.load()
    assert sorted(page.links) == [f"overlays/images/c{index}_vessels.png" for index in range(5)]
    assert all((folder / link).is_file() for link in page.links)


def test_the_page_shows_the_numbers_of_the_summary(folder: Path) -> None:
    text = " ".join(" ".join(_Page((folder / "report.html").read_text(encoding="utf-8")).words).split())
    for protocol in _summary(folder)["protocols"].values():
        assert f"{protocol['per_image']['f1']['mean']:.4f}" in text
        if protocol["region"] == "fov":
            assert f"{protocol['pooled']['f1']:.4f}" in text
    assert "model, threshold 0.4 (chosen)" in text
    assert "second observer" in text
    assert "never compare accuracy, specificity or AUC-ROC" in text
    assert "Retinal vessels: set" in text


def test_the_calibration_has_the_bins_of_the_diagram(folder: Path, items: list[Item]) -> None:
    calibration = _summary(folder)["calibration"]
    said, true = (np.concatenate(_inside(items, key)) for key in ("probability", "label"))
    place = np.clip(np.ceil(said.astype(np.float64) * 15).astype(int) - 1, 0, 14)
    assert [each["pixels"] for each in calibration["bins"]] == np.bincount(place, minlength=15).tolist()
    assert calibration["bins"][9]["vessel_share"] == pytest.approx(true[place == 9].mean())
    assert calibration["bins"][9]["mean_probability"] == pytest.approx(said[place == 9].mean(), rel=1e-6)
    with Image.open(folder / "reliability.png") as picture:
        assert min(picture.size) > 300


def test_in_monais_evaluator_fields_of_view_and_observers_are_found_in_the_batch(tmp_path: Path) -> None:
    items = [{**_item(index), "image": _item(index)["probability"]} for index in range(3)]  # the input is the answer
    given = [{**item, "image": MetaTensor(item["image"], meta=_item(k)["image"].meta)} for k, item in enumerate(items)]
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
    protocols = _summary(tmp_path)["protocols"]
    assert protocols["fov_observer"]["images"] == 3
    said, true = (np.concatenate(_inside(items, key)) for key in ("probability", "label"))
    assert protocols["fov_0.5"]["pooled"]["f1"] == pytest.approx(f1_score(true, said >= 0.5))
    assert _summary(tmp_path)["notes"] == []


def test_an_image_that_comes_twice_counts_once(items: list[Item], folder: Path, tmp_path: Path) -> None:
    _run(VesselReport(str(tmp_path), dataset_dir="/data/set", threshold=0.4), [*items, items[0], items[3]])
    for name in ("cases.csv", "tables.csv"):
        assert (tmp_path / name).read_text() == (folder / name).read_text()


def test_without_fields_of_view_and_observers_the_page_says_so(tmp_path: Path) -> None:
    items = [_item(0, fov=False, observer=False), _item(1, observer=True)]
    _run(VesselReport(str(tmp_path), threshold=0.4, topology=False, overlays=False), items)
    summary = _summary(tmp_path)
    assert "1 of 2 images have no field of view" in summary["notes"][0]
    assert "of the 1 images that have such a mask" in summary["notes"][1]
    assert summary["protocols"]["fov_observer"]["images"] == 1
    bare = tmp_path / "bare"
    _run(VesselReport(str(bare), topology=False, overlays=False), [_item(0, fov=False, observer=False)])
    protocols = _summary(bare)["protocols"]
    assert protocols.keys() == {"fov_0.5", "full_0.5"}
    assert protocols["fov_0.5"]["per_image"]["f1"] == protocols["full_0.5"]["per_image"]["f1"]


def test_probabilities_cleared_outside_the_field_of_view_are_noted(items: list[Item], tmp_path: Path) -> None:
    cleared = [{**item, "probability": item["probability"] * item["fov"]} for item in items[:2]]
    for name, given in (("as_is", items[:2]), ("cleared", cleared)):
        _run(VesselReport(str(tmp_path / name), topology=False, overlays=False), given)
    assert _summary(tmp_path / "as_is")["notes"] == []
    assert "all probabilities are 0" in _summary(tmp_path / "cleared")["notes"][0]
    assert "all probabilities are 0" in (tmp_path / "cleared" / "report.html").read_text(encoding="utf-8")


def test_images_without_vessels_have_undefined_scores_and_a_whole_report(tmp_path: Path) -> None:
    empty = _item(0)
    empty["label"] = torch.zeros_like(empty["label"].as_tensor())
    nothing = {**empty, "probability": torch.zeros(1, *SIZE), "image": MetaTensor(torch.zeros(3, *SIZE))}
    _run(VesselReport(str(tmp_path), threshold=0.4), [empty, nothing, _item(1)])
    summary = _summary(tmp_path)
    assert summary["protocols"]["fov_chosen"]["per_image"]["sensitivity"]["undefined"] == 2
    assert summary["protocols"]["fov_chosen"]["per_image"]["f1"]["undefined"] == 1
    assert "undefined" in (tmp_path / "report.html").read_text(encoding="utf-8")
    only = tmp_path / "only"
    engine = _run(VesselReport(str(only)), [nothing])
    assert "pooled_f1" not in engine.state.metrics
    assert _summary(only)["protocols"]["fov_0.5"]["pooled"]["f1"] is None


def test_pictures_are_spread_from_the_worst_to_the_best(items: list[Item], tmp_path: Path) -> None:
    _run(VesselReport(str(tmp_path), dataset_dir="/data/set", topology=False, pictures=3), items)
    pictures = _summary(tmp_path)["pictures"]
    links = _Page((tmp_path / "report.html").read_text(encoding="utf-8")).links
    assert links == [pictures[place]["overlay"] for place in (0, 2, 4)]
    assert [picture["f1"] for picture in pictures] == sorted(picture["f1"] for picture in pictures)
    assert len(list((tmp_path / "overlays").rglob("*.png"))) == 5
    assert worth_showing(0, 5) == []
    assert worth_showing(2, 5) == [0, 1]


def test_names_with_spaces_and_signs_are_links_that_work(tmp_path: Path) -> None:
    item = _item(0)
    item["image"] = MetaTensor(item["image"].as_tensor(), meta={"filename_or_obj": "/x/a b%20#1 <é>.png"})
    _run(VesselReport(str(tmp_path), topology=False), [item])
    (link,) = _Page((tmp_path / "report.html").read_text(encoding="utf-8")).links
    assert (tmp_path / unquote(link)).is_file()


def test_the_page_names_the_prepared_data_set(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"name": "chase <db> 1"}))
    _run(VesselReport(str(tmp_path / "out"), dataset_dir=str(tmp_path), topology=False, overlays=False), [_item(0)])
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
        _run(VesselReport(str(tmp_path), topology=False), [{**_item(0), **change}])


@pytest.mark.parametrize("arguments", [{"confidence": 1.0}, {"samples": 0}, {"pictures": -1}, {"threshold": 1.5}])
def test_wrong_arguments_are_refused(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        VesselReport(str(tmp_path), **arguments)


def test_nothing_to_report_is_refused() -> None:
    with pytest.raises(InputError, match="no image to report on"):
        summarise_vessels([], PixelCounts.none(), protocols_for(0.5, has_observer=False))
    with pytest.raises(InputError, match="no second observer"):
        _row(VesselMaps(torch.zeros(2, 2), torch.zeros(2, 2)), Protocol("x", "fov", "observer", None, False))


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
    item = _item(0)
    maps = VesselMaps(*(item[key][0] for key in ("probability", "label", "fov", "label2")))
    rows = score_case(maps, protocols_for(0.3, has_observer=True, topology=False))
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert sum(rows[0][name] for name in ("tp", "fp", "fn", "tn")) == int(item["fov"].sum())
    assert sum(rows[-1][name] for name in ("tp", "fp", "fn", "tn")) == SIZE[0] * SIZE[1]


# thresholds


def test_the_threshold_is_the_best_of_all_candidates(items: list[Item], tmp_path: Path) -> None:
    chosen = ChooseThreshold(str(tmp_path), steps=50)
    engine = _run(chosen, [*items, items[1]])
    said, true = (np.concatenate(_inside(items, key)) for key in ("probability", "label"))
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
        _run(report, items[2:])
    chosen = ChooseThreshold(str(tmp_path))
    by_object = VesselReport(str(tmp_path / "b"), threshold=chosen, topology=False, overlays=False)
    with pytest.raises(ConfigError, match="not chosen yet"):
        _run(by_object, items[2:])
    _run(chosen, items[:2])
    for each in (report, by_object):
        _run(each, items[2:])
    assert _summary(tmp_path)["threshold"] == chosen.value
    assert _summary(tmp_path)["threshold_source"] == "chosen on validation images"
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
    item = _item(0, fov=False)
    with pytest.raises(InputError, match="no pixel of the truth is a vessel"):
        _run(chosen, [{**item, "label": torch.zeros(1, *SIZE)}])
    _run(chosen, [item])
    assert "no field of view was given" in json.loads((tmp_path / "threshold.json").read_text())["pixels"]
