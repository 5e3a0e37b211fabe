"""Plans of comparisons of data sets: parts, names, and what is refused before anything is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from msrf_monai.errors import CheckpointError, ConfigError, DataError, InputError
from msrf_monai.experiments import TrainedModel, evaluate_across, plan_cross_dataset
from support.cross_dataset_fakes import Ask, FakeEvaluation, make_set
from support.experiment_fakes import make_bundle


def test_parts_can_be_named_for_all_data_sets(ask: Ask) -> None:
    plan = plan_cross_dataset(ask(parts=["test"]))
    assert [spec.images for spec in plan.runs] == [2, 2]
    plan = plan_cross_dataset(ask(parts=["validation", "test"]))
    assert [spec.images for spec in plan.runs] == [4, 4]


def test_a_network_whose_data_set_has_no_test_part_is_left_out_there(ask: Ask, tmp_path: Path, bundle: Path) -> None:
    make_set(tmp_path / "all_used", test=0)
    (tmp_path / "all_used.pt").touch()
    model = TrainedModel(tmp_path / "all_used.pt", tmp_path / "all_used", bundle)
    plan = plan_cross_dataset(ask(models=[model], datasets=[tmp_path / "all_used", tmp_path / "stare"]))
    assert [(spec.dataset, spec.images) for spec in plan.runs] == [("stare", 6)]
    assert plan.notes == ("all_used was trained on all_used, which has no picture in its test part: left out",)
    evaluate_across(plan, runner=FakeEvaluation())
    assert "no picture in its test part" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    with pytest.raises(InputError, match="none of the data sets has a picture"):
        plan_cross_dataset(ask(models=[model], datasets=[tmp_path / "all_used"]))
    plan = plan_cross_dataset(ask(datasets=[tmp_path / "all_used", tmp_path / "chase"], parts=["test"]))
    assert plan.notes == ("all_used has no picture in the wanted parts: left out",)


def test_data_sets_of_one_name_are_called_after_their_folders(ask: Ask, tmp_path: Path) -> None:
    make_set(tmp_path / "clinic_a", name="fundus")
    make_set(tmp_path / "clinic_b", name="fundus")
    plan = plan_cross_dataset(ask(datasets=[tmp_path / "clinic_a", tmp_path / "clinic_b"]))
    assert [spec.dataset for spec in plan.runs] == ["clinic_a", "clinic_b"]
    with pytest.raises(InputError, match="two data sets are called alike"):
        plan_cross_dataset(ask(datasets=[tmp_path / "clinic_a", tmp_path / "clinic_a"]))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"models": []}, InputError, "one trained network and one data set"),
        ({"datasets": []}, InputError, "one trained network and one data set"),
        ({"overrides": {"weights": "x"}}, InputError, "weights cannot be overridden"),
        ({"overrides": {"calibration_dir": "x"}}, InputError, "calibration_dir cannot be overridden"),
        ({"overrides": {"max_epoch": "3"}}, ConfigError, "did you mean --max_epochs"),
        ({"parts": ["exam"]}, InputError, "there is no part 'exam'"),
        ({"overlays": ["what"]}, InputError, "has no overlay 'what'"),
        ({"datasets": ["no/such"]}, DataError, "there is no prepared data set"),
    ],
)
def test_wrong_wishes_are_refused_before_anything_is_written(
    ask: Ask, tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        plan_cross_dataset(ask(**changes))
    assert not (tmp_path / "out").exists()


def test_wrong_networks_are_refused(ask: Ask, tmp_path: Path, bundle: Path) -> None:
    good = TrainedModel(tmp_path / "chase.pt", tmp_path / "chase", bundle)
    for model, error, message in (
        (replace(good, weights=tmp_path / "no.pt"), CheckpointError, "this file of weights does not exist"),
        (replace(good, trained_on=tmp_path / "no"), DataError, "there is no prepared data set"),
        (replace(good, bundle=tmp_path / "no"), ConfigError, "this bundle does not exist"),
        (replace(good, name="../x"), InputError, "a network cannot be called"),
        (replace(good, bundle=make_bundle(tmp_path / "plain")), ConfigError, "has the key calibration_dir"),
    ):
        with pytest.raises(error, match=message):
            plan_cross_dataset(ask(models=[model]))
    with pytest.raises(InputError, match="two networks are called 'chase'"):
        plan_cross_dataset(ask(models=[good, good]))
    named = plan_cross_dataset(ask(models=[good, replace(good, name="again")]))
    assert [network.name for network in named.networks] == ["chase", "again"]


def test_a_data_set_without_images_for_a_threshold_is_refused(ask: Ask, tmp_path: Path, bundle: Path) -> None:
    folder = make_set(tmp_path / "bare")
    content = json.loads((folder / "dataset.json").read_text())
    for item in content["training"]:
        del item["fold"]
    (folder / "dataset.json").write_text(json.dumps({**content, "validation": []}))
    with pytest.raises(InputError, match="has no validation part, on which the threshold is chosen"):
        plan_cross_dataset(ask(models=[TrainedModel(tmp_path / "chase.pt", folder, bundle)]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "expected lists of pictures"),
        ('{"test": [1]}', "expected lists of pictures"),
        ('{"name": "a/b"}', "cannot be that of a folder"),
    ],
)
def test_a_broken_data_set_is_refused(ask: Ask, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "dataset.json").write_text(text)
    with pytest.raises((DataError, InputError), match=message):
        plan_cross_dataset(ask(datasets=[tmp_path / "broken"]))
