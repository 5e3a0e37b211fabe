"""Files of an earlier result that come again: it goes only when what it was made of has changed."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from msrf_monai.cli.predict import app
from msrf_monai.clinical import sent_again
from msrf_monai.clinical.ledger import Entry, read_manifest
from msrf_monai.clinical.pacs.inbox import Inbox
from msrf_monai.clinical.pacs.service import Service, ServiceOptions
from msrf_monai.clinical.pipeline import PredictionRun, predict
from msrf_monai.clinical.preview import preview
from msrf_monai.clinical.run_options import RunOptions
from support.clinical_runs import ThresholdPredictor, result_bytes, save_picture
from support.dicom_files import as_bytes, image_dataset, pattern
from support.volume_files import save_dicom_series

SLICES = 4


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    """The files of a clean volume; the study is the same, the frames differ."""
    values = np.arange(12 * 9 * SLICES, dtype=np.int16).reshape(12, 9, SLICES) * 2
    shared = {"StudyInstanceUID": "2.25.71", "FrameOfReferenceUID": "2.25.72"}
    return sorted(save_dicom_series(tmp_path / "series", values, **shared).iterdir())


@pytest.fixture(params=[True, False], ids=["with-list", "without-list"])
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"outputs": ("mask",), "report": False, "source_list": request.param}


def change(path: Path, **attributes: Any) -> None:
    """Give a file other pixels, and other attributes."""
    dataset = pydicom.dcmread(path)
    dataset.PixelData = bytes(len(dataset.PixelData))
    for name, value in attributes.items():
        setattr(dataset, name, value)
    if "SOPInstanceUID" in attributes:
        dataset.file_meta.MediaStorageSOPInstanceUID = attributes["SOPInstanceUID"]
    dataset.save_as(path, enforce_file_format=True)


def entries(output: Path) -> dict[str, Entry]:
    return {entry.folder: entry for entry in read_manifest(output).entries}


def volume_of(output: Path) -> Entry:
    (volume,) = [entry for entry in entries(output).values() if entry.frames == SLICES]
    return volume


class Sender:
    """Sends files to an inbox whose objects leave it when they are done, and has each delivery predicted."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.output = folder / "out"
        self._inbox = Inbox(folder / "inbox")
        self._settings = RunOptions(resume=True, **settings)

    def send(self, files: list[Path]) -> None:
        with PredictionRun(ThresholdPredictor(), self.output, self._settings) as run:  # type: ignore[arg-type]
            for path in files:
                uid = str(pydicom.dcmread(path).SOPInstanceUID)
                self._inbox.store(path.read_bytes(), study="2.25.71", instance=uid)
            Service(run, self._inbox, None, ServiceOptions(), stop=threading.Event()).work(self._inbox.studies())
        assert self._inbox.studies() == []


@pytest.fixture
def sender(tmp_path: Path, settings: dict[str, Any]) -> Sender:
    return Sender(tmp_path, settings)


@pytest.mark.parametrize("count", [1, 3], ids=["one-slice", "three-slices"])
def test_an_unchanged_part_of_a_volume_leaves_its_result_alone(sender: Sender, series: list[Path], count: int) -> None:
    sender.send(series)
    before, volume = result_bytes(sender.output), volume_of(sender.output)
    again = sorted(series, key=lambda path: float(pydicom.dcmread(path).ImagePositionPatient[2]))[:count]

    for _ in range(2):
        sender.send(again)

    (part,) = [entry for folder, entry in entries(sender.output).items() if folder != volume.folder]
    assert (part.state, part.code, part.attempt) == ("skipped", "already_in_volume", 1)
    assert volume.folder in part.reason
    assert volume_of(sender.output) == volume
    assert result_bytes(sender.output) == before


def test_a_changed_slice_takes_the_result_of_its_volume_away(sender: Sender, series: list[Path]) -> None:
    sender.send(series)
    volume = volume_of(sender.output)
    change(series[1])

    sender.send([series[0], series[1]])

    found = entries(sender.output)
    old = found.pop(volume.folder)
    assert (old.state, old.code, old.outputs) == ("skipped", "superseded", ())
    assert "have changed" in old.reason
    assert all(entry.state == "done" and entry.folder in old.reason for entry in found.values())
    assert found
    assert not (sender.output / volume.folder).exists()


def test_a_slice_that_has_become_no_dicom_takes_the_result_of_its_volume_away(
    series: list[Path], tmp_path: Path, settings: dict[str, Any]
) -> None:
    predict(ThresholdPredictor(), series[0].parent, tmp_path / "out", **settings)
    volume = volume_of(tmp_path / "out")
    series[2].write_bytes(b"x" * 500)

    predict(ThresholdPredictor(), series[2], tmp_path / "out", resume=True, **settings)

    assert entries(tmp_path / "out")[volume.folder].code == "superseded"


def test_a_volume_that_comes_again_whole_is_done_in_its_place(sender: Sender, series: list[Path]) -> None:
    sender.send(series)
    first = volume_of(sender.output)
    sender.send(series)
    assert volume_of(sender.output) == first
    change(series[0])

    sender.send(series)

    (second,) = entries(sender.output).values()
    assert (second.folder, second.state, second.attempt) == (first.folder, "done", 2)
    assert second.digest != first.digest


def test_a_part_is_compared_with_the_latest_content(sender: Sender, series: list[Path]) -> None:
    sender.send(series)
    older = series[0].read_bytes()
    change(series[0])
    sender.send(series)
    volume = volume_of(sender.output)
    sender.send([series[0]])
    assert volume_of(sender.output) == volume
    series[0].write_bytes(older)

    sender.send([series[0]])

    assert entries(sender.output)[volume.folder].code == "superseded"


def test_a_volume_with_one_more_slice_takes_the_place_of_the_shorter_one(sender: Sender, series: list[Path]) -> None:
    in_order = sorted(series, key=lambda path: float(pydicom.dcmread(path).ImagePositionPatient[2]))
    sender.send(in_order[:-1])

    sender.send(in_order)

    found = entries(sender.output)
    (short,) = [entry for entry in found.values() if entry.code == "superseded"]
    assert volume_of(sender.output).folder in short.reason
    assert "make other inputs" in short.reason


def test_one_file_of_a_folder_that_was_predicted_whole(
    series: list[Path], tmp_path: Path, settings: dict[str, Any]
) -> None:
    folder, output = series[0].parent, tmp_path / "out"
    predict(ThresholdPredictor(), folder, output, **settings)
    before = result_bytes(output)

    (foreseen,) = preview([series[0]], output, resume=True, **settings)
    found = predict(ThresholdPredictor(), series[0], output, resume=True, **settings)
    after = predict(ThresholdPredictor(), folder, output, resume=True, **settings)

    assert (foreseen.action, foreseen.code) == ("skip", "already_in_volume")
    assert (found.done, found.failed, found.skipped) == (0, 0, 1)
    assert (after.done, after.kept) == (1, 1)
    assert result_bytes(output) == before
    assert sorted(entry.code for entry in entries(output).values()) == ["", "already_in_volume"]


def test_a_dry_run_tells_which_result_will_go(series: list[Path], tmp_path: Path, settings: dict[str, Any]) -> None:
    output = tmp_path / "out"
    predict(ThresholdPredictor(), series[0].parent, output, **settings)
    volume, before = volume_of(output), {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    change(series[1])

    *inputs, gone = preview([series[1]], output, resume=True, **settings)

    assert [each.action for each in inputs] == ["predict"]
    assert (gone.action, gone.folder, gone.code) == ("take back", volume.folder, "superseded")
    assert "have changed" in gone.reason
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    predict(ThresholdPredictor(), series[1], output, resume=True, **settings)
    assert entries(output)[volume.folder].code == "superseded"


def test_a_dry_run_in_json_keeps_results_and_inputs_apart(
    series: list[Path], tmp_path: Path, settings: dict[str, Any], repository: Path
) -> None:
    output, bundle = tmp_path / "out", repository / "bundles" / "msrf_net_polyp_segmentation"
    predict(ThresholdPredictor(), series[0].parent, output, **settings)
    volume = volume_of(output)
    change(series[1])
    listing = [] if settings["source_list"] else ["--no-source-list"]

    done = CliRunner().invoke(
        app, [str(bundle), str(series[1]), "-o", str(output), "--resume", "--dry-run", "--json", *listing]
    )

    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [each["action"] for each in told["inputs"]] == ["predict"]
    assert [each["folder"] for each in told["taken_back"]] == [volume.folder]


def test_what_is_known_of_a_series_is_asked_once(
    series: list[Path], tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_order = sorted(series, key=lambda path: float(pydicom.dcmread(path).ImagePositionPatient[2]))
    predict(ThresholdPredictor(), in_order[:-1], tmp_path / "out", **settings)
    asked, marks_of = [], sent_again.marks_of
    monkeypatch.setattr(sent_again, "marks_of", lambda planned: asked.append(planned.folder) or marks_of(planned))

    predict(ThresholdPredictor(), in_order, tmp_path / "out", resume=True, **settings)

    assert len(asked) == 1


def test_another_object_under_a_path_that_is_used_again(tmp_path: Path, settings: dict[str, Any]) -> None:
    path, output = tmp_path / "usb" / "IM0001", tmp_path / "out"
    path.parent.mkdir()
    path.write_bytes(as_bytes(image_dataset(pattern(20, 30))))
    predict(ThresholdPredictor(), path.parent, output, **settings)
    first = result_bytes(output)
    change(path, SOPInstanceUID="2.25.81", StudyInstanceUID="2.25.82", SeriesInstanceUID="2.25.83")

    predict(ThresholdPredictor(), path.parent, output, resume=True, **settings)

    assert [entry.state for entry in entries(output).values()] == ["done", "done"]
    assert first.items() <= result_bytes(output).items()


def test_another_volume_under_the_paths_of_the_first(
    series: list[Path], tmp_path: Path, settings: dict[str, Any]
) -> None:
    output = tmp_path / "out"
    predict(ThresholdPredictor(), series[0].parent, output, **settings)
    first = result_bytes(output)
    for number, path in enumerate(series):
        change(path, SOPInstanceUID=f"2.25.9{number}", SeriesInstanceUID="2.25.83")

    predict(ThresholdPredictor(), series[0].parent, output, resume=True, **settings)

    assert [(entry.state, entry.frames) for entry in entries(output).values()] == [("done", SLICES)] * 2
    assert first.items() <= result_bytes(output).items()


def test_a_picture_under_the_path_of_an_object_is_another_input(tmp_path: Path, settings: dict[str, Any]) -> None:
    path, output = tmp_path / "usb" / "IM0001", tmp_path / "out"
    path.parent.mkdir()
    path.write_bytes(as_bytes(image_dataset(pattern(20, 30))))
    predict(ThresholdPredictor(), path, output, **settings)
    shutil.copy(save_picture(tmp_path / "a.png"), path)

    predict(ThresholdPredictor(), path, output, resume=True, **settings)

    assert [entry.state for entry in entries(output).values()] == ["done", "done"]
