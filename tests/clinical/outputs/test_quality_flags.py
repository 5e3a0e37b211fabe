"""Flags: what raises each of them, and what just does not."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from msrf_monai.clinical.quality import FLAGS, TRAITS, QualityLimits, flags_of, frame_flags
from msrf_monai.clinical.statistics import measure
from msrf_monai.clinical.statistics_record import statistics_record
from msrf_monai.clinical.writing import Segment
from msrf_monai.errors import ConfigError
from support.clinical_cases import array_case, prediction_of


def statistics_of(mask, *, confidence=0.9):
    return measure(array_case(np.zeros(mask.shape, np.uint8)).info, prediction_of(mask, confidence=confidence), 1)


def looks(mask, *, traits=None, agreement=None):
    """Statistics of frames that look so, and agree so far with their mirror images."""
    prediction = dataclasses.replace(prediction_of(mask), traits=traits, flip_agreement=agreement)
    return measure(array_case(np.zeros(mask.shape, np.uint8)).info, prediction, 1)


def marked(count, rows=10, columns=10):
    """A frame with so many pixels marked, row by row from the second one."""
    mask = np.zeros(rows * columns, np.uint8)
    mask[columns + 1 : columns + 1 + count] = 1
    return mask.reshape(1, rows, columns)


def border(count):
    """A frame of 36 border pixels with so many of them marked."""
    mask = np.zeros((1, 10, 10), np.uint8)
    mask[0, 0, :count] = 1
    mask[0, 5, 5] = 1
    return mask


def dots(count):
    mask = np.zeros((1, 30, 30), np.uint8)
    places = [(row, column) for row in range(2, 28, 2) for column in range(2, 28, 2)]
    for row, column in places[:count]:
        mask[0, row, column] = 1
    return mask


@pytest.mark.parametrize(
    ("mask", "limits", "flag", "expected"),
    [
        (marked(0), QualityLimits(), "empty_mask", True),
        (marked(1), QualityLimits(), "empty_mask", False),
        (marked(60), QualityLimits(whole_image=0.6), "whole_image", True),
        (marked(59), QualityLimits(whole_image=0.6), "whole_image", False),
        (border(4), QualityLimits(), "touches_border", True),
        (border(3), QualityLimits(), "touches_border", False),
        (dots(51), QualityLimits(), "many_components", True),
        (dots(50), QualityLimits(), "many_components", False),
    ],
    ids=["empty", "one", "whole", "not-whole", "border", "less-border", "parts", "fewer-parts"],
)
def test_each_flag_is_raised_just_beyond_its_bound(mask, limits, flag, expected):
    assert (flag in flags_of(statistics_of(mask), limits)) is expected


@pytest.mark.parametrize(("confidence", "expected"), [(0.749, True), (0.75, False), (float("nan"), True)])
def test_low_confidence_is_below_its_bound_or_no_number(confidence, expected):
    assert ("low_confidence" in flags_of(statistics_of(marked(5), confidence=confidence))) is expected


@pytest.mark.parametrize(("count", "expected"), [(19, True), (20, False), (30, False), (31, True), (0, False)], ids=str)
def test_an_area_is_unusual_outside_the_range_of_the_training_data(count, expected):
    assert ("unusual_area" in flags_of(statistics_of(marked(count)), QualityLimits(area=(0.2, 0.3)))) is expected


def test_no_area_is_unusual_where_nothing_is_known_of_the_training_data():
    assert "unusual_area" not in flags_of(statistics_of(marked(1)))


@pytest.mark.parametrize(
    ("agreement", "expected"), [((0.79,), True), ((0.8,), False), ((float("nan"),), True), (None, False)], ids=str
)
def test_flips_disagree_below_the_bound_and_only_when_they_were_tried(agreement, expected):
    found = flags_of(looks(marked(5), agreement=agreement), QualityLimits(flip_agreement=0.8))

    assert ("flips_disagree" in found) is expected


@pytest.mark.parametrize("name", TRAITS)
@pytest.mark.parametrize(
    ("value", "bounds", "expected"),
    [
        (3.0, (2.0, 4.0), False),
        (1.9, (2.0, 4.0), True),
        (4.1, (2.0, 4.0), True),
        (4.1, (2.0, None), False),
        (1.9, (None, 4.0), False),
        (float("nan"), (None, None), True),
    ],
    ids=str,
)
def test_an_image_is_unlike_the_training_data_when_one_trait_is_outside(name, value, bounds, expected):
    traits = ({**dict.fromkeys(TRAITS, 3.0), name: value},)

    found = flags_of(looks(marked(5), traits=traits), QualityLimits(traits=((name, bounds),)))

    assert ("unlike_training" in found) is expected


def test_the_record_tells_which_trait_of_which_frame_is_outside():
    mask = np.concatenate([marked(5), marked(5)])
    traits = ({"warmth": 3.25, "aspect": 1.0}, {"warmth": 9.5, "aspect": 2.0})
    limits = QualityLimits(traits=(("aspect", (1.0, 1.5)), ("warmth", (0.0, 9.0))))

    statistics = looks(mask, traits=traits, agreement=(0.75, 0.25))
    record = statistics_record(array_case(np.zeros(mask.shape, np.uint8)).info, statistics, (Segment(1, "x"),), limits)

    assert record["unlike_training"] == {"2": ["aspect", "warmth"]}
    assert record["traits"] == list(traits)
    assert record["flip_agreement"] == [0.75, 0.25]
    assert record["flagged_frames"] == {"2": ["flips_disagree", "unlike_training"]}


def test_an_empty_slice_of_a_volume_is_no_flag_but_an_empty_volume_is():
    one, none = np.concatenate([marked(0), marked(7)]), np.concatenate([marked(0), marked(0)])

    assert flags_of(statistics_of(one)) == ()
    assert flags_of(statistics_of(none)) == ("empty_mask",)


def test_frames_have_flags_of_their_own_and_the_case_has_each_once():
    mask = np.concatenate([border(9), marked(7), border(9)])

    assert frame_flags(statistics_of(mask)) == {0: ("touches_border",), 2: ("touches_border",)}
    assert flags_of(statistics_of(mask)) == ("touches_border",)


def test_flags_come_in_the_order_of_their_table():
    found = flags_of(statistics_of(np.ones((1, 10, 10), np.uint8), confidence=0.5))

    assert found == tuple(flag for flag in FLAGS if flag in found)
    assert set(found) == {"whole_image", "low_confidence", "touches_border"}


def test_a_bundle_sets_bounds_of_its_own():
    limits = QualityLimits.from_metadata({"quality_limits": {"many_components": 2}})

    assert limits == QualityLimits(many_components=2)
    assert "many_components" in flags_of(statistics_of(dots(3)), limits)
    assert QualityLimits.from_metadata({}) == QualityLimits()
    assert QualityLimits.from_metadata({"quality_limits": {"traits": None, "area": None}}) == QualityLimits()


def test_bounds_come_back_from_metadata_as_they_were_put_there():
    limits = QualityLimits(
        low_confidence=0.9, area=(0.01, 0.5), flip_agreement=0.7, traits=(("aspect", (None, 2.5)), ("warmth", (-1, 9)))
    )

    stored = limits.as_metadata()

    assert QualityLimits.from_metadata({"quality_limits": json.loads(json.dumps(stored))}) == limits
    assert set(stored) == {"low_confidence", "area", "flip_agreement", "traits"}
    assert QualityLimits().as_metadata() == {}


@pytest.mark.parametrize(
    "given",
    [
        {"largest": 1},
        ["whole_image"],
        {"low_confidence": 1.5},
        {"touches_border": "0.1"},
        {"area": 0.5},
        {"area": [0.5]},
        {"area": [0.5, 0.4]},
        {"area": ["a", 1]},
        {"traits": {"smell": [0, 1]}},
        {"traits": [0, 1]},
        {"traits": {"aspect": [2, 1]}},
        {"flip_agreement": 2},
    ],
    ids=str,
)
def test_bounds_that_there_are_not_are_refused(given):
    with pytest.raises(ConfigError, match="quality"):
        QualityLimits.from_metadata({"quality_limits": given})
