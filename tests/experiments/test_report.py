"""The page and its figures: they are whole, fetch nothing from elsewhere, and say no more than the numbers."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from msrf_monai.experiments import cross_validate, plan_cross_validation
from msrf_monai.experiments.figures import draw_boxes, draw_differences, draw_folds, draw_learning_curves
from msrf_monai.experiments.report import p_text, verdict, verdicts
from support.experiment_fakes import FakeRunner, Settings, make_dataset
from support.html_page import Page


@pytest.fixture
def output(settings: Settings, tmp_path: Path) -> Path:
    """Three variants on pictures with groups and strata, one failed run."""
    data = make_dataset(
        tmp_path / "data", 36, groups=lambda i: f"p{i // 2}", strata=lambda i: ("benign", "malignant")[i // 2 % 2]
    )
    runner = FakeRunner(
        {"ssr": 0.05}, fail=lambda run, variant, fold: int((run, variant, fold) == ("evaluating", "cse", 2))
    )
    plan = plan_cross_validation(
        settings(dataset=data, variants=("none", "cse", "ssr"), folds=4, overrides={"max_epochs": "<b>3"})
    )
    cross_validate(plan, runner=runner, command_line=["msrf-monai", "experiment", "cross-validate", "--x", "a b"])
    return tmp_path / "out"


def test_the_page_is_whole_and_refers_to_nothing_outside_itself(output: Path) -> None:
    html = (output / "report.html").read_text(encoding="utf-8")
    page = Page(html, unclosed=("p", "li", "dt", "dd"))

    assert page.wrong == []
    assert page.open == []
    assert len(page.references) == 4
    for reference in page.references:
        head, _, content = reference.partition(",")
        assert head == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
            picture.load()
            assert min(picture.size) > 150
    assert not re.search(r"https?://|@import|url\(|<script", html)


def test_the_page_gives_numbers_seeds_versions_commands_and_failures(output: Path) -> None:
    text = Page((output / "report.html").read_text(encoding="utf-8")).text
    summary = json.loads((output / "summary.json").read_text())

    for name, variant in summary["variants"].items():
        assert f"{variant['scores']['dice']['mean']:.4f}" in text, name
    for each in summary["comparisons"]:
        low, high = each["nadeau_bengio_t"]["interval"]
        assert f"{low:+.4f} … {high:+.4f}" in text
        assert p_text(each["nadeau_bengio_t"]["p_holm"]) in text
        assert f"{each['images_better']} / {each['images_worse']}" in text
    assert "msrf-monai experiment cross-validate --x 'a b'" in text
    assert "1 run failed and is missing" in text
    assert "cse, fold 2: evaluation ended with code 1" in text
    assert "error: the last line" in text
    assert "Nadeau and Bengio" in text
    assert "18 groups kept together" in text
    assert "Mean Dice by stratum" in text
    for part in summary["variants"]["ssr"]["dice_by_stratum"].values():
        assert f"{part['mean']:.4f}" in text
    assert "Strata (benign, malignant) spread evenly" in text
    assert "42; fold k trains with 42 + k" in text
    for package, version in summary["versions"].items():
        assert f"{package} {version}" in text
    assert text.count("-m monai.bundle run training") == text.count("-m monai.bundle run evaluating") == 11
    assert "A & B, <Journal> 1" in text


def test_what_the_user_gave_is_text_and_no_markup(output: Path) -> None:
    html = (output / "report.html").read_text(encoding="utf-8")

    assert "max_epochs = &lt;b&gt;3" in html
    assert "<b>3" not in html
    assert "<Journal>" not in html


def test_the_figures_lie_beside_the_page_too(output: Path) -> None:
    names = sorted(path.name for path in (output / "figures").iterdir())

    assert names == ["boxes.png", "differences.png", "folds.png", "learning_curves.png"]
    html = (output / "report.html").read_text(encoding="utf-8")
    for path in (output / "figures").iterdir():
        assert base64.b64encode(path.read_bytes()).decode() in html


def test_a_page_of_one_variant_has_nothing_to_compare(settings: Settings, tmp_path: Path) -> None:
    cross_validate(plan_cross_validation(settings(variants=("ssr",))), runner=FakeRunner())

    page = Page((tmp_path / "out/report.html").read_text(encoding="utf-8"))
    assert "There is nothing to compare" in page.text
    assert len(page.references) == 3
    assert verdicts(tmp_path / "out") == []


def test_runs_of_several_versions_are_noted(settings: Settings, tmp_path: Path) -> None:
    cross_validate(plan_cross_validation(settings()), runner=FakeRunner())
    path = tmp_path / "out/runs/ssr/fold_0/record.json"
    record = json.loads(path.read_text())
    record["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(record))

    cross_validate(plan_cross_validation(settings()), runner=FakeRunner())

    notes = json.loads((tmp_path / "out/summary.json").read_text())["notes"]
    assert len(notes) == 1
    assert notes[0].startswith("the runs were made with several versions of torch: 1.0, ")


def comparison(mean: float, low: float, high: float, p: float) -> dict[str, Any]:
    test = {"mean": mean, "interval": [low, high], "p_holm": p}
    return {"variant": "ssr", "baseline": "none", "nadeau_bengio_t": test}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (comparison(0.02, -0.01, 0.05, 0.2), "ssr and none: no difference is shown"),
        (comparison(0.02, 0.001, 0.05, 0.06), "ssr and none: no difference is shown"),  # the correction decides
        (comparison(0.02, 0.01, 0.03, 0.01), "ssr is higher than none (+0.0200, 95 % interval +0.0100 to +0.0300,"),
        (comparison(-0.02, -0.03, -0.01, 0.0004), "ssr is lower than none"),
        ({**comparison(0, 0, 0, 0), "nadeau_bengio_t": None}, "one fold is too few for a test"),
    ],
)
def test_the_words_are_those_of_the_corrected_test(given: dict[str, Any], said: str) -> None:
    assert said in verdict(given)


@pytest.mark.parametrize(("p", "text"), [(None, "–"), (0.0004, "< 0.001"), (0.04567, "0.046"), (1.0, "1.000")])
def test_p_values_as_text(p: float | None, text: str) -> None:
    assert p_text(p) == text


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def share_of(image: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float((np.abs(image - colour).sum(-1) < 30).mean())


BLUE, ORANGE = (76, 114, 176), (221, 132, 82)


@pytest.mark.parametrize("count", [3, 700])
def test_boxes_are_drawn_for_each_variant(count: int) -> None:
    rng = np.random.default_rng(0)
    one = pixels(draw_boxes({"none": rng.uniform(size=count)}))
    two = pixels(draw_boxes({"none": rng.uniform(size=count), "ssr": rng.uniform(size=count)}))

    assert share_of(one, BLUE) > 0.001
    assert share_of(one, ORANGE) == 0
    assert share_of(two, ORANGE) > 0.001
    assert two.shape[1] > one.shape[1]


def test_a_missing_fold_leaves_a_gap() -> None:
    whole = draw_folds({"none": {0: 0.5, 1: 0.6}, "ssr": {0: 0.6, 1: 0.7}})
    gap = draw_folds({"none": {0: 0.5, 1: 0.6}, "ssr": {0: 0.6}})

    assert whole != gap
    assert pixels(gap).std() > 0


def test_differences_are_drawn_with_and_without_a_test() -> None:
    each = {
        "variant": "ssr",
        "baseline": "none",
        "mean_difference": 0.01,
        "fold_differences": {"0": 0.0, "1": 0.02},
        "bootstrap_interval_by_fold": [0.0, 0.02],
        "nadeau_bengio_t": {"interval": [-3.0, 3.0]},
    }

    with_test = pixels(draw_differences([each, {**each, "variant": "cse"}]))
    without = pixels(draw_differences([{**each, "nadeau_bengio_t": None}]))

    assert share_of(with_test, ORANGE) > 0.002
    assert 0 < share_of(without, ORANGE) < share_of(with_test, ORANGE)


def test_learning_curves_with_epochs_that_only_some_folds_have() -> None:
    short = [{"epoch": 1, "train_loss": 1.0, "val_dice": 0.1}, {"epoch": 2, "train_loss": 0.5, "val_dice": 0.2}]
    long = [*short, {"epoch": 3, "train_loss": 0.4, "val_dice": 0.3}]

    drawn = pixels(draw_learning_curves({("none", 0): short, ("none", 1): long, ("ssr", 0): [{"epoch": 1}]}))

    assert share_of(drawn, BLUE) > 0.001
    assert share_of(drawn, ORANGE) == 0
