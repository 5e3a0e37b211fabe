"""Flags: what raises each of them, and what just does not."""

from __future__ import annotations

import numpy as np
import pytest

from msrf_monai.clinical.quality import FLAGS, QualityLimits, flags_of, frame_flags
from msrf_monai.clinical.statistics import measure
from msrf_monai.errors import ConfigError
from support.clinical_cases import array_case, prediction_of


def statistics_of(mask, *, confidence=0.9):
    return measure(array_case(np.zeros(mask.shape, np.uint8)).info, prediction_of(mask, confidence=confidence), 1)


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


@pytest.mark.parametrize("given", [{"largest": 1}, ["whole_image"], {"low_confidence": 1.5}, {"touches_border": "0.1"}])
def test_bounds_that_there_are_not_are_refused(given):
    with pytest.raises(ConfigError, match="quality"):
        QualityLimits.from_metadata({"quality_limits": given})
