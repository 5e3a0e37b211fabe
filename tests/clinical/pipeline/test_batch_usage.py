"""What the commands refuse rather than ignore, what a dry run calls a file, and what ``--quiet`` leaves unsaid."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from msrf_monai.cli.listen import app as listen
from msrf_monai.cli.predict import app
from msrf_monai.cli.running import exit_code_of
from support.clinical_runs import ThresholdPredictor, save_picture
from support.dicom_files import as_bytes, image_dataset, pattern

BUNDLE = "bundles/msrf_net_polyp_segmentation"


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load no network."""
    monkeypatch.setattr(
        "msrf_monai.clinical.predictor.Predictor.from_bundle", lambda bundle, options: ThresholdPredictor()
    )


def call(repository: Path, *arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(repository / BUNDLE), *map(str, arguments)])


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry-run"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--received", "box"], "--received and --keep-received are about what --from-dicomweb URL fetches"),
        (["--keep-received"], "--received and --keep-received are about what --from-dicomweb URL fetches"),
        (["--send-to", "PACS@127.0.0.1:4242", "--outputs", "mask,stats"], "--outputs asks for none; add one or more"),
        (["--to-dicomweb", "http://127.0.0.1:9/w", "--outputs", "nifti"], "--outputs asks for none; add one or more"),
    ],
    ids=["received", "keep-received", "send-to", "to-dicomweb"],
)
def test_options_that_would_do_nothing_are_wrong_use(
    repository: Path, tmp_path: Path, arguments: list[str], said: str, dry: list[str]
) -> None:
    save_picture(tmp_path / "in" / "a.png")

    done = call(repository, tmp_path / "in", "-o", tmp_path / "out", *arguments, *dry)

    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_service_without_dicom_results_sends_nothing_and_is_wrong_use(repository: Path, tmp_path: Path) -> None:
    words = [repository / BUNDLE, "-o", tmp_path / "out", "--any-caller", "--outputs", "mask"]

    done = CliRunner().invoke(listen, [*map(str, words), "--send-to", "PACS@127.0.0.1:4242"])

    assert done.exit_code == 2
    assert "--outputs asks for none; add one or more of seg, labelmap" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a good and a bad DICOM file below it."""
    good = as_bytes(image_dataset(pattern(), Modality="US"))
    (tmp_path / "in" / "deeper").mkdir(parents=True)
    (tmp_path / "in" / "good.dcm").write_bytes(good)
    (tmp_path / "in" / "deeper" / "cut\x1b[31m.dcm").write_bytes(good[:-40])
    (tmp_path / "in" / "bad.png").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("given", ["in", "./in/", "in/deeper", "in/d*"], ids=["folder", "slash", "deeper", "pattern"])
def test_a_dry_run_names_a_refused_dicom_file_as_it_was_given(repository: Path, folder: Path, given: str) -> None:
    done = call(repository, given, "-o", "out", "--dry-run")

    start = "./in/deeper" if given == "./in/" else "in/deeper"
    assert f"refuse {start}/cut\\x1b[31m.dcm: truncated: " in done.stdout
    assert "\x1b" not in done.stdout
    assert done.exit_code == 3


def test_a_dry_run_names_only_what_has_to_be_found(repository: Path, folder: Path) -> None:
    found = json.loads(call(repository, folder / "in", "-o", "out", "--dry-run", "--json").stdout)["inputs"]

    paths = {each["input"].partition("-")[0]: each["path"] for each in found}
    assert paths == {"bad.png": "", "file": f"{folder}/in/deeper/cut\\x1b[31m.dcm", "dicom": ""}


def test_a_dry_run_with_hidden_names_shows_hashes_only(repository: Path, folder: Path) -> None:
    done = call(repository, "in", "-o", "out", "--dry-run", "--hide-names")

    assert "refuse file-" in done.stdout
    for name in ("cut", "bad", "good", "deeper"):
        assert name not in done.stdout


@pytest.mark.parametrize("quiet", [True, False])
def test_quiet_keeps_warnings_from_the_screen_and_in_the_log(
    quiet: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []

    class Log(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())

    logger = logging.getLogger("msrf_monai.clinical.execution.worker_pool")

    def run() -> int:
        logger.warning("a worker died")
        logger.error("the disk fails")
        return 0

    # as it is where nobody has set up logging
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    code = exit_code_of(run, quiet=quiet)
    said = capsys.readouterr().err
    logger.addHandler(log := Log())
    exit_code_of(run, quiet=quiet)
    logger.removeHandler(log)

    assert code == 0
    assert ("a worker died" in said) is not quiet
    assert "the disk fails" in said
    assert seen == ["a worker died", "the disk fails"]
    assert logging.getLogger().handlers == []
