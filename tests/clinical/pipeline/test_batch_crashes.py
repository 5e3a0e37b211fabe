"""An input that brings the whole process down is found out and left alone, and all others are done."""

from __future__ import annotations

import faulthandler
import json
import signal
from pathlib import Path

import pytest

from msrf_monai.clinical.crashes import CRASH, JOURNAL, CrashJournal
from msrf_monai.clinical.ledger import read_manifest
from support.clinical_runs import run_in_process
from support.dicom_files import as_bytes, image_dataset, pattern

POISON = """
class Fragile(ThresholdPredictor):
    def prepare(self, case, index):
        if case.info.rows == 22:
            os.abort()
        return super().prepare(case, index)

class ThresholdPredictor(Fragile):
    pass
"""


def dicom_file(path: Path, number: int, rows: int) -> None:
    dataset = image_dataset(pattern(rows, 30))
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number + 1}"
    path.write_bytes(as_bytes(dataset))


def test_the_poisoned_input_of_many_is_refused_and_the_others_are_done(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(6):
        dicom_file(tmp_path / "in" / f"{number}.dcm", number, 22 if number == 3 else 20)
    options = {"outputs": ["mask"], "watch_crashes": True, "resume": True, "readers": 2}

    ends = [run_in_process(tmp_path / "in", tmp_path / "out", POISON, **options) for _ in range(4)]

    assert [done.returncode for done in ends[:2]] == [-signal.SIGABRT] * 2
    assert [done.returncode for done in ends[2:]] == [0, 0], ends[2].stderr
    counted = json.loads(ends[2].stdout)
    assert (counted["done"], counted["failed"]) == (5, 1)
    assert json.loads(ends[3].stdout)["kept"] == 6
    (failed,) = [entry for entry in read_manifest(tmp_path / "out").entries if entry.state == "failed"]
    assert failed.code == "crashed"
    assert failed.digest
    assert not (tmp_path / "out" / JOURNAL).exists()
    assert not (tmp_path / "out" / CRASH).exists()


def crash(folder: Path, *in_work: str) -> CrashJournal:
    """Leave a folder as a process does that broke down with some inputs in work."""
    journal = CrashJournal(folder)
    for name in in_work:
        journal.begin(name)
    (folder / CRASH).write_text("Fatal Python error: Aborted")
    return CrashJournal(folder)


def test_of_several_inputs_in_work_each_is_a_suspect(tmp_path: Path) -> None:
    journal = crash(tmp_path, "a", "b")

    assert (journal.suspects, journal.culprits) == ({"a", "b"}, set())


def test_an_input_alone_in_work_is_the_culprit_until_it_is_finished(tmp_path: Path) -> None:
    crash(tmp_path, "a", "b")

    journal = crash(tmp_path, "b")
    (tmp_path / CRASH).unlink()
    later = CrashJournal(tmp_path)
    later.end("b")

    assert (journal.suspects, journal.culprits) == ({"a"}, {"b"})
    assert (later.suspects, later.culprits) == ({"a"}, {"b"})
    assert CrashJournal(tmp_path).culprits == set()


def test_an_input_that_was_begun_again_is_in_work_again(tmp_path: Path) -> None:
    journal = CrashJournal(tmp_path)
    journal.begin("a")
    journal.end("a")
    journal.begin("a")
    (tmp_path / CRASH).write_text("Fatal Python error: Aborted")

    assert CrashJournal(tmp_path).culprits == {"a"}


def test_a_process_that_was_killed_from_outside_accuses_nobody(tmp_path: Path) -> None:
    journal = CrashJournal(tmp_path)
    journal.begin("a")

    assert CrashJournal(tmp_path).suspects == set()


def test_a_run_that_ends_leaves_no_trace(tmp_path: Path) -> None:
    journal = CrashJournal(tmp_path)
    before = faulthandler.is_enabled()
    with journal.watching():
        journal.begin("a")
        assert (tmp_path / CRASH).exists()
        assert faulthandler.is_enabled()

    assert list(tmp_path.iterdir()) == []
    assert faulthandler.is_enabled() <= before


def test_a_run_that_is_ended_by_an_error_keeps_what_it_knew(tmp_path: Path) -> None:
    journal = crash(tmp_path, "a", "b")

    def fail() -> None:
        with journal.watching():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()

    assert CrashJournal(tmp_path).suspects == {"a", "b"}
