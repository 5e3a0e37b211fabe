"""Plans of cross-validations: options that reach the runs, and what is refused before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from msrf_monai.errors import ConfigError, DataError, InputError, MissingExtraError
from msrf_monai.experiments import cross_validate, plan_cross_validation
from support.experiment_fakes import (
    FakeRunner,
    Settings,
    make_dataset,
    options_of,
)


def test_overlays_and_overrides_reach_every_run(settings: Settings, bundle: Path) -> None:
    plan = plan_cross_validation(
        settings(overlays=("recipes/paper",), overrides={"max_epochs": "7", "network_def::features": "[2,2]"})
    )

    for spec in plan.runs:
        for command in (spec.training, spec.evaluation):
            assert options_of(command)["max_epochs"] == "7"
            assert options_of(command)["network_def::features"] == "[2,2]"
            assert "recipes/paper.json" in command[6]
            assert "datasets/drawn.json" in command[6]
            assert f"recalibration/{spec.variant}.json" in command[6]
        assert str(bundle / "configs/evaluate.json") in spec.evaluation[6]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"variants": ("none", "what")}, InputError, "no variant 'what': expected cse, none, ssr"),
        ({"variants": ()}, InputError, "no variant is given"),
        ({"variants": ("none", "none")}, InputError, "'none' is given twice"),
        ({"baseline": "cse"}, InputError, "the baseline 'cse' is none of the variants, none, ssr"),
        ({"score": "auc"}, InputError, "the score is 'auc'; expected one of dice, iou, precision, recall"),
        ({"overrides": {"seed": "1"}}, InputError, "seed cannot be overridden"),
        ({"overrides": {"max_epoch": "1"}}, ConfigError, "unknown override --max_epoch: did you mean --max_epochs"),
        ({"folds": 13}, InputError, "13 folds were asked for; expected from 2 to 12"),
        ({"stratify": True}, InputError, "has no strata"),
        ({"group": True}, InputError, "has no groups"),
        ({"bundle": "no/such"}, ConfigError, "this bundle does not exist"),
        ({"dataset": "no/such"}, DataError, "there is no prepared data set 'no/such'"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(
    settings: Settings, tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        plan_cross_validation(settings(**changes))
    assert not (tmp_path / "out").exists()


def test_too_many_folds_for_the_groups_are_refused(settings: Settings, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", 12, groups=lambda i: f"p{i % 4}")

    with pytest.raises(InputError, match="5 folds were asked for; expected from 2 to 4, the number of groups"):
        plan_cross_validation(settings(dataset=data, folds=5))


def test_copies_in_several_folds_are_noted(settings: Settings, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", 12, content=lambda index: str(index % 6))

    plan = plan_cross_validation(settings(dataset=data))

    assert plan.notes
    assert "byte for byte the same" in plan.notes[0]


def test_a_missing_library_shows_before_the_first_run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_cross_validation(settings())
    runner = FakeRunner()
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)

    with pytest.raises(MissingExtraError, match=r"msrf-monai\[train\]"):
        cross_validate(plan, runner=runner)
    assert runner.calls == []
