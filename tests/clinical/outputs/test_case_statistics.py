"""Pixels, areas, parts and confidence of what was found, against closed forms and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from msrf_monai.clinical.statistics import measure
from msrf_monai.clinical.statistics_record import statistics_record
from msrf_monai.errors import InputError
from support.clinical_cases import array_case, prediction_of
from support.dicom_writing import POLYP, VESSEL


def case_of(mask, **info):
    return array_case(np.zeros(mask.shape, np.uint8), **info)


@pytest.mark.parametrize("seed", range(4))
def test_parts_and_pixels_are_those_that_scipy_labels(seed):
    mask = (np.random.default_rng(seed).random((2, 17, 23)) > 0.7).astype(np.uint8)
    mask[0] *= 2

    statistics = measure(case_of(mask).info, prediction_of(mask), 2)

    assert [(region.frame, region.segment) for region in statistics.regions] == [(0, 2), (1, 1)]
    for region in statistics.regions:
        parts, count = ndimage.label(mask[region.frame] > 0, structure=np.ones((3, 3)))
        sizes = np.bincount(parts.ravel())[1:]
        rows, columns = ndimage.find_objects((mask[region.frame] > 0).astype(int))[0]
        assert (region.components, region.largest_pixels, region.pixels) == (count, sizes.max(), sizes.sum())
        assert region.box == (rows.start, columns.start, rows.stop, columns.stop)


def test_the_share_of_the_border_is_counted_along_the_outermost_pixels():
    mask = np.zeros((1, 5, 8), np.uint8)
    mask[0, 0, :3] = 1
    mask[0, 1:4, 2:6] = 1

    (region,) = measure(case_of(mask).info, prediction_of(mask), 1).regions

    assert region.border_share == pytest.approx(3 / (2 * 8 + 2 * 3))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 6), (1, 2, 2)])
def test_frames_without_an_inside_are_all_border(shape):
    mask = np.ones(shape, np.uint8)

    (region,) = measure(case_of(mask).info, prediction_of(mask), 1).regions

    assert region.border_share == 1


def test_confidence_is_the_mean_probability_of_the_segments_own_pixels():
    mask = np.zeros((1, 6, 7), np.uint8)
    mask[0, 2:4, 1:4] = 1
    prediction = prediction_of(mask, classes=1, probability=0.75)
    prediction.probabilities[0, 0, 2, 1] = 0.5

    (region,) = measure(case_of(mask).info, prediction, 1).regions

    assert region.confidence == pytest.approx((5 * 0.75 + 0.5) / 6)


@pytest.mark.parametrize(("is_real", "area"), [(True, 6 * 0.5 * 0.25), (False, None)])
def test_areas_are_in_square_millimetres_only_where_the_spacing_holds(is_real, area):
    mask = np.zeros((1, 6, 7), np.uint8)
    mask[0, 2:4, 1:4] = 1
    case = case_of(mask, spacing_mm=(0.5, 0.25), spacing_is_real=is_real)

    statistics = measure(case.info, prediction_of(mask), 1)
    record = statistics_record(case.info, statistics, (POLYP,))

    assert record["segments"][0]["area_mm2"] == area
    assert record["area_unit"] == ("mm2" if is_real else "pixels")
    assert record["segments"][0]["pixels"] == 6


@pytest.mark.parametrize(("slice_mm", "volume"), [(3.0, 3 * 6 * 0.5 * 0.25 * 3.0), (None, None)])
def test_volumes_need_the_distance_of_slices(slice_mm, volume):
    mask = np.zeros((3, 6, 7), np.uint8)
    mask[:, 2:4, 1:4] = 1
    case = case_of(mask, spacing_mm=(0.5, 0.25), spacing_is_real=True, slice_spacing_mm=slice_mm)

    assert measure(case.info, prediction_of(mask), 1).volume_mm3(1) == volume


def test_the_record_lists_the_frames_where_a_segment_was_found_and_sums_them():
    mask = np.zeros((3, 6, 7), np.uint8)
    mask[0, 0, 0] = 1
    mask[2, 2:4, 1:4] = 1
    mask[2, 5, 6] = 2
    case = case_of(mask, modality="US")

    record = statistics_record(case.info, measure(case.info, prediction_of(mask, classes=2), 2), (POLYP, VESSEL))

    polyp, vessel = record["segments"]
    assert [(frame["frame"], frame["pixels"]) for frame in polyp["frames"]] == [(1, 1), (3, 6)]
    assert (polyp["pixels"], polyp["largest_frame_pixels"], polyp["frames_found"]) == (7, 6, 2)
    assert polyp["share"] == pytest.approx(7 / mask.size, abs=1e-6)
    assert (vessel["pixels"], vessel["label"], vessel["code"]["value"]) == (1, "vessel", "59820001")
    assert polyp["confidence"] == vessel["confidence"] == 0.75
    assert record["image"]["modality"] == "US"


def test_a_segment_found_nowhere_has_zeros_and_no_confidence():
    mask = np.zeros((1, 6, 7), np.uint8)
    case = case_of(mask, spacing_mm=(1.0, 1.0), spacing_is_real=True)

    (polyp,) = statistics_record(case.info, measure(case.info, prediction_of(mask), 1), (POLYP,))["segments"]

    assert (polyp["pixels"], polyp["area_mm2"], polyp["frames"], polyp["confidence"]) == (0, 0, [], None)


def test_a_confidence_that_is_no_number_is_null_in_the_record():
    mask = np.zeros((1, 6, 7), np.uint8)
    case = case_of(mask)

    record = statistics_record(case.info, measure(case.info, prediction_of(mask, confidence=math.nan), 1), (POLYP,))

    assert record["confidence"] == [None]
    assert "low_confidence" in record["flags"]


@pytest.mark.parametrize(
    ("shape", "value", "classes", "message"),
    [
        ((1, 6, 8), 0, 0, r"the prediction is \(1, 6, 8\), and its case \(1, 6, 7\)"),
        ((1, 6, 7), 2, 0, r"holds class 2, and 1 segment"),
        ((1, 6, 7), 1, 2, r"probabilities of 2 classes were given, and 1 segment"),
    ],
)
def test_a_prediction_that_does_not_fit_is_refused(shape, value, classes, message):
    info = case_of(np.zeros((1, 6, 7), np.uint8)).info

    with pytest.raises(InputError, match=message):
        measure(info, prediction_of(np.full(shape, value, np.uint8), classes=classes), 1)
