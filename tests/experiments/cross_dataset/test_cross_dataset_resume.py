"""A comparison of data sets that goes on in its folder: what is kept, refused and tried again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from msrf_monai.errors import InputError
from msrf_monai.experiments import evaluate_across, plan_cross_dataset
from support.cross_dataset_fakes import Ask, FakeEvaluation, both_networks, make_set, results_of


def test_finished_pairs_are_kept_and_others_added(ask: Ask, bundle: Path, tmp_path: Path) -> None:
    evaluate_across(plan_cross_dataset(ask(datasets=[tmp_path / "chase"])), runner=FakeEvaluation())
    fake = FakeEvaluation()
    outcomes = evaluate_across(plan_cross_dataset(ask(models=both_networks(tmp_path, bundle))), runner=fake)
    assert [outcome.state for outcome in outcomes] == ["reused", "finished", "finished", "finished"]
    assert ("chase", "chase") not in fake.calls


def test_a_damaged_result_is_made_again(ask: Ask, tmp_path: Path) -> None:
    evaluate_across(plan_cross_dataset(ask()), runner=FakeEvaluation())
    (tmp_path / "out/runs/chase/stare/evaluation/cases.csv").write_text("half a ta")
    fake = FakeEvaluation()
    evaluate_across(plan_cross_dataset(ask()), runner=fake)
    assert fake.calls == [("chase", "stare")]


@pytest.mark.parametrize("change", ["weights", "dataset", "overrides", "config"])
def test_other_options_are_refused_in_a_used_folder(ask: Ask, bundle: Path, tmp_path: Path, change: str) -> None:
    evaluate_across(plan_cross_dataset(ask()), runner=FakeEvaluation())
    settings = ask()
    if change == "weights":
        (tmp_path / "chase.pt").write_text("trained longer")
    elif change == "dataset":
        make_set(tmp_path / "stare", count=8)
    elif change == "overrides":
        settings = ask(overrides={"max_epochs": "4"})
    else:
        path = bundle / "configs" / "train.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "max_epochs": 5}))
    with pytest.raises(InputError, match="holds a comparison of data sets with other options"):
        evaluate_across(plan_cross_dataset(settings), runner=FakeEvaluation())


def test_a_folder_of_something_else_is_left_alone(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").touch()
    with pytest.raises(InputError, match="holds no comparison of data sets"):
        evaluate_across(plan_cross_dataset(ask()), runner=FakeEvaluation())
    evaluate_across(plan_cross_dataset(ask(output=tmp_path / "b")), runner=FakeEvaluation())
    with pytest.raises(InputError, match="choose another folder, or resume it"):
        evaluate_across(plan_cross_dataset(ask(output=tmp_path / "b", resume=False)), runner=FakeEvaluation())


def test_a_failed_pair_does_not_stop_the_others_and_is_tried_again(ask: Ask, tmp_path: Path) -> None:
    fake = FakeEvaluation(fail=lambda model, dataset: 5 * int(dataset == "chase"))
    outcomes = evaluate_across(plan_cross_dataset(ask()), runner=fake)
    assert [outcome.state for outcome in outcomes] == ["failed", "finished"]
    assert outcomes[0].failure is not None
    assert outcomes[0].failure.message == "evaluation ended with code 5"
    assert outcomes[0].failure.lines[-1] == "error: the last line"
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "1 evaluation failed" in html
    assert results_of(tmp_path)["failed"][0]["dataset"] == "chase"

    fake = FakeEvaluation()
    assert [outcome.state for outcome in evaluate_across(plan_cross_dataset(ask()), runner=fake)] == [
        "finished",
        "reused",
    ]
