"""Planted names, numbers and dates are in no log line, warning, file name, manifest or report."""

from __future__ import annotations

import logging
import threading
import warnings
from pathlib import Path

import pytest

from msrf_monai.clinical.pipeline import predict
from msrf_monai.clinical.privacy import PrivateLogs, where
from msrf_monai.clinical.result_folder import ResultFolder
from support.clinical_runs import PLANTED, ThresholdPredictor, planted_words, run_in_process, save_picture
from support.dicom_files import as_bytes, image_dataset, pattern

LEAKY = """
import logging, warnings
logging.basicConfig(level=logging.DEBUG)
warnings.simplefilter("always")

class Leaky(ThresholdPredictor):
    def prepare(self, case, index):
        logging.getLogger("anything").warning("reading %s of SECRET^NAME", case.sources[0])
        logging.getLogger("msrf_monai.anything").info("reading %s, frame %d", case.sources[0], index)
        warnings.warn(f"Invalid value for VR DA: '19500131' in {case.sources[0]}")
        if case.info.rows == 20:
            raise ValueError(f"cannot read {case.sources[0]} of SECRET^NAME 4711-0815")
        return super().prepare(case, index)

    def infer(self, item):
        warnings.warn("SECRET^NAME")
        try:
            raise KeyError("4711-0815")
        except KeyError:
            logging.getLogger("msrf_monai.anything").exception("caught")
        if item["pixels"].shape[0] == 22:
            raise RuntimeError("SECRET^NAME")
        return super().infer(item)

class ThresholdPredictor(Leaky):
    pass
"""


def test_nothing_planted_is_told_to_anyone(planted: Path) -> None:
    done = run_in_process(planted / "in", planted / "out", LEAKY, outputs=["mask", "seg", "stats"])

    assert done.returncode == 0, done.stderr
    assert '"done": 1' in done.stdout
    assert '"failed": 7' in done.stdout
    assert "a message (kept back)" in done.stderr
    assert planted_words(planted, done) == []


def test_the_result_itself_belongs_to_its_patient_and_the_list_to_its_owner(planted: Path) -> None:
    pytest.importorskip("highdicom", reason="pip install 'msrf-monai[clinical]' brings it")
    predict(ThresholdPredictor(), planted / "in", planted / "out", outputs=("mask", "seg"), report=False)

    segmentations = list((planted / "out").rglob("seg.dcm"))
    assert len(segmentations) == 3
    assert all(b"SECRET^NAME" in path.read_bytes() for path in segmentations)
    sources = planted / "out" / "sources.private.jsonl"
    assert sources.read_text().count("SECRET_FOLDER") == 8
    assert sources.stat().st_mode & 0o077 == 0


def test_names_of_pictures_can_be_hidden_too(tmp_path: Path) -> None:
    save_picture(tmp_path / "in" / "SECRET_19500131.png")
    (tmp_path / "in" / "SECRET_bad.png").write_bytes(b"no picture")

    shown = predict(ThresholdPredictor(), tmp_path / "in", tmp_path / "shown")  # type: ignore[arg-type]
    hidden = predict(  # type: ignore[arg-type]
        ThresholdPredictor(), tmp_path / "in", tmp_path / "hidden", hide_names=True, source_list=False
    )

    def told(folder: Path) -> str:
        files = [path for path in folder.rglob("*") if path.is_file()]
        return " ".join([*map(str, folder.rglob("*")), *(path.read_text("latin-1") for path in files)])

    assert (shown.done, shown.failed) == (hidden.done, hidden.failed) == (1, 1)
    assert "SECRET" in told(tmp_path / "shown")
    assert not any(word in told(tmp_path / "hidden") for word in PLANTED)


def test_the_list_of_sources_can_be_left_out(planted: Path) -> None:
    predict(ThresholdPredictor(), planted / "in", planted / "out", source_list=False, outputs=("mask",), report=False)

    assert not (planted / "out" / "sources.private.jsonl").exists()
    assert (planted / "out" / "manifest.jsonl").exists()


def test_hostile_names_and_tags_stay_in_the_result_folder(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in ("..%2f..%2fx.png", "-rf.png", "a;b.png", "=cmd().png", "<img src=x>.png", "x" * 200 + ".png"):
        save_picture(folder / name)
    dataset = image_dataset(pattern(20, 30), PatientID="../../../pwn", SeriesDescription="../../pwn\\x")
    (folder / "x.dcm").write_bytes(as_bytes(dataset))

    found = predict(ThresholdPredictor(), folder, tmp_path / "out", outputs=("mask", "stats"))

    assert found.done == 7
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}
    results = ResultFolder(tmp_path / "out")
    folders = [path for path in (tmp_path / "out").iterdir() if path.is_dir()]
    assert len(folders) == 7
    assert all(results.path_of(path.name) == path for path in folders)
    report = (tmp_path / "out" / "report.html").read_text()
    assert "<img src=x>" not in report


def test_log_lines_of_a_run_keep_their_format_and_their_numbers(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), PrivateLogs().active():
        logging.getLogger("msrf_monai.x").info("read %s, frame %d", "/in/SECRET.dcm", 7)
        logging.getLogger("msrf_monai.x").info("read %(name)s", {"name": "SECRET"})
        logging.getLogger("other").info("SECRET %s", "SECRET")

    assert caplog.messages == ["read (kept back), frame 7", "read (kept back)", "a message (kept back)"]


def test_exceptions_in_log_lines_keep_their_kind_and_their_lines_of_code(caplog: pytest.LogCaptureFixture) -> None:
    with PrivateLogs().active():
        try:
            raise ValueError("SECRET")
        except ValueError:
            logging.getLogger("msrf_monai.x").exception("failed")

    assert "ValueError" in caplog.text
    assert "test_batch_privacy.py" in caplog.text
    assert "SECRET" not in caplog.text


def test_warnings_of_a_run_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with PrivateLogs().active(), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning("SECRET", UserWarning, "file.py", 1)

    assert "SECRET" not in capsys.readouterr().err


def test_other_threads_and_times_speak_as_before(caplog: pytest.LogCaptureFixture) -> None:
    shown: list[str] = []
    before = warnings.showwarning
    with caplog.at_level(logging.INFO):
        private = PrivateLogs()
        with private.active():
            other = threading.Thread(target=lambda: logging.getLogger("other").info("the weather is %s", "fine"))
            other.start()
            other.join()
            inside = threading.Thread(
                target=lambda: (private.join(), logging.getLogger("other").info("the name is %s", "SECRET"))
            )
            inside.start()
            inside.join()
        logging.getLogger("other").info("afterwards %s", "all")
    shown += caplog.messages

    assert shown == ["the weather is fine", "a message (kept back)", "afterwards all"]
    assert warnings.showwarning is before


def test_where_an_error_was_is_told_without_its_text() -> None:
    try:
        raise ValueError("SECRET")
    except ValueError as error:
        told = where(error)

    assert told.endswith("ValueError")
    assert "in test_where_an_error_was_is_told_without_its_text" in told
    assert "SECRET" not in told
