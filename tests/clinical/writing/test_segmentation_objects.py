"""DICOM segmentations of every kind of source, judged by highdicom, dcmqi and dciodvfy."""

from __future__ import annotations

import functools
import io
import logging
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest

from msrf_monai.clinical.writing import (
    DicomSource,
    Identity,
    Segment,
    build_segmentation,
    check_segmentation,
    stored_planes,
    write_verified,
)
from msrf_monai.clinical.writing.finish import encode
from msrf_monai.errors import ConfigError, InputError, StorageError
from support.dicom_writing import (
    CLIP,
    POLYP,
    PRODUCER,
    STILLS,
    VESSEL,
    VOLUMES,
    blobs,
    clip,
    dciodvfy_errors,
    dcmqi_planes,
    photo,
    slices,
)

highdicom = pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'msrf-monai[clinical]'")

KINDS = ("binary", "fractional", "labelmap")


def sample(root: Path, name: str) -> DicomSource:
    folder = root / "dicom_samples"
    paths = sorted((folder / name).iterdir()) if (folder / name).is_dir() else [folder / f"{name}.dcm"]
    return DicomSource.of_headers([pydicom.dcmread(path, stop_before_pixels=True) for path in paths])


def mask_for(source: DicomSource, kind: str, classes: int) -> np.ndarray:
    mask = blobs(source.frames, source.rows, source.columns, classes)
    if kind != "fractional":
        return mask
    steps = np.linspace(0, 1, source.columns, dtype=np.float32)
    return np.stack([(mask == n + 1) * steps for n in range(classes)], axis=-1).astype(np.float32)


def build(source, mask, segments=(POLYP,), identity=None, **options):
    return build_segmentation(source, mask, segments, identity or Identity.repeatable(PRODUCER), **options)


def written(source: DicomSource, mask: np.ndarray, segments, kind: str, path: Path) -> Path:
    seg = build(source, mask, segments, kind=kind)
    expected = stored_planes(source, mask, segments, kind)
    return write_verified(path, encode(seg), lambda content: check_segmentation(content, source, expected)).path


@pytest.fixture(scope="module")
def objects(data_root, tmp_path_factory):
    """Returns, for a sample, a kind and a number of classes: source, what should be stored, path; each built once."""
    folder = tmp_path_factory.mktemp("segmentations")

    @functools.cache
    def build_once(name: str, kind: str, classes: int):
        source = sample(data_root, name)
        segments = (POLYP, VESSEL)[:classes]
        mask = mask_for(source, kind, classes)
        path = written(source, mask, segments, kind, folder / f"{name}-{kind}-{classes}.dcm")
        return source, stored_planes(source, mask, segments, kind), path

    return build_once


def by_highdicom(path: Path, source: DicomSource) -> np.ndarray:
    """(F, H, W, S) as highdicom maps the frames back to their source."""
    seg = highdicom.seg.segread(path)
    options = {"assert_missing_frames_are_empty": True, "rescale_fractional": False}
    if len(source.headers) == 1 and source.frames > 1:
        frames = list(range(1, source.frames + 1))
        return seg.get_pixels_by_source_frame(source.instance_uids[0], frames, **options)
    return seg.get_pixels_by_source_instance(list(source.instance_uids), **options)


ALL = (*STILLS, *VOLUMES, CLIP)


@pytest.mark.realdata
@pytest.mark.parametrize(("kind", "classes"), [("binary", 1), *((kind, 2) for kind in KINDS)])
@pytest.mark.parametrize("name", ALL)
def test_highdicom_maps_every_frame_back_to_its_source(objects, name, kind, classes):
    source, expected, path = objects(name, kind, classes)

    np.testing.assert_array_equal(by_highdicom(path, source), expected)


@pytest.mark.realdata
@pytest.mark.parametrize(("kind", "classes"), [("binary", 1), ("binary", 2), ("fractional", 2)])
@pytest.mark.parametrize("name", ALL)
def test_dciodvfy_finds_no_error(objects, name, kind, classes):
    _, _, path = objects(name, kind, classes)

    assert dciodvfy_errors(path) == []


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "binary") for name in (*STILLS, *VOLUMES)),
        ("fundus_op8", "fractional"),
        ("fundus_op8", "labelmap"),
        ("mr_oblique", "fractional"),
        ("mr_oblique", "labelmap"),
    ],
)
def test_dcmqi_reads_the_same_mask_on_the_source_grid(objects, tmp_path, name, kind):
    source, expected, path = objects(name, kind, 2)

    planes, affine = dcmqi_planes(path, tmp_path / "dcmqi", fractional=kind == "fractional")

    assert set(planes) == {1, 2}
    for number, plane in planes.items():
        for frame, index in slice_indices(source, affine, plane.shape[2]).items():
            shown = plane[:, :, index].T if index is not None else np.zeros_like(expected[0, :, :, 0])
            np.testing.assert_array_equal(shown, expected[frame, :, :, number - 1])


def slice_indices(source: DicomSource, affine: np.ndarray, depth: int) -> dict[int, int | None]:
    """For each frame, the slice of dcmqi's volume at its position; None where dcmqi left an empty end out."""
    if source.layout == "image":
        return {0: 0}
    found: dict[int, int | None] = {}
    for frame, header in enumerate(source.headers):
        x, y, z = (float(part) for part in header.ImagePositionPatient)
        voxel = np.linalg.inv(affine) @ np.array([-x, -y, z, 1.0])  # NIfTI's axes point right, anterior, superior
        assert np.allclose(voxel[:2], 0, atol=1e-2)
        assert abs(voxel[2] - round(voxel[2])) < 1e-2
        found[frame] = round(voxel[2]) if 0 <= round(voxel[2]) < depth else None
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("headers", [[photo()], [clip()], slices()], ids=["image", "clip", "slices"])
def test_same_input_and_model_give_the_same_bytes(headers, kind):
    source = DicomSource.of_headers(headers)
    mask = mask_for(source, kind, 2)

    first, second = (encode(build(source, mask, (POLYP, VESSEL), kind=kind)) for _ in range(2))

    assert first == second


def test_uids_differ_between_masks_models_options_and_fresh_runs():
    source = DicomSource.of_headers([photo()])
    mask = blobs(1, 13, 21)
    other = Identity.repeatable(type(PRODUCER)("MSRF-Net polyp segmentation", "0.1.0", model_digest="cd" * 32))

    uids = [
        build(source, mask).SOPInstanceUID,
        build(source, mask[:, :, ::-1].copy()).SOPInstanceUID,
        build(source, mask, identity=other).SOPInstanceUID,
        build(source, mask, kind="labelmap").SOPInstanceUID,
        build(source, mask, identity=Identity.fresh(PRODUCER)).SOPInstanceUID,
        build(source, mask, identity=Identity.fresh(PRODUCER)).SOPInstanceUID,
    ]

    assert len(set(uids)) == len(uids)
    assert all(len(uid) <= 64 and uid.is_valid for uid in uids)


def test_images_of_one_series_share_a_result_series():
    first, second = (build(DicomSource.of_headers([photo(number=n)]), blobs(1, 13, 21)) for n in (1, 2))

    assert first.SeriesInstanceUID == second.SeriesInstanceUID
    assert first.InstanceNumber != second.InstanceNumber


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("headers", [[photo()], [clip()], slices()], ids=["image", "clip", "slices"])
def test_an_empty_mask_is_written_and_read_back(headers, kind):
    source = DicomSource.of_headers(headers)
    empty = np.zeros((source.frames, 13, 21), dtype=np.float32 if kind == "fractional" else np.uint8)

    content = encode(build(source, empty, kind=kind))

    check_segmentation(content, source, stored_planes(source, empty, (POLYP,), kind))


@pytest.mark.parametrize("headers", [[photo()], [clip()], slices()], ids=["image", "clip", "slices"])
def test_overlapping_segments_keep_both(headers, tmp_path):
    source = DicomSource.of_headers(headers)
    stack = np.zeros((source.frames, 13, 21, 2), dtype=bool)
    stack[0, 2:9, 3:11, 0] = True
    stack[0, 5:12, 8:20, 1] = True

    path = written(source, stack, (POLYP, VESSEL), "binary", tmp_path / "seg.dcm")

    assert pydicom.dcmread(path).SegmentsOverlap == "YES"
    np.testing.assert_array_equal(by_highdicom(path, source), stack)


def test_the_patient_is_copied_and_never_shown_to_logs_or_warnings(caplog):
    header = photo()
    header.PatientName = "Yamada^Tarou=山田^太郎"
    header.SpecificCharacterSet = "ISO_IR 192"
    header.PatientComments = "SECRET remark"
    caplog.set_level(logging.DEBUG)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        seg = pydicom.dcmread(io.BytesIO(encode(build(DicomSource.of_headers([header]), blobs(1, 13, 21)))))

    assert str(seg.PatientName) == "Yamada^Tarou=山田^太郎"
    assert (seg.PatientID, seg.PatientComments, seg.StudyInstanceUID) == ("SECRET-ID", "SECRET remark", "2.25.11")
    said = caplog.text + "".join(str(item.message) for item in caught)
    assert "SECRET" not in said
    assert "Yamada" not in said
    assert "2.25.10001" not in said


def test_values_that_break_the_standard_neither_stop_nor_leak(caplog):
    header = photo()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header.PatientBirthDate = "12/31/1950"
        header.PatientSex = "UNKNOWN SECRET"
        header.StudyTime = "DOE JOHN 1234"
    del header.StudyID
    del header.AccessionNumber
    caplog.clear()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        content = encode(build(DicomSource.of_headers([header]), blobs(1, 13, 21)))

    assert [str(item.message) for item in caught] == []
    assert "DOE" not in caplog.text
    assert b"UNKNOWN SECRET" in content


def test_viewer_geometry_is_told_and_can_be_left_out():
    source = DicomSource.of_headers([photo()])

    gridded = build(source, blobs(1, 13, 21))
    pure = build(source, blobs(1, 13, 21), viewer_geometry=False)

    assert "pixel grid" in gridded.SeriesDescription
    assert "PlaneOrientationSequence" in gridded.SharedFunctionalGroupsSequence[0]
    assert "PlaneOrientationSequence" not in pure.SharedFunctionalGroupsSequence[0]
    assert "PatientOrientation" in pure
    assert "FrameOfReferenceUID" not in gridded


def test_a_clip_never_gets_viewer_geometry():
    seg = build(DicomSource.of_headers([clip()]), blobs(3, 13, 21))

    assert "PlaneOrientationSequence" not in seg.SharedFunctionalGroupsSequence[0]
    assert [g.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
            for g in seg.PerFrameFunctionalGroupsSequence] == [1, 2]  # fmt: skip


def test_the_source_class_is_named_where_it_is_referred_to():
    header = photo()
    header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.5.1"

    seg = build(DicomSource.of_headers([header]), blobs(1, 13, 21))

    named = [
        seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPClassUID,
        seg.SourceImageSequence[0].ReferencedSOPClassUID,
        seg.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPClassUID,
    ]
    assert named == ["1.2.840.10008.5.1.4.1.1.77.1.5.1"] * 3


@pytest.mark.parametrize("where", ["pixel", "reference", "class", "position", "tail"])
def test_a_segmentation_that_came_back_changed_is_refused(where):
    source = DicomSource.of_headers(slices())
    mask = blobs(4, 13, 21)
    seg = build(source, mask)
    group = seg.PerFrameFunctionalGroupsSequence[0]
    reference = group.DerivationImageSequence[0].SourceImageSequence[0]
    if where == "pixel":
        seg.PixelData = bytes([seg.PixelData[0] ^ 1]) + seg.PixelData[1:]
    elif where == "reference":
        reference.ReferencedSOPInstanceUID = "2.25.10002"
    elif where == "class":
        reference.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    elif where == "position":
        group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 99]
    content = encode(seg)
    if where == "tail":
        content = content[:-40]

    with pytest.raises(StorageError, match="not kept"):
        check_segmentation(content, source, stored_planes(source, mask, (POLYP,), "binary"))


@pytest.mark.parametrize(
    ("mask", "options", "message"),
    [
        (np.zeros((21, 13), np.uint8), {}, "source's grid"),
        (np.full((13, 21), 2, np.uint8), {}, "every class a segment"),
        (np.full((13, 21), -1, np.int8), {}, "every class a segment"),
        (np.zeros((13, 21), np.float32), {}, "apply the threshold"),
        (np.zeros((13, 21), np.uint8), {"kind": "fractional"}, "floating point"),
        (np.full((13, 21), 1.5, np.float32), {"kind": "fractional"}, r"lie in \[0, 1\]"),
        (np.full((13, 21), np.nan, np.float32), {"kind": "fractional"}, r"lie in \[0, 1\]"),
        (np.zeros((13, 21), np.uint8), {"kind": "fuzzy"}, "binary, fractional or labelmap"),
        (np.zeros((13, 21), np.uint8), {"segments": (VESSEL,)}, "numbered 1, 2"),
        (np.zeros((13, 21), np.float32), {"kind": "fractional", "segments": (POLYP, VESSEL)}, "got one plane"),
        (np.ones((1, 13, 21, 2), np.uint8), {"kind": "labelmap", "segments": (POLYP, VESSEL)}, "share a pixel"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(mask, options, message):
    source = DicomSource.of_headers([photo()])

    with pytest.raises((InputError, ConfigError), match=message):
        build(source, mask, **options)


def test_too_many_segments_for_a_label_map_are_refused():
    segments = tuple(Segment(n, f"class {n}") for n in range(1, 257))

    with pytest.raises(InputError, match="up to 255"):
        build(DicomSource.of_headers([photo()]), np.zeros((13, 21), np.uint16), segments, kind="labelmap")


def test_what_the_library_refuses_is_an_input_error_without_values():
    headers = slices(2)
    headers[0].ImageOrientationPatient = [1, 0, 0]
    headers[1].ImageOrientationPatient = [1, 0, 0]

    with pytest.raises(InputError, match="cannot build the segmentation") as caught:
        build(DicomSource.of_headers(headers), blobs(2, 13, 21))

    assert "SECRET" not in str(caught.value)
