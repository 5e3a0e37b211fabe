"""Frames as people see them, and the small pictures with outlines."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from msrf_monai.clinical.case import Window
from msrf_monai.clinical.display import Display
from msrf_monai.clinical.reading import open_case
from msrf_monai.clinical.thumbnail import draw_thumbnail, remember_small_frames, shown_frame
from support.clinical_cases import array_case, prediction_of
from support.dicom_files import as_bytes, image_dataset, pattern
from support.dicom_writing import POLYP, VESSEL


def shown(values, **info):
    case = array_case(values[None], **info)
    return Display.of_case(case).picture(case.frame(0))


def test_colours_of_8_bits_are_shown_as_they_are():
    values = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)

    np.testing.assert_array_equal(shown(values), values)


def test_deeper_values_run_from_black_to_white():
    values = np.array([[0, 2048, 4095]], np.uint16)

    picture = shown(values, white=4095.0)

    assert picture[0, :, 0].tolist() == [0, 128, 255]
    np.testing.assert_array_equal(picture[..., 0], picture[..., 2])


def test_the_files_first_window_is_used_for_grey_values():
    values = np.array([[-1000, -160, 40, 240, 1000]], np.float32)

    picture = shown(values, windows=(Window(40, 400, "LINEAR_EXACT"), Window(600, 1500)))

    assert picture[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_a_window_of_monochrome1_is_turned_as_the_values_are():
    stored = np.array([[0, 1000, 2000, 4095]], np.uint16)
    window = Window(1000, 500, "LINEAR_EXACT")

    turned = shown(4095 - stored, white=4095.0, windows=(window,), photometric="MONOCHROME1")

    straight = shown(stored, white=4095.0, windows=(window,))
    np.testing.assert_allclose(turned, 255.0 - straight, atol=1)


def test_without_window_and_white_most_values_span_the_greys():
    values = np.linspace(-3, 5, 2001, dtype=np.float32).reshape(3, 667)
    values[0, 0] = 1e6

    picture = shown(values)

    assert picture[0, 0, 0] == 255
    assert picture[0, 1, 0] == 0
    assert abs(int(picture[1, 333, 0]) - 127) <= 2


@pytest.mark.parametrize("values", [np.full((4, 6), 3.5, np.float32), np.full((4, 6), np.nan, np.float32)])
def test_frames_of_one_value_or_none_are_shown_too(values):
    assert shown(values).shape == (4, 6, 3)


def test_the_frame_worth_showing_has_most_marked_pixels():
    mask = np.zeros((5, 8, 9), np.uint8)
    assert shown_frame(prediction_of(mask)) == 2

    mask[1, :2], mask[3, :4] = 1, 1
    assert shown_frame(prediction_of(mask)) == 3


def thumbnail(values, mask, segments=(POLYP,), **info):
    artefact = draw_thumbnail(array_case(values, **info), prediction_of(mask), segments)
    picture = np.array(Image.open(io.BytesIO(artefact.content)))
    artefact.check(artefact.content)
    return picture


def test_a_thumbnail_has_the_proportions_of_the_pixels_and_256_at_most():
    values = np.zeros((1, 60, 90), np.uint8)

    assert thumbnail(values, values).shape == (171, 256, 3)
    assert thumbnail(values, values, spacing_mm=(3.0, 1.0)).shape == (256, 128, 3)


def test_the_outline_lies_where_the_mask_ends_and_the_picture_stays():
    values = np.full((1, 512, 512), 100, np.uint8)
    mask = np.zeros((1, 512, 512), np.uint8)
    mask[0, 100:300, 200:400] = 1

    picture = thumbnail(values, mask)

    is_drawn = (picture == POLYP.rgb).all(axis=2)
    square = np.zeros((256, 256), np.uint8)
    square[50:150, 100:200] = 1
    rim = cv2.dilate(square, np.ones((5, 5))) - cv2.erode(square, np.ones((5, 5)))
    assert is_drawn[50, 100:200].all()
    assert is_drawn[50:150, 199].all()
    assert not is_drawn[rim == 0].any()
    assert (picture[~is_drawn] == 100).all()


def test_thin_structures_stay_visible():
    mask = np.zeros((1, 2048, 2048), np.uint8)
    mask[0, 1001:1003] = 1

    picture = thumbnail(np.zeros_like(mask), mask)

    assert (picture == POLYP.rgb).all(axis=2).any(axis=0).mean() > 0.9


def test_every_segment_is_drawn_in_its_colour():
    mask = np.zeros((1, 64, 64), np.uint8)
    mask[0, 5:20, 5:20], mask[0, 40:60, 30:50] = 1, 2

    colours = {tuple(colour) for colour in thumbnail(np.zeros_like(mask), mask, (POLYP, VESSEL)).reshape(-1, 3)}

    assert colours == {(0, 0, 0), POLYP.rgb, VESSEL.rgb}


@pytest.mark.parametrize(("stated", "hides"), [("YES", True), ("NO", False), (None, False)])
def test_pixels_that_are_said_to_hold_writing_are_not_shown(tmp_path, stated, hides):
    attributes = {"BurnedInAnnotation": stated} if stated else {}
    path = tmp_path / "a.dcm"
    path.write_bytes(as_bytes(image_dataset(pattern(40, 50), **attributes)))
    case = open_case(path)
    mask = np.zeros((1, 40, 50), np.uint8)

    content = draw_thumbnail(case, prediction_of(mask), (POLYP,)).content

    colours = len(np.unique(np.array(Image.open(io.BytesIO(content)))))
    assert (colours == 1) is hides


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("colours", [(), (3,)], ids=["grey", "colour"])
def test_remembered_frames_give_the_same_thumbnail_and_decode_nothing_again(dtype, colours, monkeypatch):
    values = (np.random.default_rng(0).random((3, 300, 400, *colours)) * 250).astype(dtype)
    mask = np.zeros((3, 300, 400), np.uint8)
    mask[1, 50:150, 60:200] = 1
    plain = array_case(values)
    case = remember_small_frames(plain)
    for index, frame in enumerate(case.iter_frames()):
        np.testing.assert_array_equal(frame, values[index])
    monkeypatch.setattr(type(plain.pixels), "frame", lambda *_: pytest.fail("a frame was decoded again"))

    made = [draw_thumbnail(case, prediction_of(mask), (POLYP,)).content for _ in range(2)]

    monkeypatch.undo()
    assert made == [draw_thumbnail(plain, prediction_of(mask), (POLYP,)).content] * 2


def test_a_frame_that_was_not_decoded_before_is_decoded_for_the_thumbnail():
    values = np.full((2, 40, 50), 90, np.uint8)
    mask = np.zeros_like(values)

    content = draw_thumbnail(remember_small_frames(array_case(values)), prediction_of(mask), (POLYP,)).content

    assert (np.array(Image.open(io.BytesIO(content))) == 90).all()
