"""The command ``msrf-monai experiment cross-validate``: options, what it shows, exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from msrf_monai.cli import experiment as commands
from msrf_monai.errors import DataError
from support.experiment_fakes import FakeRunner, make_bundle, make_dataset, options_of

from msrf_monai import experiments  # isort: skip


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRunner:
    """A runner in the place of processes."""
    runner = FakeRunner({"ssr": 0.05})
    monkeypatch.setattr(experiments, "ProcessRunner", lambda **options: runner)
    return runner


def invoke(tmp_path: Path, *arguments: str) -> Result:
    bundle, data = tmp_path / "bundle", tmp_path / "data"
    if not bundle.exists():
        make_bundle(bundle)
        make_dataset(data)
    given = ["cross-validate", "--bundle", str(bundle), "--dataset", str(data), "--output", str(tmp_path / "out")]
    if "--recalibration" not in arguments and "--variants" not in arguments:
        given += ["--recalibration", "none,ssr"]
    return CliRunner().invoke(commands.app, [*given, "--folds", "3", *arguments])


def test_all_done_is_code_0_and_shows_what_was_found_and_where(tmp_path: Path, fake: FakeRunner) -> None:
    result = invoke(tmp_path)

    assert result.exit_code == 0
    assert "12 images of drawn, 3 folds; none, ssr" in result.stderr
    assert "ssr, fold 2: done in 0 s" in result.stderr
    shown = result.stdout.splitlines()
    assert shown[0].startswith("ssr is higher than none (+0.0")
    assert shown[1] == str(tmp_path / "out" / "report.html")
    assert Path(shown[1]).is_file()

    again = invoke(tmp_path)
    assert again.exit_code == 0
    assert "ssr, fold 2: was finished before" in again.stderr


def test_quiet_shows_the_page_alone(tmp_path: Path, fake: FakeRunner) -> None:
    result = invoke(tmp_path, "--quiet")

    assert result.stdout == f"{tmp_path / 'out' / 'report.html'}\n"
    assert result.stderr == ""


def test_some_failed_is_code_3_with_the_log(tmp_path: Path, fake: FakeRunner) -> None:
    fake.fail = lambda run, variant, fold: 7 * int(fold == 1 and variant == "ssr")

    result = invoke(tmp_path, "--quiet")

    assert result.exit_code == 3
    log = tmp_path / "out/runs/ssr/fold_1/training.log"
    assert f"FAILED ssr, fold 1: training ended with code 7; see {log}" in result.stderr
    assert "    error: the last line" in result.stderr
    assert "1 of 6 runs failed; the same command tries them again" in result.stderr
    assert (tmp_path / "out" / "report.html").is_file()


def test_all_failed_is_code_3_without_a_page(tmp_path: Path, fake: FakeRunner) -> None:
    fake.fail = lambda run, variant, fold: 1

    result = invoke(tmp_path)

    assert result.exit_code == 3
    assert "report.html" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recalibration", "none,what"], "error: {bundle} has no variant 'what': expected cse, none, ssr"),
        (["--folds", "99"], "error: 99 folds were asked for; expected from 2 to 12"),
        (["--override", "max_epoch=3"], "error: unknown override --max_epoch: did you mean --max_epochs?"),
        (["--bundle", "no/such"], "this bundle does not exist"),
        (["--baseline", "cse"], "error: the baseline 'cse' is none of the variants, none, ssr"),
        (["--override", "max_epochs"], "expected KEY=VALUE"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_wrong_use_is_code_2(tmp_path: Path, fake: FakeRunner, arguments: list[str], message: str) -> None:
    result = invoke(tmp_path, *arguments)

    assert result.exit_code == 2
    assert message.format(bundle=tmp_path / "bundle") in result.stderr
    assert fake.calls == []


def test_changed_options_are_code_2_in_one_sentence(tmp_path: Path, fake: FakeRunner) -> None:
    invoke(tmp_path)

    result = invoke(tmp_path, "--seed", "7")

    assert result.exit_code == 2
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "(seed was 42, is 7)" in lines[0]
    assert invoke(tmp_path, "--no-resume").exit_code == 2


def test_a_missing_data_set_is_for_the_program_to_say(tmp_path: Path, fake: FakeRunner) -> None:
    result = invoke(tmp_path, "--dataset", "no/such")

    assert isinstance(result.exception, DataError)


def test_options_reach_the_runs(tmp_path: Path, fake: FakeRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(experiments, "cross_validate", lambda plan, **options: seen.append(plan) or [])

    words = "--variants recipes/paper,default --baseline default --no-shuffle --no-group --no-stratify --dev-share 0.25"
    words += " --score iou --parts training --override --network_def#features=[2,2] --override max_epochs=a=b --seed 5"
    result = invoke(tmp_path, *words.split(), "--overlay", "recipes/paper")

    assert result.exit_code == 0
    (plan,) = seen
    assert [variant.name for variant in plan.variants] == ["recipes/paper", "default"]
    assert (plan.baseline, plan.settings.score, len(plan.pictures.pictures)) == ("default", "iou", 9)
    assert options_of(plan.runs[0].training)["network_def::features"] == "[2,2]"
    assert options_of(plan.runs[0].training)["max_epochs"] == "a=b"
    assert [len(split.validation) for split in plan.splits] == [1, 1, 1]
    assert plan.settings.overlays == ["recipes/paper"]


def test_notes_are_shown(tmp_path: Path, fake: FakeRunner) -> None:
    make_bundle(tmp_path / "bundle")
    make_dataset(tmp_path / "data", content=lambda index: str(index % 6))

    assert "note: " in invoke(tmp_path).stderr


def test_the_bar_tells_the_epoch_of_the_present_run(tmp_path: Path) -> None:
    class Bar:
        text = ""

        def set_postfix_str(self, text: str) -> None:
            self.text = text

    class Spec:
        variant, fold, folder = "ssr", 1, tmp_path

    bar = Bar()
    watch = commands._Watch(bar, quiet=False)
    watch.waiting()
    assert bar.text == ""

    watch.started(Spec())  # type: ignore[arg-type]
    assert bar.text == "ssr, fold 1"
    watch.waiting()
    assert bar.text == "ssr, fold 1, epoch 0"
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "history.csv").write_text("epoch\n1\n2\n")
    watch.waiting()
    assert bar.text == "ssr, fold 1, epoch 2"


def test_a_request_to_end_ends_the_training_too(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    make_dataset(tmp_path / "data")
    # the bundle's own program is replaced by one that waits, at the front of the path
    (tmp_path / "path" / "monai" / "bundle").mkdir(parents=True)
    waits = "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(120)"
    (tmp_path / "waits.py").write_text(waits)
    program = (
        "import sys; from msrf_monai.experiments import runner\n"
        "real = runner.subprocess.Popen\n"
        f"runner.subprocess.Popen = lambda command, **o: real([sys.executable, {str(tmp_path / 'waits.py')!r}], **o)\n"
        "from msrf_monai.cli.main import main\nmain()"
    )
    words = ["experiment", "cross-validate", "--bundle", "bundle", "--dataset", "data", "--recalibration", "none"]
    command = [sys.executable, "-c", program, *words, "--output", "out", "--folds", "2", "--quiet"]
    process = subprocess.Popen(command, cwd=tmp_path)
    pid = tmp_path / "pid"
    deadline = time.monotonic() + 120
    while not (pid.is_file() and pid.read_text()) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)

    process.send_signal(signal.SIGTERM)

    assert process.wait(60) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
