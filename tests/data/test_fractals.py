"""Fractals against the laws that define them, by estimators that know nothing of how they were made."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from msrf_monai.data.synthetic import CascadeTruth, fractals, fractional_brownian_surface, multiplicative_cascade
from msrf_monai.errors import InputError

PLANE = (0.49, 0.21, 0.21, 0.09)
UNEVEN = (0.35, 0.3, 0.2, 0.15)
VOLUME = (0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.06, 0.04)


class OneHot(np.random.Generator):
    """Draws zeros and a single 1, so that each draw shows one column of what a linear generator does to its noise."""

    def __init__(self, place: int) -> None:
        super().__init__(np.random.PCG64(0))
        self.place = place

    def standard_normal(self, size: Any = None, *_: Any, **__: Any) -> Any:
        noise = np.zeros(size)
        if 0 <= self.place < noise.size:
            noise.flat[self.place] = 1
        self.place -= noise.size
        return noise


@pytest.mark.parametrize("hurst", [0.05, 0.3, 0.5, 0.75, 0.76, 0.9, 0.99])
def test_increments_have_exactly_the_variance_of_the_law(hurst: float) -> None:
    size = (4, 6)
    generator = OneHot(0)
    fractional_brownian_surface(size, hurst, seed=generator)
    numbers_drawn = -generator.place
    mixing = np.array(
        [fractional_brownian_surface(size, hurst, seed=OneHot(place)).ravel() for place in range(numbers_drawn)]
    )

    covariance = mixing.T @ mixing

    places = np.indices(size).reshape(2, -1)
    distance = np.hypot(*(places[:, :, None] - places[:, None, :]))
    spread = np.diag(covariance)
    increments = spread[:, None] + spread - 2 * covariance
    np.testing.assert_allclose(increments, distance ** (2 * hurst), atol=1e-9)


def variogram_slope(surface: np.ndarray, lags: range = range(1, 17)) -> float:
    """Half the slope of the mean squared increments over the lags, both logarithmic: an estimate of H."""
    mean_squares = [
        np.concatenate([((s[k:] - s[:-k]) ** 2).ravel() for s in (surface, surface.T)]).mean() for k in lags
    ]
    return float(np.polyfit(np.log(lags), np.log(mean_squares), 1)[0] / 2)


@pytest.mark.parametrize("hurst", [0.2, 0.35, 0.5, 0.65, 0.8, 0.9])
def test_the_variogram_returns_the_roughness_asked_for(hurst: float) -> None:
    slopes = [variogram_slope(fractional_brownian_surface((224, 224), hurst, seed=seed)) for seed in range(3)]

    assert np.mean(slopes) == pytest.approx(hurst, abs=0.05)


def test_a_surface_starts_at_zero_and_neighbours_differ_by_one() -> None:
    surface = fractional_brownian_surface((300, 200), 0.3, seed=1)

    assert surface.shape == (300, 200)
    assert surface.dtype == np.float64
    assert surface[0, 0] == 0
    assert np.diff(surface, axis=0).std() == pytest.approx(1, abs=0.02)
    assert np.diff(surface, axis=1).std() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("size", [(2, 2), (3, 50), (40, 17)])
@pytest.mark.parametrize("hurst", [0.001, 0.75, 0.7501, 0.999])
def test_no_size_and_roughness_is_refused_by_the_embedding(size: tuple[int, int], hurst: float) -> None:
    assert np.isfinite(fractional_brownian_surface(size, hurst)).all()


def test_a_seed_or_its_generator_draw_the_same_surface_and_the_next_one_differs() -> None:
    generator = np.random.default_rng(4)
    first, second = (fractional_brownian_surface((20, 30), 0.6, seed=generator) for _ in range(2))

    np.testing.assert_array_equal(first, fractional_brownian_surface((20, 30), 0.6, seed=4))
    assert (first[1:] != second[1:]).any()


def test_a_covariance_that_cannot_be_embedded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # A function that ends in a step is no covariance in the plane.
    monkeypatch.setattr(
        fractals._SteinCovariance, "__call__", lambda self, distance: np.where(distance <= 1, 1 - 0.2 * distance, 0.0)
    )
    with pytest.raises(InputError, match=r"hurst 0\.9 on .* points has a negative eigenvalue .* of the largest"):
        fractional_brownian_surface((16, 16), 0.9)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"size": (1, 9)}, r"size is \(1, 9\); expected height and width of 2"),
        ({"size": (9,)}, "size is"),
        ({"hurst": 0.0}, r"hurst is 0\.0; expected a number between 0 and 1"),
        ({"hurst": 1.0}, "hurst is"),
        ({"hurst": math.nan}, "hurst is nan"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_wrong_arguments_of_a_surface_are_named(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        fractional_brownian_surface(**{"size": (8, 8), "hurst": 0.5, **arguments})


def coarse(measure: np.ndarray, times: int) -> np.ndarray:
    """Add up blocks of 2^times cells along every axis."""
    for axis in range(measure.ndim):
        measure = np.add.reduceat(measure, np.arange(0, measure.shape[axis], 2**times), axis=axis)
    return measure


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("weights", "levels"), [(PLANE, 8), (UNEVEN, 8), (VOLUME, 5)])
def test_the_partition_function_has_the_slope_of_the_closed_form(
    weights: tuple[float, ...], levels: int, shuffle: bool
) -> None:
    measure = multiplicative_cascade(weights, levels, seed=5, shuffle=shuffle)
    truth = CascadeTruth(weights)

    sides = np.arange(levels)  # log2 of the boxes' sides in cells
    for q in (-3.0, -1.0, 0.0, 0.5, 1.0, 2.0, 5.0):
        sums = [np.log2((coarse(measure, int(side)) ** q).sum()) for side in sides]
        slope, scatter = np.polyfit(sides, sums, 1)[0], np.abs(np.diff(sums) - truth.mass_exponent(q)).max()
        assert slope == pytest.approx(truth.mass_exponent(q), abs=1e-9)
        assert scatter < 1e-9  # a straight line, not only on average


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("weights", "levels"), [(PLANE, 7), (UNEVEN, 7), (VOLUME, 5)])
def test_exponents_of_the_cells_have_the_means_and_the_range_of_the_closed_form(
    weights: tuple[float, ...], levels: int, shuffle: bool
) -> None:
    measure = multiplicative_cascade(weights, levels, seed=2, shuffle=shuffle)
    truth = CascadeTruth(weights)

    exponents = -np.log2(measure) / levels

    assert measure.shape == (2**levels,) * truth.spatial_dims
    assert measure.sum() == pytest.approx(1, abs=1e-12)
    assert exponents.mean() == pytest.approx(truth.typical_exponent, abs=1e-12)
    assert (exponents * measure).sum() == pytest.approx(truth.mass_typical_exponent, abs=1e-12)
    assert (exponents.min(), exponents.max()) == pytest.approx(truth.exponent_range, abs=1e-12)


def test_truths_equal_the_published_numbers() -> None:
    assert CascadeTruth(UNEVEN).typical_exponent == pytest.approx(2.0776, abs=5e-5)
    assert CascadeTruth(PLANE).typical_exponent == pytest.approx(2.2515, abs=5e-5)
    assert CascadeTruth(PLANE).mass_typical_exponent == pytest.approx(1.763, abs=5e-4)
    assert CascadeTruth((0.64, 0.16, 0.16, 0.04)).exponent_range == pytest.approx((0.64, 4.64), abs=5e-3)
    assert CascadeTruth(PLANE).mass_exponent(0) == -2
    assert CascadeTruth(PLANE).mass_exponent(1) == pytest.approx(0, abs=1e-15)
    even = CascadeTruth((0.125,) * 8)
    assert (even.typical_exponent, even.mass_typical_exponent, even.exponent_range) == (3, 3, (3, 3))


@pytest.mark.parametrize("weights", [PLANE, VOLUME])
def test_without_shuffling_a_cascade_is_a_kronecker_power(weights: tuple[float, ...]) -> None:
    block = np.reshape(weights, (2,) * CascadeTruth(weights).spatial_dims)

    np.testing.assert_allclose(
        multiplicative_cascade(weights, 3, shuffle=False), np.kron(np.kron(block, block), block), rtol=1e-12
    )


def test_shuffling_gives_every_order_to_the_cells_alike() -> None:
    measure = multiplicative_cascade(UNEVEN, 8, seed=0)
    parent = np.repeat(np.repeat(coarse(measure, 1), 2, 0), 2, 1)
    shares = (measure / parent).reshape(128, 2, 128, 2).transpose(0, 2, 1, 3).reshape(-1, 4)

    np.testing.assert_allclose(np.sort(shares, axis=1), np.tile(sorted(UNEVEN), (len(shares), 1)), rtol=1e-9)
    orders, counts = np.unique(np.argsort(shares, axis=1), axis=0, return_counts=True)
    assert len(orders) == 24
    expected = len(shares) / 24
    assert ((counts - expected) ** 2 / expected).sum() < 49.7  # chi-square, 23 degrees of freedom, p = 0.001


def test_a_seed_draws_the_same_cascade_and_another_seed_another() -> None:
    first = multiplicative_cascade(PLANE, 5, seed=3)

    np.testing.assert_array_equal(first, multiplicative_cascade(PLANE, 5, seed=np.random.default_rng(3)))
    assert (first != multiplicative_cascade(PLANE, 5, seed=4)).any()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"weights": (0.5, 0.5)}, "there are 2 weights; expected 4 children in a plane or 8"),
        ({"weights": (0.5, 0.3, 0.3, 0.1)}, r"sum 1\.2; expected numbers above 0 whose sum is 1"),
        ({"weights": (0.5, 0.5, 0.1, -0.1)}, "expected numbers above 0"),
        ({"weights": (0.5, 0.5, 0.0, 0.0)}, "expected numbers above 0"),
        ({"weights": (0.5, 0.5, math.nan, 0.1)}, "expected numbers above 0"),
        ({"levels": 0}, "levels is 0; expected 1 to 14 in 2-D"),
        ({"levels": 15}, "levels is 15"),
        ({"weights": VOLUME, "levels": 10}, "levels is 10; expected 1 to 9 in 3-D"),
        ({"seed": -2}, "seed is -2"),
    ],
)
def test_wrong_arguments_of_a_cascade_are_named(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        multiplicative_cascade(**{"weights": PLANE, "levels": 3, **arguments})
    if "weights" in arguments and "levels" not in arguments:
        with pytest.raises(InputError, match=reason):
            CascadeTruth(arguments["weights"])
