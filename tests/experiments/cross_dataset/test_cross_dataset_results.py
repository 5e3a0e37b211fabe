"""What a comparison of data sets evaluates, and its table, page and notes."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from msrf_monai.data import load_datalist
from msrf_monai.errors import DataError
from msrf_monai.experiments import evaluate_across, plan_cross_dataset
from msrf_monai.experiments.cross_dataset_report import headline
from support.cross_dataset_fakes import Ask, FakeEvaluation, both_networks, made_up_item, results_of


def test_the_test_part_of_its_own_and_all_of_others_are_evaluated(ask: Ask, tmp_path: Path) -> None:
    plan = plan_cross_dataset(ask())
    fake = FakeEvaluation()
    outcomes = evaluate_across(plan, runner=fake)

    assert [(outcome.state, outcome.spec.images) for outcome in outcomes] == [("finished", 2), ("finished", 6)]
    own, other = (load_datalist(options["dataset_dir"], "test") for options in fake.options)
    assert [Path(item["image"]).name for item in own] == ["chase4.png", "chase5.png"]
    assert {Path(item["image"]).parent for item in other} == {tmp_path / "stare" / "images"}
    for options in fake.options:
        assert options["calibration_dir"] == str(tmp_path / "chase")  # never the data set that is tested
        assert options["weights"] == str(tmp_path / "chase.pt")


def test_a_written_test_set_keeps_fields_of_view_observers_and_digests(ask: Ask, tmp_path: Path) -> None:
    evaluate_across(plan_cross_dataset(ask()), runner=FakeEvaluation())
    folder = tmp_path / "out" / "datasets" / "stare-all"
    content = json.loads((folder / "dataset.json").read_text())
    assert [len(content[part]) for part in ("training", "validation", "test")] == [0, 0, 6]
    item = content["test"][0]
    for key in ("image", "label", "fov", "label2"):
        assert item[key] == str(tmp_path / "stare" / f"{key}s" / "stare0.png")
        assert content["sha256"][item[key]] == hashlib.sha256(Path(item[key]).read_bytes()).hexdigest()
    assert (content["name"], content["licence"], content["numTest"]) == ("stare", "CC <BY>", 6)


def test_the_table_has_a_row_for_each_pair_with_the_reports_numbers(ask: Ask, bundle: Path, tmp_path: Path) -> None:
    plan = plan_cross_dataset(ask(models=both_networks(tmp_path, bundle)))
    evaluate_across(plan, runner=FakeEvaluation())
    with (tmp_path / "out" / "results.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))

    assert [(row["model"], row["dataset"]) for row in rows] == [
        *(("chase", "chase"), ("chase", "stare"), ("stare", "chase"), ("stare", "stare"))
    ]
    for row in rows:
        folder = tmp_path / "out" / "runs" / row["model"] / row["dataset"] / "evaluation"
        summary = json.loads((folder / "summary.json").read_text())
        primary = summary["protocols"][summary["primary"]]
        assert float(row["fov_chosen.pooled.f1"]) == primary["pooled"]["f1"]
        assert float(row["fov_chosen.std.auc_roc"]) == primary["per_image"]["auc_roc"]["std"]
        legacy = summary["protocols"]["full_0.5"]["per_image"]["accuracy"]
        assert float(row["full_0.5.mean.accuracy"]) == legacy["mean"]
        assert float(row["full_0.5.interval_high.accuracy"]) == legacy["interval"][1]
        assert float(row["fov_observer.pooled.f1"]) == summary["protocols"]["fov_observer"]["pooled"]["f1"]
    assert [float(row["threshold"]) for row in rows] == [0.3, 0.3, 0.5, 0.5]
    assert "fov_chosen.mean.cldice" not in rows[0]  # not scored by this runner, so no empty column
    assert [result["is_own"] for result in results_of(tmp_path)["results"]] == [True, False, False, True]


def test_the_page_is_whole_shows_all_and_links_to_the_reports(ask: Ask, bundle: Path, tmp_path: Path) -> None:
    plan = plan_cross_dataset(ask(models=both_networks(tmp_path, bundle)))
    evaluate_across(plan, runner=FakeEvaluation(), command_line=["msrf-monai", "experiment", "x y"])
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")

    assert not re.search(r"https?://|@import|url\(|<script", html)
    for result in results_of(tmp_path)["results"]:
        assert f"{result['protocols']['fov_chosen']['pooled']['f1']:.4f}" in html
        assert f"{result['protocols']['full_0.5']['per_image']['f1']['mean']:.4f}" in html
    links = re.findall(r'href="([^"]+)"', html)
    assert len([link for link in links if link.endswith("report.html")]) == 4
    assert all((tmp_path / "out" / link).is_file() for link in links)
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    assert len(pictures) == 2 + 3 + 3 + 2
    with Image.open(io.BytesIO(base64.b64decode(pictures[0]))) as picture:
        assert picture.size == (16, 12)
    assert "CC &lt;BY&gt;; A &amp; B" in html
    assert "msrf-monai experiment &#39;x y&#39;" in html
    assert "topology" not in html.lower().split("how to read it")[0]


def test_topology_has_a_table_where_it_was_scored(ask: Ask, tmp_path: Path) -> None:
    fake = FakeEvaluation()
    fake.topology = True
    evaluate_across(plan_cross_dataset(ask()), runner=fake)
    assert "Topology of each image" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_headlines_say_what_was_found(ask: Ask, tmp_path: Path) -> None:
    evaluate_across(plan_cross_dataset(ask()), runner=FakeEvaluation())
    lines = headline(tmp_path / "out")
    pooled = results_of(tmp_path)["results"][1]["protocols"]["fov_chosen"]["pooled"]
    scores = f"pooled F1 {pooled['f1']:.4f}, AUC {pooled['auc_roc']:.4f}"
    assert lines[1] == f"chase on stare (6 images): {scores} in the field of view at 0.3"


def test_without_any_result_there_is_no_page(ask: Ask, tmp_path: Path) -> None:
    evaluate_across(plan_cross_dataset(ask()), runner=FakeEvaluation(fail=lambda model, dataset: 1))
    assert not (tmp_path / "out" / "report.html").exists()


def test_a_report_of_another_kind_or_of_fewer_images_is_refused(ask: Ask, tmp_path: Path) -> None:
    class Other(FakeEvaluation):
        def __call__(self, command: Sequence[str], log: Path, *, keep_open: Sequence[int] = ()) -> int:
            super().__call__(command, log)
            path = log.parent / "evaluation" / "summary.json"
            path.write_text(json.dumps({"paper": {}} if "chase" in log.parent.name else {}))
            return 0

    with pytest.raises(DataError, match="is no summary of a vessel report"):
        evaluate_across(plan_cross_dataset(ask()), runner=Other())

    class Fewer(FakeEvaluation):
        def __call__(self, command: Sequence[str], log: Path, *, keep_open: Sequence[int] = ()) -> int:
            super().__call__(command, log)
            path = log.parent / "evaluation" / "summary.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), "images": 1}))
            return 0

    with pytest.raises(DataError, match="1 images were evaluated, expected 2"):
        evaluate_across(plan_cross_dataset(ask(output=tmp_path / "b")), runner=Fewer())


def test_notes_of_the_reports_are_named_once(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "support.cross_dataset_fakes.made_up_item",
        lambda n, w: {k: v for k, v in made_up_item(n, w).items() if k != "fov"},
    )
    evaluate_across(plan_cross_dataset(ask()), runner=FakeEvaluation())
    notes = results_of(tmp_path)["notes"]
    assert [note.partition(":")[0] for note in notes] == ["chase on chase", "chase on stare"]
    assert "2 of 2 images have no field of view" in notes[0]
