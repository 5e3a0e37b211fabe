"""Runs of a whole cross-validation with a runner that takes no time: what each is given, tables and summary."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from msrf_monai.errors import DataError
from msrf_monai.experiments import Outcome, RunSpec, cross_validate, make_folds, plan_cross_validation
from support.experiment_fakes import (
    EFFECTS,
    FakeRunner,
    Settings,
    failing,
    fake_dice,
    make_dataset,
    states,
    table,
)


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
