"""Measures of vessels against shapes whose measures are known."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from skimage.draw import disk, line
from skimage.morphology import skeletonize

from msrf_monai.errors import InputError
from msrf_monai.vessel_measures import (
    MEASURES,
    box_counting,
    branch_and_end_points,
    calibres,
    skeleton_length,
    skeleton_of,
    vessel_measures,
)


def _bar(width: int, length: int = 60, *, upright: bool = False) -> np.ndarray:
    mask = np.zeros((width + 20, length + 21), bool)
    mask[9 : 9 + width, 11 : 11 + length] = True
    return np.ascontiguousarray(mask.T) if upright else mask


def _drawn(*lines: tuple[int, int, int, int], shape: tuple[int, int] = (40, 50)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    for ends in lines:
        mask[line(*ends)] = True
    return mask


def _carpet(order: int) -> np.ndarray:
    carpet = np.ones((1, 1), bool)
    hole = np.ones((3, 3), bool)
    hole[1, 1] = False
    for _ in range(order):
        carpet = np.kron(carpet, hole)
    return carpet


@pytest.mark.parametrize("width", range(1, 14))
@pytest.mark.parametrize("upright", [False, True])
def test_a_straight_bar_is_as_wide_as_it_is(width: int, upright: bool) -> None:
    mask = _bar(width, upright=upright)
    skeleton = skeleton_of(mask)
    middle = (
        skeleton
        & np.isin(np.arange(mask.shape[0 if upright else 1]), range(30, 50))[
            (slice(None), None) if upright else (None, slice(None))
        ]
    )

    assert middle.any()
    assert calibres(mask, middle).tolist() == [width] * int(middle.sum())
    assert calibres(mask, middle, spacing=(7.0, 7.0)) == pytest.approx(7.0 * width)


@pytest.mark.parametrize("angle", [20, 45, 70])
def test_a_slanted_bar_is_about_as_wide_as_it_is(angle: int) -> None:
    rows, columns = np.mgrid[:200, :220] - 100.0
    across = rows * math.cos(math.radians(angle)) - columns * math.sin(math.radians(angle))
    along = rows * math.sin(math.radians(angle)) + columns * math.cos(math.radians(angle))
    mask = (np.abs(across) <= 5) & (np.abs(along) <= 80)

    assert calibres(mask, skeleton_of(mask)).mean() == pytest.approx(10, abs=0.7)


def test_pixels_that_are_not_square_are_measured_in_both_directions() -> None:
    level, upright = _bar(4), _bar(4, upright=True)
    assert calibres(level, skeleton_of(level), spacing=(3.0, 100.0))[10:-10].max() == pytest.approx(12)
    assert calibres(upright, skeleton_of(upright), spacing=(100.0, 3.0))[10:-10].max() == pytest.approx(12)
    assert skeleton_length(_drawn((5, 5, 5, 15)), spacing=(3.0, 100.0)) == 1000
    assert skeleton_length(_drawn((5, 5, 15, 5)), spacing=(3.0, 100.0)) == 30
    assert skeleton_length(_drawn((5, 5, 15, 15)), spacing=(3.0, 4.0)) == pytest.approx(50)


def test_a_vessel_at_the_border_is_no_wider_for_it() -> None:
    mask = np.zeros((20, 60), bool)
    mask[:4] = True
    inner = skeleton_of(mask)[:, 20:40]
    assert calibres(mask[:, 10:50], np.pad(inner, ((0, 0), (10, 10)))).tolist() == [4] * int(inner.sum())


@pytest.mark.parametrize(
    ("skeleton", "length"),
    [
        (_drawn((5, 5, 5, 25)), 20),
        (_drawn((5, 5, 25, 5)), 20),
        (_drawn((5, 5, 25, 25)), 20 * math.sqrt(2)),
        (_drawn((25, 5, 5, 25)), 20 * math.sqrt(2)),
        (_drawn((5, 5, 5, 15), (5, 15, 15, 15)), 20),  # the corner is not cut
        (_drawn((5, 5, 5, 5)), 0),
        (np.zeros((4, 5), bool), 0),
    ],
)
def test_the_length_is_the_sum_of_steps(skeleton: np.ndarray, length: float) -> None:
    assert skeleton_length(skeleton) == pytest.approx(length)


def test_the_length_of_a_circle_is_near_its_circumference() -> None:
    rows, columns = np.mgrid[:241, :241] - 120.0
    ring = np.abs(np.hypot(rows, columns) - 100) < 2
    # chains of steps along axes and diagonals are up to 8 % too long; over all directions 5.5 %
    assert skeleton_length(skeletonize(ring)) == pytest.approx(2 * math.pi * 100 * 1.055, rel=0.01)


@pytest.mark.parametrize(
    ("mask", "sizes", "dimension"),
    [
        (np.ones((1, 256), bool), None, 1.0),
        (np.eye(256, dtype=bool), None, 1.0),
        (np.ones((256, 256), bool), None, 2.0),
        (_carpet(5), [3**power for power in range(5)], math.log(8) / math.log(3)),
    ],
)
def test_known_fractals_have_their_dimension(mask: np.ndarray, sizes: Any, dimension: float) -> None:
    found = box_counting(mask, sizes=sizes)
    assert found.dimension == pytest.approx(dimension, abs=1e-9)
    assert found.r_squared == pytest.approx(1)
    moved = box_counting(np.pad(mask, ((13, 2), (5, 30))), sizes=sizes)
    assert moved == found


def test_the_carpet_is_near_its_dimension_at_powers_of_two_as_well() -> None:
    assert box_counting(_carpet(6)).dimension == pytest.approx(1.8928, abs=0.05)


def test_boxes_are_counted_where_the_last_one_is_cut() -> None:
    found = box_counting(np.ones((5, 7), bool), sizes=[4, 1, 2])
    assert (found.sizes, found.counts) == ((1, 2, 4), (35, 12, 4))


def test_too_few_sizes_give_no_dimension() -> None:
    assert box_counting(np.ones((3, 9), bool)).dimension is None
    assert box_counting(np.zeros((3, 9), bool)).counts == ()
    for sizes in ([0, 1, 2], [2, 2, 4]):
        with pytest.raises(InputError, match="sizes of boxes are whole numbers"):
            box_counting(np.ones((9, 9), bool), sizes=sizes)


@pytest.mark.parametrize(
    ("skeleton", "branches", "ends"),
    [
        (_drawn((5, 5, 5, 25)), 0, 2),
        (_drawn((5, 5, 5, 25), (5, 15, 20, 15)), 1, 3),  # T
        (_drawn((5, 5, 25, 25), (25, 5, 5, 25)), 1, 4),  # X
        (_drawn((15, 5, 15, 25), (5, 15, 25, 15)), 1, 4),  # +
        (_drawn((5, 5, 5, 15), (5, 15, 15, 15), (15, 5, 15, 15), (5, 5, 15, 5)), 0, 0),  # a frame
        (_drawn((5, 5, 5, 5)), 0, 0),
        (_drawn((0, 0, 0, 49)), 0, 2),  # along the border
    ],
)
def test_forks_and_ends_are_counted(skeleton: np.ndarray, branches: int, ends: int) -> None:
    assert branch_and_end_points(skeleton) == (branches, ends)


def test_a_staircase_has_no_forks() -> None:
    steps = np.zeros((12, 12), bool)
    for k in range(10):
        steps[k, k] = steps[k, k + 1] = True
    assert branch_and_end_points(steps) == (0, 2)
    assert skeleton_length(steps) == 19  # along the axes only: each diagonal cuts a corner


def test_all_measures_of_a_bar_in_half_a_field_of_view() -> None:
    mask = _bar(5, 80)
    fov = np.zeros(mask.shape, bool)
    fov[:, :51] = True

    found = vessel_measures(mask.astype(np.uint8), fov, spacing_um=(6.0, 6.0))

    assert found.fov_area_px == fov.sum()
    assert found.vessel_area_px == 5 * 40
    assert found.vessel_density == pytest.approx(200 / fov.sum())
    assert found.skeleton_length_px is not None
    assert found.skeleton_length_px == pytest.approx(36, abs=4)
    assert found.skeleton_length_um == pytest.approx(6 * found.skeleton_length_px)
    assert found.mean_calibre_px == pytest.approx(5, abs=0.5)
    assert found.mean_calibre_um == pytest.approx(6 * (found.mean_calibre_px or 0))
    assert (found.branch_points, found.end_points) == (0, 2)
    assert found.reasons.keys() == {"fractal_dimension", "fractal_dimension_skeleton"}  # only 40 pixels long
    assert found.fits["fractal_dimension"] == {"sizes_px": [8], "counts": [5], "r_squared": None}


def _counts(mask: np.ndarray, sizes: list[int]) -> list[int]:
    """Count box by box, from the first row and column that have a vessel."""
    rows, columns = np.nonzero(mask)
    cut = mask[rows.min() :, columns.min() :]
    places = {size: [range(0, length, size) for length in cut.shape] for size in sizes}
    return [
        sum(bool(cut[top : top + size, left : left + size].any()) for top in tops for left in lefts)
        for size, (tops, lefts) in places.items()
    ]


def test_a_round_vessel_map_has_the_dimension_of_boxes_counted_one_by_one() -> None:
    mask = np.zeros((300, 320), bool)
    rng = np.random.default_rng(2)
    for _ in range(25):
        a, b = rng.integers(20, 280, (2, 2))
        mask[line(*a, *b)] = True
    found = vessel_measures(mask)
    sizes = [8, 16, 32]
    for name, counted in (("fractal_dimension", mask), ("fractal_dimension_skeleton", skeletonize(mask))):
        counts = _counts(counted, sizes)
        slope = np.polyfit(np.log(sizes), np.log(counts), 1)[0]
        assert getattr(found, name) == pytest.approx(-slope, rel=1e-9)
        assert found.fits[name]["counts"] == counts
        assert found.fits[name]["sizes_px"] == sizes
    assert found.fits["fractal_dimension"]["r_squared"] > 0.98
    assert found.branch_points is not None
    assert found.branch_points > 20


def test_without_a_spacing_nothing_is_in_micrometres() -> None:
    found = vessel_measures(_bar(3))
    assert found.skeleton_length_um is None
    assert found.mean_calibre_um is None
    assert {"skeleton_length_um", "mean_calibre_um"} <= found.reasons.keys()
    assert "not known" in found.reasons["mean_calibre_um"]


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (30, 40)])
def test_an_empty_mask_gives_reasons(shape: tuple[int, int]) -> None:
    found = vessel_measures(np.zeros(shape, bool), spacing_um=(1, 1))
    assert found.vessel_density == 0
    assert found.reasons.keys() == set(MEASURES) - {"fov_area_px", "vessel_area_px", "vessel_density"}
    assert all(getattr(found, name) is None for name in found.reasons)
    json.dumps(found.as_dict(), allow_nan=False)


def test_an_empty_field_of_view_gives_reasons() -> None:
    found = vessel_measures(np.ones((4, 6), bool), np.zeros((4, 6), bool))
    assert found.vessel_density is None
    assert set(found.reasons.values()) == {"the field of view has no pixel"}


@pytest.mark.parametrize(
    "mask", [np.ones((1, 1), bool), np.ones((7, 9), bool), np.ones((1, 30), bool), np.eye(3, dtype=bool)]
)
def test_odd_masks_are_no_error_and_every_gap_has_a_reason(mask: np.ndarray) -> None:
    found = vessel_measures(mask)
    gaps = {name for name in MEASURES if getattr(found, name) is None}
    assert gaps == found.reasons.keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.full((3, 4), 2),), "must be a decided mask of 0 and 1"),
        ((np.ones((1, 3, 4)),), r"must be one image \(H, W\), got shape \(1, 3, 4\)"),
        ((np.ones((3, 4)), np.ones((4, 3))), r"fov has shape \(4, 3\)"),
    ],
)
def test_what_is_no_mask_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        vessel_measures(*arguments)


@pytest.mark.parametrize("spacing", [(0.0, 1.0), (1.0, -1.0), (float("nan"), 1.0)])
def test_a_spacing_that_cannot_be_is_refused(spacing: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="both above 0"):
        vessel_measures(np.ones((3, 4), bool), spacing_um=spacing)


def test_a_disc_has_the_calibre_of_its_diameter_at_its_centre() -> None:
    mask = np.zeros((61, 71), bool)
    mask[disk((30, 35), 20.4, shape=mask.shape)] = True
    centre = np.zeros_like(mask)
    centre[30, 35] = True
    assert calibres(mask, centre)[0] == pytest.approx(40.8, abs=1.5)
