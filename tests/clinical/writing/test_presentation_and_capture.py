"""Outlines in presentation states and overlays in secondary captures, judged by dciodvfy, dcmtk and matplotlib."""

from __future__ import annotations

import io
import subprocess

import numpy as np
import pydicom
import pytest
from PIL import ImageCms

from msrf_monai.clinical.writing import (
    DicomSource,
    Identity,
    build_capture,
    build_presentation,
    check_outlines,
    check_pixels,
    draw_segments,
    stored_planes,
)
from msrf_monai.clinical.writing.contours import filled, outlines
from msrf_monai.clinical.writing.finish import encode
from msrf_monai.clinical.writing.presentation import srgb_profile
from msrf_monai.errors import InputError, StorageError
from support.dicom_writing import POLYP, PRODUCER, VESSEL, blobs, clip, dciodvfy_errors, find_tool, photo, slices

pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'msrf-monai[clinical]'")

SEGMENTS = (POLYP, VESSEL)
IDENTITY = Identity.repeatable(PRODUCER)
SAMPLES = (
    "cxr_dx_mono1",
    "derm_photo",
    "fundus_op8",
    "histology_vlmicro",
    "us_gray",
    "us_multiframe_rgb",
    "ct_series",
    "mr_oblique",
)
each_layout = pytest.mark.parametrize("headers", [[photo()], [clip()], slices()], ids=["image", "clip", "slices"])


def ring() -> np.ndarray:
    """A ring with a dot in its hole, two pixels that touch at a corner, and parts on every border."""
    mask = np.zeros((17, 23), dtype=bool)
    mask[2:11, 3:14] = True
    mask[4:9, 5:12] = False
    mask[6, 8] = True
    mask[12, 15] = mask[13, 16] = mask[14, 15] = True
    mask[0, 18:] = mask[:, 22] = mask[16, :4] = mask[15, 0] = True
    return mask


@pytest.mark.parametrize("mask", [ring(), np.random.default_rng(3).random((19, 31)) < 0.5], ids=["ring", "noise"])
def test_outlines_enclose_exactly_the_mask(mask):
    paths = pytest.importorskip("matplotlib.path", reason="matplotlib is not installed")
    centres = np.stack(np.meshgrid(np.arange(mask.shape[1]), np.arange(mask.shape[0])), axis=-1).reshape(-1, 2) + 0.5

    found = outlines(mask)

    inside = np.zeros(mask.size, dtype=bool)
    for line in found:
        np.testing.assert_array_equal(line[0], line[-1])
        inside ^= paths.Path(line).contains_points(centres)
    np.testing.assert_array_equal(inside.reshape(mask.shape), mask)
    np.testing.assert_array_equal(filled(found, *mask.shape), mask)
    signed = sum(float(np.sum(a[:-1, 0] * a[1:, 1] - a[1:, 0] * a[:-1, 1])) / 2 for a in found)
    assert signed == mask.sum()


def test_pixels_that_touch_at_a_corner_have_outlines_of_their_own():
    assert [len(line) for line in outlines(np.eye(3, dtype=bool))] == [5, 5, 5]


def test_an_empty_mask_has_no_outline():
    assert outlines(np.zeros((4, 5), dtype=bool)) == []


def sample(data_root, name) -> DicomSource:
    folder = data_root / "dicom_samples"
    paths = sorted((folder / name).iterdir()) if (folder / name).is_dir() else [folder / f"{name}.dcm"]
    return DicomSource.of_headers([pydicom.dcmread(path, stop_before_pixels=True) for path in paths])


@pytest.mark.realdata
@pytest.mark.parametrize("name", SAMPLES)
def test_validators_accept_the_presentation_state(data_root, tmp_path, name):
    source = sample(data_root, name)
    mask = blobs(source.frames, source.rows, source.columns, 2)
    path = tmp_path / "pr.dcm"

    path.write_bytes(encode(build_presentation(source, mask, SEGMENTS, IDENTITY)))

    check_outlines(path.read_bytes(), source, stored_planes(source, mask, SEGMENTS))
    assert dciodvfy_errors(path) == []
    checker = find_tool("dcmpschk", "the Debian package dcmtk")
    said = subprocess.run([checker, str(path)], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr


@pytest.mark.realdata
@pytest.mark.parametrize("name", SAMPLES)
def test_dciodvfy_accepts_the_secondary_capture(data_root, tmp_path, name):
    source = sample(data_root, name)
    mask = blobs(source.frames, source.rows, source.columns, 2)
    pictures = np.random.default_rng(0).integers(0, 256, (*mask.shape, 3), dtype=np.uint8)
    drawn = draw_segments(pictures, mask, SEGMENTS)
    path = tmp_path / "sc.dcm"

    path.write_bytes(encode(build_capture(source, drawn, IDENTITY)))

    check_pixels(path.read_bytes(), drawn)
    assert dciodvfy_errors(path) == []


@each_layout
def test_same_input_gives_the_same_state_and_capture(headers):
    source = DicomSource.of_headers(headers)
    mask = blobs(source.frames, 13, 21, 2)
    drawn = draw_segments(np.full((*mask.shape, 3), 90, np.uint8), mask, SEGMENTS)

    states = {encode(build_presentation(source, mask, SEGMENTS, IDENTITY)) for _ in range(2)}
    captures = {encode(build_capture(source, drawn, IDENTITY)) for _ in range(2)}

    assert (len(states), len(captures)) == (1, 1)


@each_layout
def test_outlines_that_came_back_changed_are_refused(headers):
    source = DicomSource.of_headers(headers)
    mask = blobs(source.frames, 13, 21)
    made = build_presentation(source, mask, (POLYP,), IDENTITY)
    graphic = made.GraphicAnnotationSequence[0].GraphicObjectSequence[0]
    graphic.GraphicData = [value + 1 for value in graphic.GraphicData]

    with pytest.raises(StorageError, match="other pixels"):
        check_outlines(encode(made), source, stored_planes(source, mask, (POLYP,)))


def test_a_state_that_cannot_be_read_is_refused():
    source = DicomSource.of_headers([photo()])

    with pytest.raises(StorageError, match="cannot be read back"):
        check_outlines(b"nothing", source, np.zeros((1, 13, 21, 1), np.uint8))
    with pytest.raises(StorageError, match="cannot be read back"):
        check_pixels(b"nothing", np.zeros((1, 13, 21, 3), np.uint8))


def test_a_capture_that_came_back_changed_is_refused():
    source = DicomSource.of_headers([photo()])
    drawn = np.zeros((1, 13, 21, 3), np.uint8)
    made = build_capture(source, drawn, IDENTITY)
    made.PixelData = b"\1" + made.PixelData[1:]

    with pytest.raises(StorageError, match="came back changed"):
        check_pixels(encode(made), drawn)


def test_a_mask_of_nothing_makes_a_state_without_outlines():
    source = DicomSource.of_headers([photo()])
    empty = np.zeros((13, 21), np.uint8)

    content = encode(build_presentation(source, empty, (POLYP,), IDENTITY))

    check_outlines(content, source, stored_planes(source, empty, (POLYP,)))


def test_a_long_outline_is_cut_into_lines_that_dicom_can_hold():
    source = DicomSource.of_headers([photo(20, 6001)])
    comb = np.zeros((20, 6001), dtype=np.uint8)
    comb[10] = 1
    comb[2:10, ::2] = 1

    content = encode(build_presentation(source, comb, (POLYP,), IDENTITY))

    sizes = [
        len(graphic.GraphicData)
        for item in pydicom.dcmread(io.BytesIO(content)).GraphicAnnotationSequence
        for graphic in item.GraphicObjectSequence
    ]
    assert len(outlines(comb > 0)[0]) > 12_000
    assert max(sizes) == 16_000
    check_outlines(content, source, stored_planes(source, comb, (POLYP,)))


def test_grey_images_keep_their_window_and_polarity():
    header = photo()
    header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME1"
    header.WindowCenter, header.WindowWidth = 2048, 4096
    header.RescaleSlope, header.RescaleIntercept, header.RescaleType = 2, -1024, "US"
    header.ImageLaterality = "R"

    made = build_presentation(DicomSource.of_headers([header]), blobs(1, 13, 21), (POLYP,), IDENTITY)

    assert made.SOPClassUID == "1.2.840.10008.5.1.4.1.1.11.1"
    assert made.SoftcopyVOILUTSequence[0].WindowWidth == 4096
    assert (made.RescaleSlope, made.PresentationLUTShape, made.Laterality) == (2, "INVERSE", "R")


def test_pixels_that_are_not_square_are_shown_in_proportion():
    header = photo()
    header.PixelAspectRatio = [2, 1]
    by_ratio = build_presentation(DicomSource.of_headers([header]), blobs(1, 13, 21), (POLYP,), IDENTITY)
    by_spacing = build_presentation(DicomSource.of_headers(slices(1)), blobs(1, 13, 21), (POLYP,), IDENTITY)

    assert by_ratio.DisplayedAreaSelectionSequence[0].PresentationPixelAspectRatio == [2, 1]
    assert by_spacing.DisplayedAreaSelectionSequence[0].PresentationPixelSpacing == [0.5, 0.25]
    assert "PresentationPixelAspectRatio" not in by_spacing.DisplayedAreaSelectionSequence[0]


def test_the_profile_is_an_srgb_that_colour_engines_read():
    profile = ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile()))

    assert "sRGB" in ImageCms.getProfileDescription(profile)
    assert srgb_profile()[12:16] == b"scnr"


def test_segments_are_drawn_in_their_colours_and_elsewhere_nothing_changes():
    pictures = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    mask = np.zeros((64, 80), np.uint8)
    mask[20:40, 10:30] = 1

    drawn = draw_segments(pictures, mask, SEGMENTS, opacity=1.0)

    assert drawn.shape == (1, 64, 80, 3)
    np.testing.assert_array_equal(drawn[0, 20:40, 10:30], np.broadcast_to(POLYP.rgb, (20, 20, 3)))
    np.testing.assert_array_equal(drawn[0, 45:], pictures[45:])


def test_a_clip_becomes_one_capture_with_its_frame_time():
    header = clip()
    header.FrameTime = "33.3"
    source = DicomSource.of_headers([header])

    made = build_capture(source, np.zeros((3, 13, 21, 3), np.uint8), IDENTITY)

    assert (made.NumberOfFrames, made.FrameTime) == (3, 33.3)
    assert made.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7.4"
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == header.SOPInstanceUID


@pytest.mark.parametrize("pictures", [np.zeros((13, 21), np.uint8), np.zeros((13, 21, 3), np.uint16)])
def test_pictures_that_nobody_could_look_at_are_refused(pictures):
    with pytest.raises(InputError, match="pictures are RGB"):
        draw_segments(pictures, np.zeros((13, 21), np.uint8), (POLYP,))


def test_a_capture_of_another_size_is_refused():
    with pytest.raises(InputError, match="its source needs"):
        build_capture(DicomSource.of_headers([photo()]), np.zeros((1, 21, 13, 3), np.uint8), IDENTITY)
