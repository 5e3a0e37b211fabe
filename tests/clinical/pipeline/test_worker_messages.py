"""What goes to a worker and comes back is the same at both ends, and is JSON."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from msrf_monai.clinical.execution.messages import (
    decode,
    encode,
    entry_from,
    entry_message,
    input_from,
    input_message,
    options_from,
    options_message,
)
from msrf_monai.clinical.inputs import InputOptions, PlannedInput, plan_inputs
from msrf_monai.clinical.ledger import Entry, OutputRecord
from msrf_monai.clinical.reading import Limits, RefusalCode, RefusedInput
from msrf_monai.clinical.run_options import RunOptions
from msrf_monai.errors import ConfigError
from support.clinical_runs import save_picture
from support.dicom_files import as_bytes, image_dataset, pattern
from support.volume_files import save_dicom_series, scan_values


def sent(planned: PlannedInput, limits: Limits | None = None) -> PlannedInput:
    return input_from(decode(encode(input_message(planned))), limits or Limits())


def assert_same(planned: PlannedInput, got: PlannedInput) -> None:
    assert replace(got, refusal=None) == replace(planned, refusal=None)
    if planned.refusal is not None:
        assert got.refusal is not None
        assert (got.refusal.code, got.refusal.sentence) == (planned.refusal.code, planned.refusal.sentence)


def test_an_image_and_a_volume_arrive_with_all_that_is_known_of_them(tmp_path: Path) -> None:
    save_dicom_series(tmp_path / "ct", scan_values())
    (tmp_path / "clip.dcm").write_bytes(as_bytes(image_dataset(np.arange(600, dtype=np.uint8).reshape(3, 10, 20))))
    planned = plan_inputs([tmp_path], InputOptions())

    for each in planned:
        got = sent(each)
        assert_same(each, got)
        assert each.case is not None
        assert got.case is not None
        assert got.case.info == each.case.info
        for here, there in zip(each.case.iter_frames(), got.case.iter_frames(), strict=True):
            assert here.dtype == there.dtype
            assert np.array_equal(here, there)
    assert sorted(each.frames for each in planned) == [3, 4]


def test_slices_of_different_types_become_one_volume_as_before(tmp_path: Path) -> None:
    folder = save_dicom_series(tmp_path / "ct", scan_values(), RescaleSlope=1, RescaleIntercept=0)
    first = sorted(folder.iterdir())[0]
    dataset = dcmread(first)
    dataset.RescaleSlope, dataset.RescaleIntercept = "1.5", "0.25"
    dataset.save_as(first)
    (volume,) = plan_inputs([folder], InputOptions())
    got = sent(volume)

    assert volume.case is not None
    assert got.case is not None
    assert len({kind for _, kind in input_message(volume)["case"]["slices"]}) == 2
    for here, there in zip(volume.case.iter_frames(), got.case.iter_frames(), strict=True):
        assert here.dtype == there.dtype == np.float32
        assert np.array_equal(here, there)


def test_a_file_that_has_changed_since_it_was_planned_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(as_bytes(image_dataset(pattern(20, 30))))
    (planned,) = plan_inputs([path], InputOptions())
    path.write_bytes(as_bytes(image_dataset(pattern(20, 30, peak=99))))
    got = sent(planned)

    assert got.case is not None
    with pytest.raises(RefusedInput) as refused:
        got.case.frame(0)
    assert refused.value.code == RefusalCode.CHANGED


def test_what_cannot_or_will_not_be_read_arrives_with_its_reason(tmp_path: Path) -> None:
    name = os.fsdecode(b"na\xefve.png")
    (tmp_path / name).write_bytes(b"")
    save_picture(tmp_path / "b.png")
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    planned = plan_inputs([tmp_path], InputOptions())

    for each in planned:
        assert_same(each, sent(each))
    assert {bool(each.refusal) for each in planned} == {True, False}
    assert any(each.skipped for each in planned)
    assert any(name in each.paths[0] for each in planned)


@pytest.mark.realdata
def test_every_sample_arrives_as_it_was_planned(data_root: Path) -> None:
    planned = plan_inputs([data_root / "dicom_samples"], InputOptions(slice_by_slice=True))

    for each in planned:
        assert_same(each, sent(each))
    assert sum(each.case is not None for each in planned) > 30


def test_a_line_comes_back_as_it_was() -> None:
    outputs = (OutputRecord("mask", "a/mask.png", "ab", 3),)
    entry = Entry("a", "a-1", "cd", "done", flags=("x",), outputs=outputs, timings={"read": 0.1}, frames=2, attempt=3)

    message = entry_message(entry)
    assert message is not None
    assert entry_from(decode(encode(message))) == entry
    assert entry_from(entry_message(None)) is None


def test_options_that_workers_need_arrive() -> None:
    settings = RunOptions(
        outputs=("mask", "prob"),
        device="cpu",
        tta=True,
        threshold=0.25,
        weights=Path("w/model.pt"),
        num_threads=2,
        overrides=(("image_size", [48, 32]), ("name", "x")),
        limits=Limits(frames=7),
        convert_unusual=True,
        thumbnails=False,
        readers=3,
    )

    assert options_from(decode(encode(options_message(settings)))) == settings


def test_every_option_is_sent_or_is_the_business_of_the_run_alone() -> None:
    """Who adds an option has to say whether workers need it."""
    alone = {
        "series_rules",
        "slice_by_slice",
        "hide_names",
        "part",
        "resume",
        "source_list",
        "num_workers",
        "engine",
        "ray_address",
        "watch_crashes",
        "report",
    }

    assert set(options_message(RunOptions())) | alone == {each.name for each in fields(RunOptions)}


def test_an_override_that_is_no_json_is_refused() -> None:
    with pytest.raises(ConfigError, match="overrides must be values that JSON can hold"):
        options_message(RunOptions(overrides=(("network", object()),)))
