"""Trained networks on several data sets with a runner that takes no time: plans, resume, failures, results."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from PIL import Image
from typer.testing import CliRunner, Result

from msrf_monai.cli import experiment as commands
from msrf_monai.data import load_datalist
from msrf_monai.engines import VesselReport
from msrf_monai.errors import CheckpointError, ConfigError, DataError, InputError
from msrf_monai.experiments import CrossDataset, TrainedModel, evaluate_across, plan_cross_dataset
from msrf_monai.experiments.cross_dataset_report import headline
from support.experiment_fakes import make_bundle, options_of

from msrf_monai import experiments  # isort: skip

Ask = Callable[..., CrossDataset]


def _make_set(folder: Path, *, name: str | None = None, count: int = 6, test: int = 2, extras: bool = True) -> Path:
    """Write a prepared data set of tiny files; the last ``test`` are its test part, the two before its validation."""
    parts: dict[str, list[dict[str, Any]]] = {"training": [], "validation": [], "test": []}
    digests = {}
    for index in range(count):
        item: dict[str, Any] = {"id": f"{folder.name}{index}", "fold": index % 2}
        for key in ("image", "label", *(("fov", "label2") if extras else ())):
            item[key] = f"{key}s/{folder.name}{index}.png"
            path = folder / item[key]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{key} {folder.name} {index}")
            digests[item[key]] = hashlib.sha256(path.read_bytes()).hexdigest()
        part = "test" if index >= count - test else "validation" if index >= count - test - 2 else "training"
        parts[part].append(item)
    header = {"name": name or folder.name, "licence": "CC <BY>", "citation": "A & B"}
    (folder / "dataset.json").write_text(json.dumps({**header, **parts, "sha256": digests}))
    return folder


class FakeEvaluation:
    """Reports on made-up maps, as the bundle's evaluation would on those of a network.

    Args:
        fail: called with network and data set; returns an exit code.
    """

    def __init__(self, fail: Callable[[str, str], int] = lambda model, dataset: 0) -> None:
        self.fail = fail
        self.calls: list[tuple[str, str]] = []
        self.options: list[dict[str, str]] = []
        self.topology = False

    def __call__(self, command: Sequence[str], log: Path, *, keep_open: Sequence[int] = ()) -> int:
        pair = (log.parent.parent.name, log.parent.name)
        self.calls.append(pair)
        options = options_of(command)
        self.options.append(options)
        log.write_text("evaluating\nerror: the last line\n")
        if self.fail(*pair):
            return self.fail(*pair)
        weights = Path(options["weights"]).read_text()
        names = [item["image"] for item in load_datalist(options["dataset_dir"], "test")]

        def step(engine: Engine, name: str) -> list[dict[str, Any]]:
            engine.state.batch = [_item(name, weights)]
            return engine.state.batch  # type: ignore[no-any-return]

        engine = Engine(step)
        chosen = 0.3 if "chase" in options["calibration_dir"] else 0.5
        report = VesselReport(options["output_dir"], threshold=chosen, topology=self.topology, samples=50)
        report.attach(engine)
        engine.run(names)
        return 0


def _item(name: str, weights: str) -> dict[str, Any]:
    rng = np.random.default_rng(int(hashlib.sha256(f"{Path(name).name}{weights}".encode()).hexdigest()[:6], 16))
    label = (rng.random((16, 12)) > 0.7).astype(np.float32)
    said = np.clip(0.5 * label + rng.normal(0.25, 0.15, label.shape), 0, 1).astype(np.float32)
    image = MetaTensor(torch.zeros(3, 16, 12), meta={"filename_or_obj": name})
    maps = {"label": label, "probability": said, "fov": np.ones_like(label), "label2": np.roll(label, 1)}
    return {"image": image, **{key: torch.from_numpy(each)[None] for key, each in maps.items()}}


@pytest.fixture(autouse=True)
def _no_diagram(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the diagrams of the pairs, which take most of the time."""
    monkeypatch.setattr("msrf_monai.engines.vessel_report.draw_reliability", lambda calibration: b"png")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle whose evaluation can choose its threshold on another data set."""
    root = make_bundle(tmp_path / "bundle")
    path = root / "configs" / "evaluate.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "calibration_dir": "@dataset_dir"}))
    return root


@pytest.fixture
def ask(tmp_path: Path, bundle: Path) -> Ask:
    """One network of CHASE on CHASE and STARE, to be changed by keywords."""
    for name in ("chase", "stare"):
        _make_set(tmp_path / name)
        (tmp_path / f"{name}.pt").write_text(f"weights of {name}")

    def asked(**changes: Any) -> CrossDataset:
        settings = CrossDataset(
            models=[TrainedModel(tmp_path / "chase.pt", tmp_path / "chase", bundle)],
            datasets=[tmp_path / "chase", tmp_path / "stare"],
            output=tmp_path / "out",
        )
        return replace(settings, **changes)

    return asked


def _matrix(tmp_path: Path, bundle: Path) -> list[TrainedModel]:
    return [TrainedModel(tmp_path / f"{name}.pt", tmp_path / name, bundle) for name in ("chase", "stare")]


def _results(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


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


def test_parts_can_be_named_for_all_data_sets(ask: Ask) -> None:
    plan = plan_cross_dataset(ask(parts=["test"]))
    assert [spec.images for spec in plan.runs] == [2, 2]
    plan = plan_cross_dataset(ask(parts=["validation", "test"]))
    assert [spec.images for spec in plan.runs] == [4, 4]


def test_the_table_has_a_row_for_each_pair_with_the_reports_numbers(ask: Ask, bundle: Path, tmp_path: Path) -> None:
    plan = plan_cross_dataset(ask(models=_matrix(tmp_path, bundle)))
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
    assert [result["is_own"] for result in _results(tmp_path)["results"]] == [True, False, False, True]


def test_the_page_is_whole_shows_all_and_links_to_the_reports(ask: Ask, bundle: Path, tmp_path: Path) -> None:
    plan = plan_cross_dataset(ask(models=_matrix(tmp_path, bundle)))
    evaluate_across(plan, runner=FakeEvaluation(), command_line=["msrf-monai", "experiment", "x y"])
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")

    assert not re.search(r"https?://|@import|url\(|<script", html)
    for result in _results(tmp_path)["results"]:
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
    pooled = _results(tmp_path)["results"][1]["protocols"]["fov_chosen"]["pooled"]
    scores = f"pooled F1 {pooled['f1']:.4f}, AUC {pooled['auc_roc']:.4f}"
    assert lines[1] == f"chase on stare (6 images): {scores} in the field of view at 0.3"


def test_finished_pairs_are_kept_and_others_added(ask: Ask, bundle: Path, tmp_path: Path) -> None:
    evaluate_across(plan_cross_dataset(ask(datasets=[tmp_path / "chase"])), runner=FakeEvaluation())
    fake = FakeEvaluation()
    outcomes = evaluate_across(plan_cross_dataset(ask(models=_matrix(tmp_path, bundle))), runner=fake)
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
        _make_set(tmp_path / "stare", count=8)
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
    assert _results(tmp_path)["failed"][0]["dataset"] == "chase"

    fake = FakeEvaluation()
    assert [outcome.state for outcome in evaluate_across(plan_cross_dataset(ask()), runner=fake)] == [
        "finished",
        "reused",
    ]


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


def test_a_network_whose_data_set_has_no_test_part_is_left_out_there(ask: Ask, tmp_path: Path, bundle: Path) -> None:
    _make_set(tmp_path / "all_used", test=0)
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
    _make_set(tmp_path / "clinic_a", name="fundus")
    _make_set(tmp_path / "clinic_b", name="fundus")
    plan = plan_cross_dataset(ask(datasets=[tmp_path / "clinic_a", tmp_path / "clinic_b"]))
    assert [spec.dataset for spec in plan.runs] == ["clinic_a", "clinic_b"]
    with pytest.raises(InputError, match="two data sets are called alike"):
        plan_cross_dataset(ask(datasets=[tmp_path / "clinic_a", tmp_path / "clinic_a"]))


def test_notes_of_the_reports_are_named_once(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _item
    monkeypatch.setitem(globals(), "_item", lambda n, w: {k: v for k, v in whole(n, w).items() if k != "fov"})
    evaluate_across(plan_cross_dataset(ask()), runner=FakeEvaluation())
    notes = _results(tmp_path)["notes"]
    assert [note.partition(":")[0] for note in notes] == ["chase on chase", "chase on stare"]
    assert "2 of 2 images have no field of view" in notes[0]


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
    folder = _make_set(tmp_path / "bare")
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


# the command


def _invoke(tmp_path: Path, bundle: Path, *arguments: str) -> Result:
    given = ["cross-dataset", "--bundle", str(bundle), "--dataset", str(tmp_path / "chase")]
    given += ["--dataset", str(tmp_path / "stare"), "--output", str(tmp_path / "out")]
    if "--weights" not in arguments:
        given += ["--weights", str(tmp_path / "chase.pt"), "--trained-on", str(tmp_path / "chase")]
    return CliRunner().invoke(commands.app, [*given, *arguments])


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, ask: Ask) -> FakeEvaluation:
    """A runner in the place of processes."""
    runner = FakeEvaluation()
    monkeypatch.setattr(experiments, "ProcessRunner", lambda **options: runner)
    return runner


def test_the_command_shows_the_scores_and_the_page(tmp_path: Path, bundle: Path, fake: FakeEvaluation) -> None:
    result = _invoke(tmp_path, bundle)
    assert result.exit_code == 0
    assert "chase on chase (2 images), chase on stare (6 images)" in result.stderr
    assert "chase on stare: done in" in result.stderr
    assert result.stdout.splitlines()[0].startswith("chase on chase (2 images): pooled F1 0.")
    assert result.stdout.splitlines()[-1] == str(tmp_path / "out" / "report.html")
    assert "chase on stare: was finished before" in _invoke(tmp_path, bundle).stderr
    quiet = _invoke(tmp_path, bundle, "--quiet")
    assert (quiet.stdout, quiet.stderr) == (f"{tmp_path / 'out' / 'report.html'}\n", "")


def test_failures_are_code_3_with_the_log(tmp_path: Path, bundle: Path, fake: FakeEvaluation) -> None:
    fake.fail = lambda model, dataset: 2 * int(dataset == "stare")
    result = _invoke(tmp_path, bundle, "--quiet")
    assert result.exit_code == 3
    log = tmp_path / "out/runs/chase/stare/evaluation.log"
    assert f"FAILED chase on stare: evaluation ended with code 2; see {log}" in result.stderr
    assert "    error: the last line" in result.stderr
    assert "1 of 2 evaluations failed" in result.stderr
    fake.fail = lambda model, dataset: 1
    assert "report.html" not in _invoke(tmp_path, bundle, "--output", str(tmp_path / "b")).stdout


def test_several_weights_make_a_matrix(tmp_path: Path, bundle: Path, fake: FakeEvaluation) -> None:
    words = []
    for name in ("chase", "stare"):
        words += [
            "--weights",
            str(tmp_path / f"{name}.pt"),
            "--trained-on",
            str(tmp_path / name),
            "--name",
            f"of_{name}",
        ]
    result = _invoke(
        tmp_path, bundle, *words, "--parts", "test", "--override", "max_epochs=4", "--overlay", "recipes/paper"
    )
    assert result.exit_code == 0
    assert fake.calls == [(model, data) for model in ("of_chase", "of_stare") for data in ("chase", "stare")]
    assert {options["max_epochs"] for options in fake.options} == {"4"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "a.pt", "--weights", "b.pt", "--trained-on", "chase"], "2 weights need 2 --trained-on"),
        (["--name", "a", "--name", "b"], "1 weights need 1 --trained-on"),
        (["--override", "max_epoch=3"], "did you mean --max_epochs"),
        (["--parts", "exam"], "there is no part 'exam'"),
        (["--weights", "no.pt", "--trained-on", "{tmp}/chase"], "this file of weights does not exist"),
    ],
)
def test_wrong_use_is_code_2(
    tmp_path: Path, bundle: Path, fake: FakeEvaluation, arguments: list[str], message: str
) -> None:
    result = _invoke(tmp_path, bundle, *(word.format(tmp=tmp_path) for word in arguments))
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert fake.calls == []
