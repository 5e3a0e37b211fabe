"""A run in worker processes leaves the same files as one in this process, whatever their number."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from msrf_monai.clinical.execution.worker_handle import Processes
from msrf_monai.clinical.execution.worker_pool import worker_threads
from msrf_monai.clinical.ledger import Entry, read_manifest
from msrf_monai.clinical.pipeline import PredictionRun, predict
from msrf_monai.clinical.run_options import RunOptions
from msrf_monai.clinical.sources import SOURCES
from msrf_monai.errors import CheckpointError, ConfigError, EngineError, StorageError
from support.bad_inputs import LIMITS, make_bad_inputs
from support.clinical_runs import ThresholdPredictor, good_pictures, result_bytes
from support.clinical_workers import PROGRAM, children, load, stub_bundle
from support.dicom_files import as_bytes, image_dataset, pattern
from support.volume_files import save_dicom_series, scan_values

FEW = {"outputs": ("mask", "stats"), "report": False}


@pytest.fixture(autouse=True)
def _stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msrf_monai.clinical.execution.worker_handle.PROGRAM", PROGRAM)
    monkeypatch.setattr("msrf_monai.clinical.execution.engines.load_predictor", load)


def dicom_files(folder: Path, count: int) -> Path:
    """Images that need neither torch nor a decoder."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        dataset = image_dataset(pattern(20, 30, peak=120 + number), InstanceNumber=number)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number + 1}"
        (folder / f"{number}.dcm").write_bytes(as_bytes(dataset))
    return folder


def told(output: Path) -> dict[str, Any]:
    """Return what a manifest says, without the seconds."""
    manifest = read_manifest(output)
    return {entry.folder: {**vars(entry), "timings": None} for entry in manifest.entries} | {"": manifest.header}


def mixed_inputs(folder: Path) -> Path:
    """DICOM images, a clip, a volume, and bad files of every kind: what needs no torch to be read."""
    dicom_files(folder, 4)
    clip = image_dataset(np.arange(600, dtype=np.uint8).reshape(3, 10, 20))
    clip.SOPInstanceUID = clip.file_meta.MediaStorageSOPInstanceUID = "2.25.77"
    (folder / "clip.dcm").write_bytes(as_bytes(clip))
    uids = {"StudyInstanceUID": "2.25.500", "FrameOfReferenceUID": "2.25.501"}
    save_dicom_series(folder / "ct", scan_values(), **uids)
    save_dicom_series(folder / "unwritable", scan_values(seed=1))
    make_bad_inputs(folder / "bad")
    for path in (folder / "bad").glob("*.png"):
        if path.is_file() and path.stat().st_size > 100:
            path.unlink()
    return folder


def assert_same_results(one: Path, other: Path) -> None:
    expected, found = result_bytes(one), result_bytes(other)
    assert found.keys() == expected.keys()
    # these two hold the seconds
    assert {name for name in expected if found[name] != expected[name]} <= {"report.html", "summary.csv"}
    assert told(other) == told(one)
    lines = [(folder / SOURCES).read_text().splitlines() for folder in (one, other)]
    assert sorted(lines[0]) == sorted(lines[1])


@pytest.mark.slow
def test_mixed_inputs_give_the_same_bytes_whatever_the_number_of_workers(tmp_path: Path) -> None:
    inputs, bundle = mixed_inputs(tmp_path / "in"), stub_bundle(tmp_path / "bundle")
    options: dict[str, Any] = {"outputs": ("mask", "seg", "stats", "prob"), "limits": LIMITS}

    results = [predict(bundle, inputs, tmp_path / f"{n}", num_workers=n, **options) for n in (0, 1, 2)]

    assert results[0].done == 6
    assert results[0].failed > 10
    assert results == [results[0]] * 3
    for workers in ("1", "2"):
        assert_same_results(tmp_path / "0", tmp_path / workers)
    assert children() == []


@pytest.mark.slow
def test_pictures_and_a_slide_give_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs", reason="pip install 'msrf-monai[slides]' brings it")
    from support.slide_files import stained, write_tiff

    inputs, bundle = good_pictures(tmp_path / "in", 5), stub_bundle(tmp_path / "bundle")
    write_tiff(inputs / "slide.tif", stained(150, 210))

    results = [predict(bundle, inputs, tmp_path / f"{n}", num_workers=n, report=False) for n in (0, 2)]

    assert (results[0].done, results[0].failed) == (6, 0)
    assert results[1] == results[0]
    assert_same_results(tmp_path / "0", tmp_path / "2")


def test_either_way_goes_on_where_the_other_has_stopped(tmp_path: Path) -> None:
    inputs, bundle = dicom_files(tmp_path / "in", 6), stub_bundle(tmp_path / "bundle")
    (inputs / "bad.dcm").write_bytes(b"no DICOM")
    predict(bundle, inputs, tmp_path / "out", num_workers=1, part=(1, 2), **FEW)
    before = len(read_manifest(tmp_path / "out").entries)

    here = predict(bundle, inputs, tmp_path / "out", resume=True, **FEW)
    (inputs / "3.dcm").write_bytes((inputs / "3.dcm").read_bytes().replace(b"2.25.4", b"2.25.9"))
    dicom = dcmread(inputs / "2.dcm")
    dicom.PixelData = bytes(reversed(dicom.PixelData))
    dicom.save_as(inputs / "2.dcm")
    there = predict(bundle, inputs, tmp_path / "out", num_workers=1, resume=True, **FEW)

    assert 0 < before < 7
    assert (here.done, here.failed, here.kept) == (6, 1, before)
    assert (there.done, there.failed, there.kept) == (6, 1, 5)
    attempts = [entry.attempt for entry in read_manifest(tmp_path / "out").entries if entry.state == "done"]
    # what 3.dcm was is another object, whose result stays
    assert sorted(attempts) == [1, 1, 1, 1, 1, 1, 2]


def test_workers_stay_for_the_next_batch(tmp_path: Path) -> None:
    first, second = dicom_files(tmp_path / "a", 3), dicom_files(tmp_path / "b", 5)
    bundle, settings = stub_bundle(tmp_path / "bundle"), RunOptions(num_workers=1, **FEW)

    with PredictionRun(bundle, tmp_path / "out", settings) as run:
        one = run.do([first])
        before = children()
        two = run.do([second])
        after = children()

    assert (one.counted.done, two.counted.done) == (3, 5)
    assert (one.kept, two.kept) == (0, 3)
    assert before == after
    assert len(after) == 1
    assert children() == []


def test_a_full_disk_in_a_worker_stops_the_run_and_loses_nothing(tmp_path: Path) -> None:
    inputs = dicom_files(tmp_path / "in", 8)
    predict(stub_bundle(tmp_path / "bundle"), inputs, tmp_path / "whole", **FEW)

    with pytest.raises(StorageError, match=r"the disk is full at .* the run has stopped"):
        predict(stub_bundle(tmp_path / "bad", full_after=20), inputs, tmp_path / "out", num_workers=1, **FEW)

    kept = result_bytes(tmp_path / "out")
    whole = result_bytes(tmp_path / "whole")
    assert kept.items() <= whole.items()
    assert 0 < len(read_manifest(tmp_path / "out").entries) < 8
    found = predict(tmp_path / "bundle", inputs, tmp_path / "out", num_workers=1, resume=True, **FEW)
    assert (found.done, found.kept > 0) == (8, True)
    assert result_bytes(tmp_path / "out") == whole
    assert children() == []


def test_what_stops_a_worker_from_loading_is_said_as_it_is(tmp_path: Path) -> None:
    inputs = dicom_files(tmp_path / "in", 1)
    fails = ["CheckpointError", "the weights do not fit the network"]

    with pytest.raises(CheckpointError, match=r"^the weights do not fit the network$"):
        predict(stub_bundle(tmp_path / "b", fails=fails), inputs, tmp_path / "out", num_workers=2, **FEW)
    with pytest.raises(EngineError, match="unforeseen RuntimeError") as unforeseen:
        predict(stub_bundle(tmp_path / "c", fails=["", "SECRET"]), inputs, tmp_path / "out", num_workers=1, **FEW)

    assert "SECRET" not in str(unforeseen.value)
    assert children() == []


def test_a_predictor_that_is_loaded_already_cannot_go_to_workers(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be sent to other processes; give the bundle's folder"):
        predict(ThresholdPredictor(), dicom_files(tmp_path / "in", 1), tmp_path / "out", num_workers=1)
    with pytest.raises(ConfigError, match="num_workers must be at least 1"):
        RunOptions(num_workers=-1)


def test_processors_are_shared_among_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)))

    assert worker_threads(RunOptions(), Processes(), 3) == 2
    assert worker_threads(RunOptions(), Processes(), 20) == 1
    assert worker_threads(RunOptions(num_threads=5), Processes(), 3) == 5
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert worker_threads(RunOptions(), Processes(), 2) == 3


def test_what_workers_log_comes_here_and_names_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "msrf_monai")
    (tmp_path / "in").mkdir()
    content = as_bytes(image_dataset(pattern(20, 30), PatientName="DOE^JOHN"))
    (tmp_path / "in" / "DOE.dcm").write_bytes(content)
    bundle = stub_bundle(tmp_path / "bundle", raises_rows=20)

    predict(bundle, tmp_path / "in", tmp_path / "out", num_workers=1, **FEW)

    (entry,) = read_manifest(tmp_path / "out").entries
    assert isinstance(entry, Entry)
    assert entry.code == "read_failed"
    said = [record for record in caplog.records if record.name == "msrf_monai.clinical.execution.opening"]
    assert any("clinical_workers.py" in record.getMessage() for record in said)
    assert "DOE" not in caplog.text + json.dumps(vars(entry), default=str)
