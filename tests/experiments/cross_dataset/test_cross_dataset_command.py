"""The command ``msrf-monai experiment cross-dataset``: what it shows, and its exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from msrf_monai.cli import experiment as commands
from support.cross_dataset_fakes import Ask, FakeEvaluation

from msrf_monai import experiments  # isort: skip


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
