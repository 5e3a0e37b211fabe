"""``msrf-monai predict`` as its users meet it: exit codes, and what is said where."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from msrf_monai.cli.predict import app
from msrf_monai.clinical.ledger import read_manifest
from msrf_monai.errors import StorageError
from support.clinical_runs import ThresholdPredictor, entries_of, good_pictures, save_picture
from support.dicom_files import as_bytes, image_dataset, pattern

BUNDLE = "bundles/msrf_net_polyp_segmentation"


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Let the command load the stand-in; gives the options it was loaded with."""
    loaded: list[Any] = []

    def load(bundle: Path, options: Any) -> ThresholdPredictor:
        loaded.append(options)
        return ThresholdPredictor()

    monkeypatch.setattr("msrf_monai.clinical.predictor.Predictor.from_bundle", load)
    return loaded


def call(repository: Path, *arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(repository / BUNDLE), *map(str, arguments)])


def test_all_done_is_0(repository: Path, tmp_path: Path, stand_in: list[Any]) -> None:
    good_pictures(tmp_path / "in", 2)

    done = call(repository, tmp_path / "in", "--output", tmp_path / "out")

    assert done.exit_code == 0, done.output
    assert "2 done, 0 failed, 0 skipped; 0 flagged" in done.stdout
    assert len(stand_in) == 1
    assert (tmp_path / "out" / "report.html").exists()
    assert (tmp_path / "out" / "summary.csv").exists()


def test_some_failed_is_3_and_each_is_a_line_on_stderr(repository: Path, tmp_path: Path, stand_in: list[Any]) -> None:
    save_picture(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"x")

    done = call(repository, tmp_path / "in", "-o", tmp_path / "out")

    assert done.exit_code == 3
    assert "FAILED bad.png: unknown_format: the file is of no format that can be read" in done.stderr
    assert "FAILED" not in done.stdout


def test_something_flagged_is_3(repository: Path, tmp_path: Path, stand_in: list[Any]) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "in" / "dark.png")

    done = call(repository, tmp_path / "in", "-o", tmp_path / "out")

    assert done.exit_code == 3
    assert "flagged dark.png: empty_mask" in done.stderr


def test_outputs_that_an_input_cannot_have_are_said_and_flag_nothing(
    repository: Path, tmp_path: Path, stand_in: list[Any]
) -> None:
    save_picture(tmp_path / "in" / "a.png")

    done = call(repository, tmp_path / "in", "-o", tmp_path / "out", "--outputs", "mask, seg")

    assert done.exit_code == 0, done.output
    assert entries_of(tmp_path / "out")["a.png"].flags == ("not_written:seg",)


def test_a_bundle_says_when_its_results_are_flagged(
    repository: Path, tmp_path: Path, stand_in: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_picture(tmp_path / "in" / "a.png")
    monkeypatch.setattr(ThresholdPredictor, "metadata", {"quality_limits": {"low_confidence": 0.95}})

    done = call(repository, tmp_path / "in", "-o", tmp_path / "out")

    assert done.exit_code == 3
    assert entries_of(tmp_path / "out")["a.png"].flags == ("low_confidence",)


def test_thumbnails_can_be_left_out(repository: Path, tmp_path: Path, stand_in: list[Any]) -> None:
    save_picture(tmp_path / "in" / "a.png")

    call(repository, tmp_path / "in", "-o", tmp_path / "out", "--no-thumbnails")

    assert [output.kind for output in entries_of(tmp_path / "out")["a.png"].outputs] == ["mask", "stats"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--outputs", "mask,nothing"], "outputs are one or more of"),
        (["--outputs", ","], "outputs are one or more of"),
        (["--part", "3/2"], "part 3/2"),
        (["--part", "a"], "expected I/N"),
        (["--threshold", "1.5"], "between 0 and 1"),
        (["--limits", "bytes=3"], "limits may hold file_bytes"),
        (["--limits", "frames=many"], "limit frames must be a whole number"),
        (["--limits", "frames=0"], "limit frames must be a whole number"),
        (["--limits", "/no/such/file"], "cannot be read as JSON"),
        (["--series-rules", "/no/such/file"], "cannot be read as JSON"),
        (["--set", "threshold"], "expected KEY=VALUE"),
    ],
)
def test_wrong_use_is_2_and_writes_nothing(
    repository: Path, tmp_path: Path, stand_in: list[Any], arguments: list[str], said: str
) -> None:
    save_picture(tmp_path / "in" / "a.png")

    done = call(repository, tmp_path / "in", "-o", tmp_path / "out", *arguments)

    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_with_results_and_no_inputs_are_wrong_use(
    repository: Path, tmp_path: Path, stand_in: list[Any]
) -> None:
    save_picture(tmp_path / "in" / "a.png")
    call(repository, tmp_path / "in", "-o", tmp_path / "out")

    assert call(repository, tmp_path / "in", "-o", tmp_path / "out").exit_code == 2
    assert call(repository, tmp_path / "*.png", "-o", tmp_path / "new").exit_code == 2
    assert call(repository, tmp_path / "in", "-o", tmp_path / "out", "--resume").exit_code == 0
    assert call(repository, tmp_path / "in", "-o", tmp_path / "out", "--resume", "--tta").exit_code == 2


def test_a_run_that_stops_is_1(
    repository: Path, tmp_path: Path, stand_in: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_picture(tmp_path / "in" / "a.png")

    def full(*arguments: Any) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr("msrf_monai.clinical.execution.local.LocalRun.run", full)
    done = call(repository, tmp_path / "in", "-o", tmp_path / "out", "--json")

    assert done.exit_code == 1
    assert "error: the disk is full" in done.stderr
    assert json.loads(done.stdout) == {"error": "the disk is full", "exit_code": 1}


def test_what_nobody_foresaw_is_1_and_quotes_nothing(
    repository: Path, tmp_path: Path, stand_in: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_picture(tmp_path / "in" / "a.png")

    def fail(*arguments: Any) -> None:
        raise RuntimeError("SECRET")

    monkeypatch.setattr("msrf_monai.clinical.execution.local.LocalRun.run", fail)
    done = call(repository, tmp_path / "in", "-o", tmp_path / "out")
    monkeypatch.setattr(sys, "argv", ["msrf-monai", "--debug", "predict"])
    debugged = call(repository, tmp_path / "in", "-o", tmp_path / "out", "--resume")

    assert (done.exit_code, debugged.exit_code) == (1, 1)
    assert "an unforeseen RuntimeError ended the run" in done.stderr
    assert "test_batch_command.py" in debugged.stderr
    assert "SECRET" not in done.output + debugged.output


def test_json_is_one_object_on_stdout(repository: Path, tmp_path: Path, stand_in: list[Any]) -> None:
    good_pictures(tmp_path / "in", 2)

    done = call(repository, tmp_path / "in", "-o", tmp_path / "out", "--json", "--quiet")

    found = json.loads(done.stdout)
    assert done.stderr == ""
    assert (found["done"], found["failed"], found["exit_code"]) == (2, 0, 0)


def test_quiet_says_nothing_when_all_is_well(repository: Path, tmp_path: Path, stand_in: list[Any]) -> None:
    good_pictures(tmp_path / "in", 1)

    done = call(repository, tmp_path / "in", "-o", tmp_path / "out", "--quiet")

    assert (done.stdout, done.stderr) == ("", "")


def test_options_reach_the_predictor(repository: Path, tmp_path: Path, stand_in: list[Any]) -> None:
    save_picture(tmp_path / "in" / "a.png")
    words = ["--device", "cpu", "--tta", "--threshold", "0.4", "--threads", "1", "--outputs", "mask,prob"]
    words += ["--set", "network_def#features=8", "--set", "name=text", "--backend", "torchscript"]

    call(repository, tmp_path / "in", "-o", tmp_path / "out", *words)

    (options,) = stand_in
    assert (options.device, options.tta, options.threshold, options.num_threads) == ("cpu", True, 0.4, 1)
    assert (options.backend, options.keep_probabilities) == ("torchscript", True)
    assert options.overrides == (("network_def::features", 8), ("name", "text"))


def test_a_dry_run_says_what_and_why_and_does_nothing(repository: Path, tmp_path: Path) -> None:
    folder = good_pictures(tmp_path / "in", 1)
    (folder / "bad.png").write_bytes(b"x")
    (folder / "DOE.dcm").write_bytes(as_bytes(image_dataset(pattern(), Modality="US")))
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps({"selections": [{"name": "ct only", "conditions": {"Modality": "CT"}}]}))
    arguments = [folder, "-o", tmp_path / "out", "--series-rules", rules, "--dry-run"]

    done = call(repository, *arguments)
    found = json.loads(call(repository, *arguments, "--json").stdout)

    assert done.exit_code == 3
    assert "predict image0000.png (raster, 24 x 32, 1 images): mask, stats in image0000-" in done.stdout
    assert "refuse bad.png: unknown_format" in done.stdout
    assert "not_selected: no selection holds: 'ct only' fails at Modality" in done.stdout
    assert "DOE" not in done.output
    assert [each["action"] for each in found["inputs"]] == ["refuse", "predict", "skip"]
    assert found["bundle"] == "MSRF-Net polyp segmentation"
    assert not (tmp_path / "out").exists()


def test_a_dry_run_loads_no_torch(repository: Path, tmp_path: Path) -> None:
    good_pictures(tmp_path / "in", 1)
    program = (
        "import sys\nfor name in ('torch', 'monai', 'highdicom'):\n    sys.modules[name] = None\n"
        "from msrf_monai.cli.main import main\nmain()"
    )
    arguments = ["predict", repository / BUNDLE, tmp_path / "in", "--output", tmp_path / "out", "--dry-run"]

    done = subprocess.run([sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert "1 inputs for MSRF-Net polyp segmentation" in done.stdout


def test_a_bundle_that_is_none_is_wrong_use(tmp_path: Path) -> None:
    save_picture(tmp_path / "in" / "a.png")

    done = CliRunner().invoke(app, [str(tmp_path), str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--dry-run"])

    assert done.exit_code == 2
    assert "give the folder of a MONAI bundle" in done.stderr


def test_a_run_that_is_told_to_end_leaves_whole_results(tmp_path: Path) -> None:
    for number in range(3):
        dataset = image_dataset(pattern(20, 30, peak=100 + number))
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number + 1}"
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{number}.dcm").write_bytes(as_bytes(dataset))
    program = (
        "import os, signal, sys\n"
        "import msrf_monai.clinical.execution.engines as engines\n"
        "from support.clinical_runs import ThresholdPredictor\n"
        "class Ending(ThresholdPredictor):\n"
        "    count = 0\n"
        "    def infer(self, item):\n"
        "        Ending.count += 1\n"
        "        if Ending.count == 3: os.kill(os.getpid(), signal.SIGTERM)\n"
        "        return super().infer(item)\n"
        "engines.load_predictor = lambda bundle, settings: Ending()\n"
        "from msrf_monai.cli.main import main\nmain()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    arguments = ["predict", "none", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--outputs", "mask,stats"]

    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, env=environment)

    assert done.returncode == 1, done.stderr
    assert "go on with --resume" in done.stderr
    assert done.returncode != -signal.SIGTERM
    entries = read_manifest(tmp_path / "out").entries
    assert len(entries) <= 2
    assert all(entry.state == "done" for entry in entries)
