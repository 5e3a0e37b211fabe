"""A cross-validation that goes on in its folder: kills, failures, changed files and options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from msrf_monai.errors import InputError, StorageError
from msrf_monai.experiments import cross_validate, plan_cross_validation
from msrf_monai.experiments.runs import perform
from support.experiment_fakes import (
    EFFECTS,
    FakeRunner,
    InterruptError,
    Settings,
    failing,
    interrupting,
    make_bundle,
    states,
)


def test_a_second_call_does_nothing_again_and_gives_the_same_numbers(settings: Settings, tmp_path: Path) -> None:
    cross_validate(plan_cross_validation(settings()), runner=FakeRunner())
    before = {name: (tmp_path / "out" / name).read_bytes() for name in ("per_fold.csv", "per_image.csv")}
    runner = FakeRunner()

    outcomes = cross_validate(plan_cross_validation(settings()), runner=runner)

    assert runner.calls == []
    assert states(outcomes) == ["reused"] * 6
    assert {name: (tmp_path / "out" / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("run", ["training", "evaluating"])
def test_after_a_kill_only_the_rest_is_done(settings: Settings, tmp_path: Path, run: str) -> None:
    with pytest.raises(InterruptError):
        cross_validate(plan_cross_validation(settings()), runner=FakeRunner(fail=interrupting((run, "none", 1))))
    assert not (tmp_path / "out" / "report.html").exists()
    runner = FakeRunner()

    outcomes = cross_validate(plan_cross_validation(settings()), runner=runner)

    assert states(outcomes) == ["reused"] * 2 + ["finished"] * 4
    assert runner.calls[0] == (run, "none", 1)  # a training that was finished is not repeated
    assert runner.calls[-1] == ("evaluating", "ssr", 2)


@pytest.mark.parametrize("can_resume", [True, False])
def test_an_interrupted_training_goes_on_where_the_bundle_can(
    settings: Settings, tmp_path: Path, can_resume: bool
) -> None:
    changes = {"bundle": make_bundle(tmp_path / "other", resume=can_resume)}
    with pytest.raises(InterruptError):
        cross_validate(
            plan_cross_validation(settings(**changes)), runner=FakeRunner(fail=interrupting(("training", "none", 0)))
        )
    state = tmp_path / "out/runs/none/fold_0/models/state/training_state.pt"
    state.parent.mkdir(parents=True)
    state.write_text("after epoch 2")
    seen = []

    def look(run: str, variant: str, fold: int) -> int:
        seen.append(state.exists())
        return 0

    runner = FakeRunner(fail=look)
    cross_validate(plan_cross_validation(settings(**changes)), runner=runner)

    assert seen[0] is can_resume
    assert runner.options[0].get("resume") == ("auto" if can_resume else None)


@pytest.mark.parametrize(
    ("file", "first"),
    [
        ("evaluation/cases.csv", "evaluating"),
        ("evaluation/summary.json", "evaluating"),
        ("record.json", "training"),
    ],
)
def test_results_that_have_changed_are_made_anew(settings: Settings, tmp_path: Path, file: str, first: str) -> None:
    cross_validate(plan_cross_validation(settings()), runner=FakeRunner())
    path = tmp_path / "out/runs/ssr/fold_1" / file
    path.write_text("changed")
    runner = FakeRunner()

    outcomes = cross_validate(plan_cross_validation(settings()), runner=runner)

    assert states(outcomes) == ["reused"] * 3 + ["finished"] + ["reused"] * 2
    assert runner.calls[0] == (first, "ssr", 1)


def test_weights_that_have_changed_are_not_scored(settings: Settings, tmp_path: Path) -> None:
    cross_validate(plan_cross_validation(settings()), runner=FakeRunner())
    (tmp_path / "out/runs/ssr/fold_1/models/model.pt").write_text("changed")
    (tmp_path / "out/runs/ssr/fold_1/evaluation/cases.csv").unlink()
    runner = FakeRunner()

    cross_validate(plan_cross_validation(settings()), runner=runner)

    assert runner.calls == [("training", "ssr", 1), ("evaluating", "ssr", 1)]


def test_a_failed_run_is_told_and_the_others_go_on_and_it_is_tried_again(settings: Settings, tmp_path: Path) -> None:
    runner = FakeRunner(EFFECTS, fail=failing(("training", "ssr", 1)))
    outcomes = cross_validate(plan_cross_validation(settings()), runner=runner)

    assert states(outcomes) == ["finished"] * 3 + ["failed"] + ["finished"] * 2
    failed = outcomes[3]
    assert failed.message == "training ended with code 1"
    assert failed.log == tmp_path / "out/runs/ssr/fold_1/training.log"
    assert failed.lines[-1] == "error: the last line"
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["failed"][0]["variant"], summary["failed"][0]["fold"]) == ("ssr", 1)
    assert summary["comparisons"][0]["folds"] == 2
    assert summary["variants"]["none"]["images"] == 12

    again = FakeRunner(EFFECTS)
    assert states(cross_validate(plan_cross_validation(settings()), runner=again)).count("reused") == 5
    assert again.calls == [("training", "ssr", 1), ("evaluating", "ssr", 1)]
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["failed"] == []


def test_a_run_killed_by_a_signal_and_one_that_leaves_nothing_are_told_apart(
    settings: Settings, tmp_path: Path
) -> None:
    class Nothing(FakeRunner):
        def _train(self, models: Path, output: Path, seed: int, fold: int) -> None:
            models.mkdir(parents=True)

    plan = plan_cross_validation(settings())
    killed = cross_validate(plan, runner=FakeRunner(fail=failing(("evaluating", "none", 0), code=-9)))
    (tmp_path / "out/runs/none/fold_0/record.json").unlink()
    nothing = cross_validate(plan, runner=Nothing())

    assert killed[0].message == "evaluation was killed by signal 9"
    assert nothing[0].message == "training left no models/model.pt and no training/history.csv"


def test_variants_can_be_added_and_left_out(settings: Settings, tmp_path: Path) -> None:
    cross_validate(plan_cross_validation(settings()), runner=FakeRunner())
    runner = FakeRunner()
    cross_validate(plan_cross_validation(settings(variants=("none", "cse", "ssr"))), runner=runner)
    assert {variant for _, variant, _ in runner.calls} == {"cse"}

    outcomes = cross_validate(plan_cross_validation(settings(variants=("ssr",))), runner=FakeRunner())

    assert states(outcomes) == ["reused"] * 3
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (list(summary["variants"]), summary["comparisons"]) == (["ssr"], [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folds": 2}, "folds was 3, is 2"),
        ({"seed": 1}, "seed was 42, is 1"),
        ({"dev_share": 0.2}, "dev_share was 0.1, is 0.2"),
        ({"shuffle": False}, "shuffle was true, is false"),
        ({"overrides": {"max_epochs": "9"}}, "overrides max_epochs was not given, is 9"),
        ({"overlays": ("recipes/paper",)}, "overlays was , is recipes/paper"),
        ({"parts": ("training",)}, "dataset parts was training,validation,test, is training"),
    ],
)
def test_other_options_for_the_same_folder_are_refused(
    settings: Settings, changes: dict[str, Any], message: str
) -> None:
    cross_validate(plan_cross_validation(settings()), runner=FakeRunner())
    runner = FakeRunner()

    with pytest.raises(InputError, match=message):
        cross_validate(plan_cross_validation(settings(**changes)), runner=runner)
    assert runner.calls == []


def test_a_configuration_that_has_changed_is_refused(settings: Settings, bundle: Path) -> None:
    cross_validate(plan_cross_validation(settings()), runner=FakeRunner())
    path = bundle / "configs/recalibration/ssr.json"
    path.write_text(path.read_text() + "\n")

    with pytest.raises(InputError, match=r"\(ssr has changed\); choose another folder, or give the same options"):
        cross_validate(plan_cross_validation(settings()), runner=FakeRunner())


def test_folders_may_move(settings: Settings, bundle: Path, dataset: Path, tmp_path: Path) -> None:
    cross_validate(plan_cross_validation(settings()), runner=FakeRunner())
    moved = {"bundle": bundle.rename(tmp_path / "b"), "dataset": dataset.rename(tmp_path / "d")}
    moved["output"] = (tmp_path / "out").rename(tmp_path / "o")

    assert states(cross_validate(plan_cross_validation(settings(**moved)), runner=FakeRunner())) == ["reused"] * 6
    content = json.loads((tmp_path / "o/folds/fold_0/dataset.json").read_text())
    assert Path(content["test"][0]["image"]).is_relative_to(tmp_path / "d")


def test_a_folder_that_cannot_be_cleared_is_one_sentence(settings: Settings, tmp_path: Path) -> None:
    spec = plan_cross_validation(settings()).runs[0]
    spec.folder.parent.mkdir(parents=True)
    spec.folder.write_text("a file in the place of the run's folder")

    with pytest.raises(StorageError, match="cannot clear"):
        perform(spec, FakeRunner())
