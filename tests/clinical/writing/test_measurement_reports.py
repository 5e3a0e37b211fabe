"""Structured reports of areas, judged by highdicom, dciodvfy and dcmqi's tid1500reader."""

from __future__ import annotations

import io
import json
import subprocess

import numpy as np
import pydicom
import pytest

from msrf_monai.clinical.writing import (
    DicomSource,
    Identity,
    areas,
    build_report,
    build_segmentation,
    check_numbers,
    reported_areas,
)
from msrf_monai.clinical.writing.finish import encode
from msrf_monai.errors import InputError, StorageError
from support.dicom_writing import POLYP, PRODUCER, VESSEL, blobs, clip, dciodvfy_errors, find_tool, photo, slices

highdicom = pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'msrf-monai[clinical]'")

SEGMENTS = (POLYP, VESSEL)
SAMPLES = ("cxr_dx_mono1", "derm_photo", "fundus_op8", "us_rgb", "us_multiframe_rgb", "ct_series", "mr_oblique")


def report_of(source: DicomSource, mask: np.ndarray, flags=None):
    identity = Identity.repeatable(PRODUCER)
    seg = build_segmentation(source, mask, SEGMENTS, identity)
    return build_report(source, seg, mask, SEGMENTS, identity, flags)


@pytest.mark.realdata
@pytest.mark.parametrize("name", SAMPLES)
def test_validators_accept_the_report_and_read_its_areas(data_root, tmp_path, name):
    folder = data_root / "dicom_samples"
    paths = sorted((folder / name).iterdir()) if (folder / name).is_dir() else [folder / f"{name}.dcm"]
    source = DicomSource.of_headers([pydicom.dcmread(path, stop_before_pixels=True) for path in paths])
    mask = blobs(source.frames, source.rows, source.columns)
    path = tmp_path / "sr.dcm"
    flags = dict.fromkeys(range(source.frames), ("low_confidence", "unlike_training"))
    path.write_bytes(encode(report_of(source, mask, {**flags, None: ("empty_mask",)})))
    counted = [float((frame == 1).sum()) for frame in mask if frame.any()]
    size = {"derm_photo": 0.02**2, "us_rgb": 0.01, "us_multiframe_rgb": 0.01, "ct_series": 0.49, "mr_oblique": 0.25}

    command = [find_tool("tid1500reader", "pip install dcmqi"), "--inputDICOM", str(path)]
    subprocess.run([*command, "--outputMetadata", str(tmp_path / "sr.json")], check=True, capture_output=True)

    groups = json.loads((tmp_path / "sr.json").read_text())["Measurements"]
    items = [group["measurementItems"][0] for group in groups]
    assert dciodvfy_errors(path) == []
    assert {item["units"]["CodeValue"] for item in items} == {"mm2" if name in size else "{pixels}"}
    assert [float(item["value"]) for item in items] == pytest.approx([n * size.get(name, 1) for n in counted] + [0.0])
    assert [group["Finding"]["CodeMeaning"] for group in groups] == ["Polyp of colon"] * len(counted) + ["Blood vessel"]
    told = [[each["conceptValue"]["CodeValue"] for each in group["qualitativeEvaluations"]] for group in groups]
    assert told == [["low_confidence", "unlike_training"]] * len(counted) + [["empty_mask"]]


@pytest.mark.parametrize("headers", [[photo()], [clip()], slices()], ids=["image", "clip", "slices"])
def test_every_number_refers_to_the_frame_that_it_was_counted_in(headers):
    source = DicomSource.of_headers(headers)
    mask = blobs(source.frames, 13, 21, 2)
    seg = build_segmentation(source, mask, SEGMENTS, Identity.repeatable(PRODUCER))
    stored = pydicom.dcmread(io.BytesIO(encode(seg))).pixel_array.reshape(-1, 13, 21)

    report = highdicom.sr.Comprehensive3DSR.from_dataset(pydicom.dcmread(io.BytesIO(encode(report_of(source, mask)))))

    groups = report.content.get_planar_roi_measurement_groups()
    size = source.spacing.pixel_mm2 or 1
    assert len(groups) == len(stored)
    for group in groups:
        (measurement,) = group.get_measurements()
        frame = group.referenced_segmentation_frame[0].referenced_frame_numbers[0]
        assert measurement.value == pytest.approx(stored[frame - 1].sum() * size)


def test_areas_are_square_millimetres_only_where_the_spacing_is_real():
    mask = blobs(4, 13, 21)

    real, unit = areas(DicomSource.of_headers(slices()), mask, (POLYP,))
    counted, pixels = areas(DicomSource.of_headers([photo()]), mask[:1], (POLYP,))

    assert (unit, pixels) == ("mm2", "{pixels}")
    np.testing.assert_allclose(real[0], counted[0] * 0.5 * 0.25)
    assert reported_areas(np.array([[1.0, 0.0], [2.0, 0.0]])) == [1.0, 2.0, 0.0]


def test_same_input_gives_the_same_report_and_its_numbers_come_back():
    source, mask = DicomSource.of_headers([photo()]), blobs(1, 13, 21)

    first, second = (encode(report_of(source, mask)) for _ in range(2))

    assert first == second
    check_numbers(first, reported_areas(areas(source, mask, SEGMENTS)[0]))


def test_each_group_carries_the_flags_of_its_frame_and_another_flag_makes_another_report():
    source, mask = DicomSource.of_headers(slices()), blobs(4, 13, 21)
    marked = [int(frame) for frame in np.flatnonzero(mask.any(axis=(1, 2)))]
    flags = {marked[0]: ("touches_border", "unusual_area"), None: ("touches_border", "unusual_area")}

    report = report_of(source, mask, flags)

    content = highdicom.sr.Comprehensive3DSR.from_dataset(pydicom.dcmread(io.BytesIO(encode(report)))).content
    planar = [
        [(each.name.value, each.value.value, each.value.meaning) for each in group.get_qualitative_evaluations()]
        for group in content.get_planar_roi_measurement_groups()
    ]
    border, area = (("quality_flag", name, name.replace("_", " ")) for name in ("touches_border", "unusual_area"))
    assert planar == [[border, area]] + [[]] * (len(marked) - 1)
    (nowhere,) = content.get_image_measurement_groups()
    assert len(nowhere.get_qualitative_evaluations()) == 2
    assert report.SOPInstanceUID != report_of(source, mask).SOPInstanceUID
    empty = next(frame for frame in range(len(mask)) if frame not in marked)
    unseen = report_of(source, mask, {empty: ("low_confidence",), **dict(reversed(flags.items()))})
    assert unseen.SOPInstanceUID == report.SOPInstanceUID  # the same content


@pytest.mark.parametrize("numbers", [[], [1.0, 0.0], [24.0, 0.5]])
def test_a_report_whose_numbers_changed_is_refused(numbers):
    content = encode(report_of(DicomSource.of_headers([photo()]), blobs(1, 13, 21)))

    with pytest.raises(StorageError, match="not kept"):
        check_numbers(content, numbers)


def test_a_report_that_cannot_be_read_is_refused():
    with pytest.raises(StorageError, match="cannot be read back"):
        check_numbers(b"no DICOM at all", [])


def test_awkward_numbers_fit_into_dicom():
    headers = slices(1)
    headers[0].PixelSpacing = ["0.3333333333", "0.7777777777"]
    source, mask = DicomSource.of_headers(headers), blobs(1, 13, 21)

    content = encode(report_of(source, mask))

    check_numbers(content, reported_areas(areas(source, mask, SEGMENTS)[0]))


def test_the_patient_is_in_the_report_and_the_evidence_names_both_objects():
    header = photo()
    header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
    report = report_of(DicomSource.of_headers([header]), blobs(1, 13, 21))

    series = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    classes = {item.ReferencedSOPClassUID for one in series for item in one.ReferencedSOPSequence}

    assert report.PatientID == "SECRET-ID"
    assert classes == {"1.2.840.10008.5.1.4.1.1.77.1.5.1", "1.2.840.10008.5.1.4.1.1.66.4"}


def test_a_report_wants_a_binary_segmentation():
    source, mask = DicomSource.of_headers([photo()]), blobs(1, 13, 21)
    identity = Identity.repeatable(PRODUCER)
    labelmap = build_segmentation(source, mask, SEGMENTS, identity, kind="labelmap")

    with pytest.raises(InputError, match="binary segmentation"):
        build_report(source, labelmap, mask, SEGMENTS, identity)
