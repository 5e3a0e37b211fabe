"""Segments from metadata, UIDs, spacing, sources and verified files."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from msrf_monai.clinical import Case, ImageInfo, SopReference
from msrf_monai.clinical.writing import (
    Code,
    DicomSource,
    Identity,
    Producer,
    Segment,
    build_capture,
    build_presentation,
    build_report,
    build_segmentation,
    segments_from_metadata,
    spacing_of,
    write_verified,
)
from msrf_monai.clinical.writing.finish import finish
from msrf_monai.errors import ConfigError, InputError, MissingExtraError, StorageError
from support.dicom_writing import PRODUCER, clip, photo, slices

SNOMED_CODES = [getattr(codes.SCT, name) for name in codes.SCT.dir()]
SNOMED = {(code.scheme_designator, code.value, code.meaning.lower()) for code in SNOMED_CODES}
CODED = {
    "labelID": 1,
    "SegmentLabel": "polyp",
    "SegmentedPropertyCategoryCodeSequence": {
        "CodeValue": "49755003",
        "CodingSchemeDesignator": "SCT",
        "CodeMeaning": "Morphologically Abnormal Structure",
    },
    "SegmentedPropertyTypeCodeSequence": {
        "CodeValue": "68496003",
        "CodingSchemeDesignator": "SCT",
        "CodeMeaning": "Polyp of colon",
    },
}


def test_importing_the_room_loads_no_optional_library():
    heavy = "('highdicom', 'torch', 'monai')"
    code = f"import sys, msrf_monai.clinical.writing; print([m for m in {heavy} if m in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_segments_come_from_the_coded_list():
    anatomy = {"CodeValue": "71854001", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Colon"}
    item = {**CODED, "AnatomicRegionSequence": anatomy, "recommendedDisplayRGBValue": [1, 2, 3]}

    (segment,) = segments_from_metadata({"segments": [item]})

    assert segment.kind == Code("68496003", "SCT", "Polyp of colon")
    assert segment.anatomy == Code("71854001", "SCT", "Colon")
    assert segment.rgb == (1, 2, 3)


def test_segments_fall_back_to_the_channels_coded_as_tissue():
    channels = {"1": "cup", "0": "background", "2": "disc"}
    metadata = {"network_data_format": {"outputs": {"pred": {"channel_def": channels}}}}

    segments = segments_from_metadata(metadata)

    assert [(s.number, s.label, s.kind.meaning) for s in segments] == [(1, "cup", "Tissue"), (2, "disc", "Tissue")]
    assert segments[0].rgb != segments[1].rgb


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"network_data_format": {"outputs": {"pred": {"channel_def": {"0": "background"}}}}},
        {"segments": [{**CODED, "labelID": 2}]},
        {"segments": [{"labelID": 1}]},
        {"segments": ["polyp"]},
        {"segments": [{**CODED, "SegmentLabel": "Größe"}]},
        {"segments": [{**CODED, "recommendedDisplayRGBValue": [1, 2, 300]}]},
        {"segments": [{**CODED, "SegmentedPropertyTypeCodeSequence": {"CodeValue": "1"}}]},
    ],
)
def test_metadata_that_does_not_say_what_the_mask_shows_is_refused(metadata):
    with pytest.raises(ConfigError):
        segments_from_metadata(metadata)


@pytest.mark.parametrize("text", ["", "two\\values", "x" * 65, "new\nline"])
def test_labels_that_dicom_cannot_hold_are_refused(text):
    with pytest.raises(ConfigError, match="label of a segment"):
        Segment(1, text)


def test_a_producer_without_a_name_is_refused():
    with pytest.raises(ConfigError, match="model of the producer"):
        Producer("", "1")


def test_repeatable_uids_are_alike_in_every_process():
    uid = Identity.repeatable(Producer("a model", "1.0", "ff")).uid("seg", "1.2.3")

    assert uid == "2.25.66605266916317381513357784217854313641"


def test_a_given_time_is_written():
    made = Dataset()
    made.SOPInstanceUID = "2.25.9"
    made.ContentDate = made.ContentTime = ""
    moment = datetime.datetime(2021, 3, 4, 5, 6, 7)

    finish(made, DicomSource.of_headers([photo()]), Identity.repeatable(PRODUCER, moment))

    assert (made.ContentDate, made.ContentTime, made.InstanceCreationDate) == ("20210304", "050607", "20210304")


def test_repeatable_objects_bear_the_time_of_their_source_or_none():
    dated, undated = photo(), photo()
    del undated.StudyDate
    made = [Dataset(), Dataset()]

    for one, header in zip(made, (dated, undated), strict=True):
        one.SOPInstanceUID = "2.25.9"
        finish(one, DicomSource.of_headers([header]), Identity.repeatable(PRODUCER))

    assert (made[0].InstanceCreationDate, made[0].InstanceCreationTime) == ("20200102", "030405")
    assert (made[1].InstanceCreationDate, made[1].InstanceCreationTime) == ("19000101", "000000")


def region(dx: float, dy: float, units: int = 3) -> Dataset:
    item = Dataset()
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = units
    item.PhysicalDeltaX, item.PhysicalDeltaY = dx, dy
    return item


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"PixelSpacing": [0.5, 0.25]}, (0.5, 0.25, True)),
        ({"PixelSpacing": [0.5, 0.25], "ImagerPixelSpacing": [1, 1]}, (0.5, 0.25, True)),
        ({"ImagerPixelSpacing": [0.15, 0.1]}, (0.15, 0.1, False)),
        ({"NominalScannedPixelSpacing": [0.2, 0.3]}, (0.2, 0.3, False)),
        ({"SequenceOfUltrasoundRegions": [region(0.02, 0.01)]}, (0.1, 0.2, True)),
        ({"SequenceOfUltrasoundRegions": [region(0.02, -0.01), region(9, 9, 4)]}, (0.1, 0.2, True)),
        ({"SequenceOfUltrasoundRegions": [region(0.02, 0.01), region(0.03, 0.01)]}, (1.0, 1.0, False)),
        ({"SequenceOfUltrasoundRegions": [region(0, 0)]}, (1.0, 1.0, False)),
        ({"PixelAspectRatio": [2, 1]}, (2.0, 1.0, False)),
        ({"PixelSpacing": [0, 0.1]}, (1.0, 1.0, False)),
        ({}, (1.0, 1.0, False)),
    ],
)
def test_spacing_and_whether_it_holds_in_the_patient(attributes, expected):
    header = photo()
    for name, value in attributes.items():
        setattr(header, name, value)

    spacing = spacing_of(header)

    assert (spacing.rows_mm, spacing.columns_mm, spacing.is_real) == pytest.approx(expected)
    assert (spacing.pixel_mm2 is None) == (not expected[2])


def broken(change) -> list[Dataset]:
    headers = slices(2)
    change(headers)
    return headers


def _no_place(headers: list[Dataset]) -> None:
    for header in headers:
        del header.ImagePositionPatient


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ([], "no DICOM header"),
        ([Dataset()], "lacks SOPClassUID"),
        (broken(_no_place), "make no volume"),
        (broken(lambda h: setattr(h[1], "SeriesInstanceUID", "2.25.99")), "differ in SeriesInstanceUID"),
        (broken(lambda h: setattr(h[1], "Rows", 14)), "differ in Rows"),
        (broken(lambda h: setattr(h[1], "SOPInstanceUID", h[0].SOPInstanceUID)), "same SOPInstanceUID"),
        (broken(lambda h: setattr(h[1], "NumberOfFrames", 2)), "several multi-frame"),
        (broken(lambda h: setattr(h[0], "TotalPixelMatrixColumns", 2)), "by tiles"),
    ],
)
def test_headers_that_make_no_single_source_are_refused(headers, message):
    with pytest.raises(InputError, match=message):
        DicomSource.of_headers(headers)


def test_layouts_are_told_apart():
    layouts = [DicomSource.of_headers(headers).layout for headers in ([photo()], [clip()], slices(), slices(1))]

    assert layouts == ["image", "clip", "slices", "slices"]


def case_of(path, header, **changes) -> Case:
    reference = SopReference(header.SOPClassUID, header.SOPInstanceUID, "2.25.12", "2.25.11")
    info = {"kind": "dicom", "rows": 13, "columns": 21, "sop": (reference,), **changes}
    return Case("00", (path,), ImageInfo(**info), pixels=SimpleNamespace(frame=None))


def test_a_case_is_read_again_and_brings_its_spacing(tmp_path):
    header = photo()
    header.save_as(tmp_path / "a.dcm", enforce_file_format=True)

    source = DicomSource.of_case(
        case_of(tmp_path / "a.dcm", header, spacing_mm=(0.3, 0.2), spacing_is_real=True, spacing_source="PixelSpacing")
    )

    assert source.instance_uids == (header.SOPInstanceUID,)
    assert source.spacing.pixel_mm2 == pytest.approx(0.06)


def test_a_case_that_is_another_object_by_now_is_refused(tmp_path):
    photo(number=2).save_as(tmp_path / "a.dcm", enforce_file_format=True)

    with pytest.raises(InputError, match="another object"):
        DicomSource.of_case(case_of(tmp_path / "a.dcm", photo(number=1)))


def test_a_case_without_dicom_headers_is_refused(tmp_path):
    with pytest.raises(InputError, match="no DICOM header"):
        DicomSource.of_case(case_of(tmp_path / "a.png", photo(), kind="raster"))


def test_a_file_is_kept_when_it_passes_its_check(tmp_path):
    seen = []

    kept = write_verified(tmp_path / "a.bin", b"content", seen.append, role="seg", instance_uid="1.2")

    assert (seen, kept.path.read_bytes(), kept.role, kept.instance_uid) == ([b"content"], b"content", "seg", "1.2")
    assert kept.sha256 == "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"


def test_a_file_that_fails_its_check_leaves_the_old_one_and_no_rest(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"old")

    def refuse(content: bytes) -> None:
        raise StorageError("changed")

    with pytest.raises(StorageError, match="changed"):
        write_verified(tmp_path / "a.bin", b"new", refuse)

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.bin": b"old"}


def test_bytes_that_the_disk_changed_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "pread", lambda descriptor, size, at: b"x" * size)

    with pytest.raises(StorageError, match="came back from the disk changed"):
        write_verified(tmp_path / "a.bin", b"content", lambda content: None)

    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(StorageError, match="No space left"):
        write_verified(tmp_path / "a.bin", b"content", lambda content: None)

    assert list(tmp_path.iterdir()) == []


def test_the_unreadable_is_left_out_by_name_only(caplog):
    header = photo()
    tag = pydicom.tag.Tag("PatientComments")
    header._dict[tag] = pydicom.dataelem.RawDataElement(tag, "FD", 6, b"SECRET", 0, False, True)
    made = Dataset()

    DicomSource.of_headers([header]).stamp(made)

    assert "PatientComments" not in made
    assert made.PatientName == "SECRET^NAME"
    assert "PatientComments of the source is not readable" in caplog.text
    assert "SECRET" not in caplog.text


def test_metadata_is_plain_json():
    assert segments_from_metadata(json.loads(json.dumps({"segments": [CODED]})))[0].colour is None
    assert np.uint8(segments_from_metadata({"segments": [CODED]})[0].rgb).shape == (3,)


def test_a_header_with_a_senseless_number_is_refused_without_quoting_it():
    header = photo()
    tag = pydicom.tag.Tag("NumberOfFrames")
    header._dict[tag] = pydicom.dataelem.RawDataElement(tag, "IS", 6, b"SECRET", 0, False, True)

    with pytest.raises(InputError, match="cannot read the source's header") as caught:
        DicomSource.of_headers([header])

    assert "SECRET" not in f"{caught.value}{caught.value.__cause__}"
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("bundle", "label", "meaning"),
    [
        ("msrf_net_polyp_segmentation", "polyp", "Polyp of colon"),
        ("ssr_unet_skin_lesion_segmentation", "lesion", "Skin lesion"),
        ("imff_net_retinal_vessel_segmentation", "vessel", "Blood vessel"),
        ("higmisnet_breast_ultrasound_segmentation", "lesion", "Lesion"),
    ],
)
def test_our_bundles_say_what_their_masks_show(repository, bundle, label, meaning):
    metadata = json.loads((repository / "bundles" / bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))

    (segment,) = segments_from_metadata(metadata)

    assert (segment.label, segment.kind.meaning) == (label, meaning)
    assert metadata["network_data_format"]["outputs"]["pred"]["channel_def"]["1"] == label
    # the codes are those of DICOM's own dictionary, as pydicom carries it
    for code in (segment.category, segment.kind, segment.anatomy):
        assert (code.scheme, code.value, code.meaning.lower()) in SNOMED


@pytest.mark.parametrize("build", ["segmentation", "report", "presentation", "capture"])
def test_without_highdicom_the_extra_is_named(monkeypatch, build):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    source, identity = DicomSource.of_headers([photo()]), Identity.repeatable(PRODUCER)
    mask, segments = np.zeros((13, 21), np.uint8), (Segment(1, "polyp"),)
    calls = {
        "segmentation": lambda: build_segmentation(source, mask, segments, identity),
        "report": lambda: build_report(source, Dataset(), mask, segments, identity),
        "presentation": lambda: build_presentation(source, mask, segments, identity),
        "capture": lambda: build_capture(source, np.zeros((1, 13, 21, 3), np.uint8), identity),
    }

    with pytest.raises(MissingExtraError, match=r"msrf-monai\[clinical\]"):
        calls[build]()
