"""DICOM objects of a prediction, judged by highdicom and dciodvfy, and the same bytes again."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pydicom
import pytest

from msrf_monai.clinical.outputs import OUTPUTS, OutputOptions, write_outputs
from msrf_monai.clinical.quality import QualityLimits
from msrf_monai.clinical.reading import open_case, open_folder
from msrf_monai.errors import InputError
from support.clinical_cases import prediction_of
from support.dicom_files import as_bytes, image_dataset, pattern
from support.dicom_writing import POLYP, PRODUCER, VESSEL, blobs, clip, dciodvfy_errors, photo, slices

highdicom = pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'msrf-monai[clinical]'")

OBJECTS = ("seg", "labelmap", "fractional", "sr", "overlay-sc", "pr")


def save(header, path):
    """Write a header with pixels that differ everywhere."""
    frames, bits = int(header.get("NumberOfFrames") or 1), int(header.BitsAllocated)
    count = frames * header.Rows * header.Columns * header.SamplesPerPixel
    values = (np.arange(count) * 7 % 251).astype(np.uint8 if bits == 8 else np.uint16)
    header.PixelData = values.tobytes() + b"\0" * (values.nbytes % 2)
    header["PixelData"].VR = "OB" if bits == 8 else "OW"
    pydicom.dcmwrite(path, header, enforce_file_format=True)
    return path


def opened(source, folder):
    folder.mkdir()
    headers = {"photo": [photo()], "clip": [clip()], "slices": slices()}[source]
    paths = [save(header, folder / f"{number}.dcm") for number, header in enumerate(headers)]
    return open_folder(folder).cases[0] if len(paths) > 1 else open_case(paths[0])


def write(case, folder, **options):
    mask = blobs(case.info.frames, case.info.rows, case.info.columns, 2)
    done = write_outputs(
        case,
        prediction_of(mask, classes=2),
        folder=folder,
        predictor_identity=PRODUCER,
        segments=(POLYP, VESSEL),
        options=OutputOptions(OUTPUTS, **options),
    )
    return mask, done


@pytest.mark.parametrize("source", ["photo", "clip", "slices"])
def test_segmentations_show_the_mask_to_highdicom(tmp_path, source):
    case = opened(source, tmp_path / "in")

    mask, _ = write(case, tmp_path / "out")

    for kind in ("seg", "labelmap"):
        seg = highdicom.seg.segread(tmp_path / "out" / f"{kind}.dcm")
        if source == "clip":
            uid, numbers = case.info.sop[0].sop_instance_uid, list(range(1, case.info.frames + 1))
            planes = seg.get_pixels_by_source_frame(
                uid, numbers, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
            )
        else:
            uids = [reference.sop_instance_uid for reference in case.info.sop]
            planes = seg.get_pixels_by_source_instance(uids, ignore_spatial_locations=True)
        np.testing.assert_array_equal(planes, mask[..., None] == [1, 2])


@pytest.mark.parametrize("source", ["photo", "clip", "slices"])
def test_every_object_but_a_label_map_passes_dciodvfy(tmp_path, source):
    write(opened(source, tmp_path / "in"), tmp_path / "out")

    for kind in (each for each in OBJECTS if each != "labelmap"):
        assert dciodvfy_errors(tmp_path / "out" / f"{kind}.dcm") == []


def test_a_fractional_segmentation_holds_the_probabilities(tmp_path):
    case = opened("photo", tmp_path / "in")

    mask, _ = write(case, tmp_path / "out")

    seg = highdicom.seg.segread(tmp_path / "out" / "fractional.dcm")
    uids = [case.info.sop[0].sop_instance_uid]
    planes = seg.get_pixels_by_source_instance(uids, rescale_fractional=True, ignore_spatial_locations=True)
    np.testing.assert_allclose(planes, np.where(mask[..., None] == [1, 2], 0.75, 0.125), atol=0.5 / 255)


def test_a_capture_shows_the_windowed_picture_outside_the_mask(tmp_path):
    case = opened("slices", tmp_path / "in")

    mask, _ = write(case, tmp_path / "out")

    pixels = pydicom.dcmread(tmp_path / "out" / "overlay-sc.dcm").pixel_array
    assert pixels.shape == (*mask.shape, 3)
    grey = np.rint(case.frame(3) / 4095 * 255)
    np.testing.assert_allclose(pixels[3], np.repeat(grey[..., None], 3, axis=2), atol=1)
    assert (pixels[0][mask[0] == 1] != pixels[0][mask[0] == 1][:, :1]).any()


@pytest.mark.parametrize("source", ["photo", "clip", "slices"])
def test_the_same_input_gives_the_same_bytes_again(tmp_path, source):
    case = opened(source, tmp_path / "in")

    _, first = write(case, tmp_path / "first")
    _, second = write(case, tmp_path / "second")

    assert first == second


def test_fresh_uids_name_every_run_by_itself(tmp_path):
    case = opened("photo", tmp_path / "in")

    _, first = write(case, tmp_path / "first", repeatable_uids=False)
    _, second = write(case, tmp_path / "second", repeatable_uids=False)

    same = {one.kind for one, other in zip(first, second, strict=True) if one == other}
    assert same == {"mask", "nifti", "prob", "stats", "thumbnail"}


@pytest.mark.parametrize("wanted", [True, False])
def test_the_geometry_for_viewers_is_an_option(tmp_path, wanted):
    write(opened("photo", tmp_path / "in"), tmp_path / "out", seg2d_geometry=wanted)

    for kind in ("seg", "labelmap", "fractional"):
        shared = pydicom.dcmread(tmp_path / "out" / f"{kind}.dcm").SharedFunctionalGroupsSequence[0]
        assert ("PixelMeasuresSequence" in shared) is wanted


def test_the_patient_is_in_dicom_objects_and_in_nothing_else(tmp_path):
    _, done = write(opened("photo", tmp_path / "in"), tmp_path / "out")

    holding = {each.kind for each in done if b"SECRET" in (tmp_path / "out" / each.path).read_bytes()}

    assert holding == set(OBJECTS)


def test_a_source_that_cannot_be_referred_to_leaves_nothing_behind(tmp_path):
    header = image_dataset(pattern(13, 21))
    del header.StudyInstanceUID
    path = tmp_path / "a.dcm"
    path.write_bytes(as_bytes(header))
    (tmp_path / "out").mkdir()

    with pytest.raises(InputError, match="StudyInstanceUID"):
        write(open_case(path), tmp_path / "out")

    assert list((tmp_path / "out").iterdir()) == []


def test_areas_of_a_report_are_those_of_the_statistics(tmp_path):
    case = opened("slices", tmp_path / "in")

    mask, _ = write(case, tmp_path / "out")

    def numbers(item):
        for value in item.get("MeasuredValueSequence", []):
            yield float(value.NumericValue)
        for child in item.get("ContentSequence", []):
            yield from numbers(child)

    found = list(numbers(pydicom.dcmread(tmp_path / "out" / "sr.dcm")))
    counts = [np.count_nonzero(mask[frame] == number) for number in (1, 2) for frame in range(3)]
    np.testing.assert_allclose(found, np.array(counts) * 0.5 * 0.25)


@pytest.mark.parametrize("is_all_found", [True, False])
@pytest.mark.parametrize("source", ["photo", "clip", "slices"])
def test_the_report_carries_the_flags_of_each_frame(tmp_path, source, is_all_found):
    case = opened(source, tmp_path / "in")
    mask = blobs(case.info.frames, case.info.rows, case.info.columns, 2 if is_all_found else 1)
    # every other frame is unsure, and the first touches the border too
    confidence = tuple(0.5 if frame % 2 else 0.9 for frame in range(len(mask)))
    mask[0, 0] = 1
    (tmp_path / "out").mkdir()

    write_outputs(
        case,
        replace(prediction_of(mask, classes=2), confidence=confidence),
        folder=tmp_path / "out",
        predictor_identity=PRODUCER,
        segments=(POLYP, VESSEL),
        options=OutputOptions(("sr", "stats"), quality=QualityLimits(touches_border=0.05)),
    )

    def told(groups):
        return [[each.value.value for each in group.get_qualitative_evaluations()] for group in groups]

    record = json.loads((tmp_path / "out" / "stats.json").read_text())
    content = highdicom.sr.srread(tmp_path / "out" / "sr.dcm").content
    found = [frame + 1 for number in (1, 2) for frame in range(len(mask)) if (mask[frame] == number).any()]
    flags = [record["flagged_frames"].get(str(frame), []) for frame in found]
    assert flags[0] == ["touches_border"]
    assert len(mask) == 1 or ["low_confidence"] in flags
    assert told(content.get_planar_roi_measurement_groups()) == flags
    assert told(content.get_image_measurement_groups()) == ([] if is_all_found else [record["flags"]])
