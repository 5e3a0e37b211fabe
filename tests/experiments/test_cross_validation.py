"""The whole of a cross-validation with a runner that takes no time: plans, records, resume, failures, results."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msrf_monai.errors import ConfigError, DataError, InputError, MissingExtraError, StorageError
from msrf_monai.experiments import Outcome, RunSpec, cross_validate, make_folds, plan_cross_validation
from msrf_monai.experiments.runs import perform
from support.experiment_fakes import FakeRunner, Settings, fake_dice, make_bundle, make_dataset, options_of

EFFECTS = {"ssr": 0.05, "cse": -0.02}


@pytest.fixture(autouse=True)
def _draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the figures out, which take most of the time and have tests of their own."""
    for name in ("draw_boxes", "draw_folds", "draw_differences", "draw_learning_curves"):
        monkeypatch.setattr(f"msrf_monai.experiments.report.{name}", lambda *values, **options: b"a picture")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def states(outcomes: list[Outcome]) -> list[str]:
    return [outcome.state for outcome in outcomes]


class InterruptError(Exception):
    """Stands for a kill."""


def failing(*where: tuple[str, str, int], code: int = 1) -> Callable[[str, str, int], int]:
    return lambda run, variant, fold: code if (run, variant, fold) in where else 0


def interrupting(*where: tuple[str, str, int]) -> Callable[[str, str, int], int]:
    def fail(run: str, variant: str, fold: int) -> int:
        if (run, variant, fold) in where:
            raise InterruptError
        return 0

    return fail


def test_every_variant_is_trained_and_tested_on_every_fold(settings: Settings, tmp_path: Path) -> None:
    runner = FakeRunner()

    outcomes = cross_validate(plan_cross_validation(settings()), runner=runner)

    assert states(outcomes) == ["finished"] * 6
    each = [(variant, fold) for fold in range(3) for variant in ("none", "ssr")]
    assert runner.calls == [(run, *one) for one in each for run in ("training", "evaluating")]
    for (run, variant, fold), options in zip(runner.calls, runner.options, strict=True):
        folder = tmp_path / "out" / "runs" / variant / f"fold_{fold}"
        assert options["dataset_dir"] == str(tmp_path / "out" / "folds" / f"fold_{fold}")
        assert options["ckpt_dir"] == str(folder / "models")
        assert options["output_dir"] == str(folder / ("training" if run == "training" else "evaluation"))
        assert options["seed"] == str(42 + fold)
        assert options.get("resume") == ("auto" if run == "training" else None)
        assert not (folder / "models" / "state").exists()  # it is of no use after the end


def test_the_folds_are_written_as_data_sets(settings: Settings, tmp_path: Path) -> None:
    plan = plan_cross_validation(settings(seed=5))
    cross_validate(plan, runner=FakeRunner())

    expected = make_folds(plan.pictures.groups, folds=3, seed=5)
    for split in expected:
        content = json.loads((tmp_path / f"out/folds/fold_{split.index}/dataset.json").read_text())
        listed = [[item["id"] for item in content[part]] for part in ("training", "validation", "test")]
        assert listed == [list(split.training), list(split.validation), list(split.test)]
        assert content["licence"] == "CC0 1.0"


def test_tables_hold_every_image_once_for_each_variant_and_its_difference(settings: Settings, tmp_path: Path) -> None:
    cross_validate(plan_cross_validation(settings()), runner=FakeRunner(EFFECTS))

    images = table(tmp_path / "out" / "per_image.csv")
    assert len(images) == 24
    for row in images:
        assert float(row["dice"]) == fake_dice(row["image"], row["variant"], int(row["fold"]), EFFECTS)
    base = {row["image"]: float(row["dice"]) for row in images if row["variant"] == "none"}
    for row in images:
        expected = "" if row["variant"] == "none" else pytest.approx(float(row["dice"]) - base[row["image"]])
        assert row["dice_minus_baseline"] == "" if expected == "" else float(row["dice_minus_baseline"]) == expected
    assert sum(row["hd95_px"] == "" for row in images) == 6  # one in each run has none

    folds = table(tmp_path / "out" / "per_fold.csv")
    assert len(folds) == 6
    for row in folds:
        own = [float(r["dice"]) for r in images if (r["variant"], r["fold"]) == (row["variant"], row["fold"])]
        assert float(row["dice"]) == pytest.approx(np.mean(own))
        assert (row["images"], row["pooled_dice"], row["best_epoch"]) == ("4", "0.75", "2")
        assert row["epochs"] == ("4" if row["fold"] == "1" else "3")
        assert float(row["training_s"]) == 2.5 * int(row["epochs"])


def test_the_summary_compares_with_the_baseline(settings: Settings, tmp_path: Path) -> None:
    plan = plan_cross_validation(settings(variants=("none", "cse", "ssr"), baseline="cse"))
    cross_validate(plan, runner=FakeRunner(EFFECTS), command_line=["msrf-monai", "a b"])

    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["command"] == "msrf-monai 'a b'"
    assert (summary["baseline"], list(summary["variants"])) == ("cse", ["none", "cse", "ssr"])
    assert summary["statistics"]["test_to_training_ratio"] == pytest.approx(
        12 / sum(len(s.training) for s in plan.splits)
    )
    comparisons = {each["variant"]: each for each in summary["comparisons"]}
    assert list(comparisons) == ["none", "ssr"]
    images = table(tmp_path / "out" / "per_image.csv")
    for name, each in comparisons.items():
        differences = [float(row["dice_minus_baseline"]) for row in images if row["variant"] == name]
        assert each["mean_difference"] == pytest.approx(np.mean(differences))
        assert each["images_better"] == sum(value > 0 for value in differences)
        assert each["nadeau_bengio_t"]["p"] > each["paired_t"]["p"]
        assert each["nadeau_bengio_t"]["p_holm"] >= each["nadeau_bengio_t"]["p"]
    small, large = sorted(each["paired_t"]["p"] for each in comparisons.values())
    assert sorted(each["paired_t"]["p_holm"] for each in comparisons.values()) == pytest.approx(
        sorted([2 * small, max(2 * small, large)])
    )
    assert summary["variants"]["ssr"]["scores"]["hd95_px"] == {
        "mean": 3.5,
        "interval": [3.5, 3.5],
        "std_of_folds": 0,
        "undefined": 3,
    }


def test_another_score_can_be_compared(settings: Settings, tmp_path: Path) -> None:
    cross_validate(plan_cross_validation(settings(score="iou")), runner=FakeRunner())

    assert json.loads((tmp_path / "out" / "summary.json").read_text())["comparisons"][0]["score"] == "iou"
    assert "iou_minus_baseline" in table(tmp_path / "out" / "per_fold.csv")[0]


def test_strata_and_groups_are_used_when_the_data_has_them(settings: Settings, tmp_path: Path) -> None:
    data = make_dataset(
        tmp_path / "data", 24, groups=lambda i: f"p{i // 2}", strata=lambda i: ("benign", "malignant")[i // 2 % 2]
    )
    plan = plan_cross_validation(settings(dataset=data))
    cross_validate(plan, runner=FakeRunner())

    assert plan.is_stratified
    assert plan.is_grouped
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["dataset"]["groups"] == 12
    assert {name: part["images"] for name, part in summary["variants"]["ssr"]["dice_by_stratum"].items()} == {
        "benign": 12,
        "malignant": 12,
    }
    without = plan_cross_validation(settings(dataset=data, stratify=False, group=False, shuffle=False))
    assert not without.is_stratified
    assert not without.is_grouped
    assert without.splits[0].test == tuple(f"case_{index:03d}" for index in range(8))


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


def test_one_common_fold_is_shown_without_a_test(settings: Settings, tmp_path: Path) -> None:
    runner = FakeRunner(fail=failing(("training", "ssr", 1), ("training", "ssr", 2)))

    cross_validate(plan_cross_validation(settings()), runner=runner)

    (found,) = json.loads((tmp_path / "out" / "summary.json").read_text())["comparisons"]
    assert (found["folds"], found["nadeau_bengio_t"], found["paired_t"]) == (1, None, None)
    assert "one fold is too few for a test" in (tmp_path / "out" / "report.html").read_text()


def test_without_any_result_there_is_no_page(settings: Settings, tmp_path: Path) -> None:
    everywhere = [("training", variant, fold) for variant in ("none", "ssr") for fold in range(3)]

    outcomes = cross_validate(plan_cross_validation(settings()), runner=FakeRunner(fail=failing(*everywhere)))

    assert states(outcomes) == ["failed"] * 6
    assert not (tmp_path / "out" / "report.html").exists()


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


def test_an_observer_hears_of_every_run(settings: Settings) -> None:
    heard: list[str] = []

    class Ear:
        def begin(self, total: int) -> None:
            heard.append(f"{total} runs")

        def started(self, spec: RunSpec) -> None:
            heard.append(f"{spec.variant} {spec.fold}")

        def ended(self, outcome: Outcome) -> None:
            heard.append(outcome.state)

    cross_validate(plan_cross_validation(settings(variants=("none",), folds=2)), runner=FakeRunner(), observer=Ear())

    assert heard == ["2 runs", "none 0", "finished", "none 1", "finished"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,dice\nelsewhere.png,1\n", "which is not one image of fold 0"),
        ("file,dice,iou,precision,recall,hd95_px\n", "scores 0 images; expected the 4 of fold 0"),
        (None, "cannot be read as a table"),
    ],
)
def test_an_evaluation_of_other_images_is_refused(
    settings: Settings, tmp_path: Path, content: str | None, message: str
) -> None:
    class Odd(FakeRunner):
        def _evaluate(self, dataset: Path, output: Path, variant: str, fold: int) -> None:
            super()._evaluate(dataset, output, variant, fold)
            (output / "cases.csv").write_bytes(b"\xff\xfe\x00" if content is None else content.encode())

    with pytest.raises(DataError, match=message):
        cross_validate(plan_cross_validation(settings()), runner=Odd())


def test_a_summary_that_is_no_json_is_refused(settings: Settings) -> None:
    class Odd(FakeRunner):
        def _evaluate(self, dataset: Path, output: Path, variant: str, fold: int) -> None:
            super()._evaluate(dataset, output, variant, fold)
            (output / "summary.json").write_text("{")

    with pytest.raises(DataError, match="cannot be read as JSON"):
        cross_validate(plan_cross_validation(settings()), runner=Odd())


def test_a_run_without_a_record_of_the_best_epoch_will_do(settings: Settings, tmp_path: Path) -> None:
    class Plain(FakeRunner):
        def _train(self, models: Path, output: Path, seed: int, fold: int) -> None:
            super()._train(models, output, seed, fold)
            (models / "model.json").unlink()

    cross_validate(plan_cross_validation(settings()), runner=Plain())

    assert {row["best_epoch"] for row in table(tmp_path / "out" / "per_fold.csv")} == {""}


def test_a_folder_that_cannot_be_cleared_is_one_sentence(settings: Settings, tmp_path: Path) -> None:
    spec = plan_cross_validation(settings()).runs[0]
    spec.folder.parent.mkdir(parents=True)
    spec.folder.write_text("a file in the place of the run's folder")

    with pytest.raises(StorageError, match="cannot clear"):
        perform(spec, FakeRunner())
