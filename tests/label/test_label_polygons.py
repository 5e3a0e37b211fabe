"""Polygons of masks: what they fill by the even-odd rule is the mask, holes and all."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from msrf_monai.label.polygons import annotation_of, polygons


def painted(found: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Count, for each pixel, the polygons whose inside its middle is in."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    x, y = columns.ravel() + 0.5, rows.ravel() + 0.49
    counts = np.zeros(x.shape, int)
    for ring in found:
        (x0, y0), (x1, y1) = ring.T[:, :, None], np.roll(ring, -1, axis=0).T[:, :, None]
        slope = (x1 - x0) / np.where(y1 == y0, 1, y1 - y0)
        meets = ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * slope)
        counts += meets.sum(axis=0) % 2
    return counts.reshape(shape)


@pytest.mark.parametrize("share", [0.1, 0.4, 0.6, 0.9])
@pytest.mark.parametrize("seed", range(15))
def test_the_polygons_fill_every_pixel_of_the_mask_once_and_no_other(seed, share):
    generator = np.random.default_rng(seed)
    mask = generator.random(generator.integers(1, 25, 2)) < share

    assert np.array_equal(painted(polygons(mask), mask.shape), mask.astype(int))


def test_a_hole_in_a_part_in_a_hole_is_kept():
    mask = np.zeros((21, 33), np.uint8)
    for step, value in ((1, 1), (4, 0), (7, 1), (9, 0)):
        cv2.rectangle(mask, (step, step), (32 - step, 20 - step), value, -1)

    found = polygons(mask > 0)

    assert len(found) == 2
    assert np.array_equal(painted(found, mask.shape), mask.astype(int))


def test_an_empty_mask_has_none_and_a_full_one_has_the_frame():
    assert polygons(np.zeros((4, 5), bool)) == []
    (frame,) = polygons(np.ones((4, 5), bool))
    assert sorted(map(tuple, frame)) == [(0, 0), (0, 4), (5, 0), (5, 4)]


def test_small_parts_are_left_out_by_their_area_without_holes():
    mask = np.zeros((12, 20), bool)
    mask[1:4, 1:4] = True  # 9 pixels
    mask[5:10, 5:10] = True  # 25, less the hole
    mask[6:9, 6:9] = False

    assert [len(polygons(mask, area)) for area in (0, 9, 10, 16, 17)] == [2, 2, 1, 1, 0]


def test_each_class_is_an_element_and_an_absent_one_is_none():
    mask = np.zeros((6, 6), np.uint8)
    mask[:2, :3], mask[4:, 4:] = 1, 3

    found = annotation_of(mask, {"polyp": 1, "vessel": 2, "tool": 3}, {"polyp": (1, 2, 3)})["annotation"]

    assert [element["label"] for element in found["elements"]] == ["polyp", "tool"]
    assert found["labels"] == {"polyp": (1, 2, 3)}
