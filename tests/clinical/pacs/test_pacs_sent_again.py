"""An object that is sent again: its old result goes when the new one cannot be read, and the failure is in sight."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from msrf_monai.clinical.ledger import Entry
from msrf_monai.clinical.pacs.inbox import Inbox
from msrf_monai.clinical.pacs.service import Service, ServiceOptions
from msrf_monai.clinical.pipeline import PredictionRun
from msrf_monai.clinical.run_options import RunOptions
from support.clinical_runs import ThresholdPredictor, entries_of
from support.dicom_files import as_bytes, image_dataset, pattern

STUDY, INSTANCE = "2.25.31", "2.25.32"


def objects() -> dict[str, bytes]:
    """The same object as it was first, and what may come under its UIDs later."""
    header: Any = image_dataset(pattern(20, 30))
    good = as_bytes(header)
    other = as_bytes(image_dataset(pattern(20, 30, peak=90)))
    header.BitsStored = 40
    return {
        "good": good,
        "cut short": good[:-200],
        "wrong header": as_bytes(header),
        "no DICOM": b"x" * 1000,
        "other pixels": other,
    }


OBJECTS = objects()


class Station:
    """A result folder and an inbox; each study that arrives is predicted at once."""

    def __init__(self, folder: Path, source_list: bool) -> None:
        self.output = folder / "out"
        self.inbox = Inbox(folder / "in")
        self.settings = RunOptions(resume=True, source_list=source_list, outputs=("mask",), report=False)

    def receive(self, *contents: bytes) -> dict[str, Entry]:
        """Take contents one after the other under the same UIDs, in a run of their own; return the manifest."""
        with PredictionRun(ThresholdPredictor(), self.output, self.settings) as run:  # type: ignore[arg-type]
            service = Service(run, self.inbox, None, ServiceOptions(), stop=threading.Event())
            for content in contents:
                self.inbox.store(content, study=STUDY, instance=INSTANCE)
                service.work(self.inbox.studies())
        return entries_of(self.output)

    def results(self) -> list[str]:
        """Names of the folders with results."""
        return sorted(path.name for path in self.output.iterdir() if path.is_dir())


@pytest.fixture(params=[True, False], ids=["with-list", "without-list"])
def station(request: pytest.FixtureRequest, tmp_path: Path) -> Station:
    return Station(tmp_path, request.param)


@pytest.mark.parametrize("runs", ["one-run", "two-runs"])
@pytest.mark.parametrize("kind", ["cut short", "wrong header", "no DICOM"])
def test_an_object_that_has_become_unreadable_takes_its_old_result_away(station: Station, kind: str, runs: str) -> None:
    if runs == "one-run":
        entries = station.receive(OBJECTS["good"], OBJECTS[kind])
    else:
        station.receive(OBJECTS["good"])
        assert len(station.results()) == 1
        entries = station.receive(OBJECTS[kind])

    (old,) = [entry for entry in entries.values() if entry.input.startswith("dicom-")]
    (new,) = [entry for entry in entries.values() if entry.input.startswith("file-")]
    assert (old.state, old.code, old.outputs) == ("skipped", "superseded", ())
    assert new.folder in old.reason
    assert new.state == "failed"
    assert station.results() == []


def test_an_object_that_is_mended_afterwards_has_a_result_again(station: Station) -> None:
    entries = station.receive(OBJECTS["good"], OBJECTS["cut short"], OBJECTS["good"])

    states = {entry.input.partition("-")[0]: entry.state for entry in entries.values()}
    assert states == {"dicom": "done", "file": "skipped"}
    assert len(station.results()) == 1


def test_an_object_with_other_pixels_has_a_new_result_in_the_old_ones_place(station: Station) -> None:
    (first,) = station.receive(OBJECTS["good"]).values()
    (second,) = station.receive(OBJECTS["other pixels"]).values()

    assert (second.state, second.folder, second.attempt) == ("done", first.folder, 2)
    assert second.outputs != first.outputs
    assert station.results() == [first.folder]


def test_the_list_without_paths_holds_none(tmp_path: Path) -> None:
    Station(tmp_path, source_list=False).receive(OBJECTS["good"])

    text = (tmp_path / "out" / "sources.hashed.jsonl").read_text()
    assert not (tmp_path / "out" / "sources.private.jsonl").exists()
    assert ".dcm" not in text
    assert "/" not in text
    assert text.count("\n") == 1
