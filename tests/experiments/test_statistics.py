"""The statistics: against SciPy, closed forms, and the model under which the corrected test is exact."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats

from msrf_monai.errors import InputError
from msrf_monai.experiments import clustered_interval, compare, corrected_resampled_t, holm, paired_t
from msrf_monai.metrics import bootstrap_interval


def draw(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.01, 0.02, count)


@pytest.mark.parametrize("folds", [2, 3, 5, 10])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_paired_t_is_that_of_scipy(folds: int, confidence: float) -> None:
    one, other = draw(folds, 1) + 0.8, draw(folds, 2) + 0.79

    test = paired_t(one - other, confidence=confidence)

    expected = scipy.stats.ttest_rel(one, other)
    interval = expected.confidence_interval(confidence)
    assert test.t == pytest.approx(expected.statistic)
    assert test.p == pytest.approx(expected.pvalue)
    assert test.df == folds - 1
    assert test.interval == pytest.approx((interval.low, interval.high))


def test_corrected_t_is_the_closed_form() -> None:
    # mean 2, variance 1, three folds, n_test / n_train 1/2: t = 2 / sqrt((1/3 + 1/2) * 1)
    test = corrected_resampled_t([1.0, 2.0, 3.0], ratio=0.5)

    t = 2 / math.sqrt(5 / 6)
    assert test.t == pytest.approx(t)
    assert test.p == pytest.approx(1 - t / math.sqrt(2 + t * t))  # Student's distribution with two degrees of freedom
    half = math.sqrt(5 / 6) * 4.302652729749  # its 97.5 % point, from tables
    assert test.interval == pytest.approx((2 - half, 2 + half))


def test_corrected_t_keeps_its_level_where_folds_are_correlated_and_the_plain_one_does_not() -> None:
    # Differences of a common part and own noise, correlated by rho = n_test / (n_test + n_train), the model of the
    # correction: there the statistic has exactly Student's distribution.
    rng = np.random.default_rng(0)
    rho, folds, repeats = 0.1, 10, 3000
    common = math.sqrt(rho) * rng.normal(size=(repeats, 1))
    differences = common + math.sqrt(1 - rho) * rng.normal(size=(repeats, folds))

    corrected = np.array([corrected_resampled_t(row, ratio=rho / (1 - rho)).p for row in differences])
    plain = np.array([paired_t(row).p for row in differences])

    assert scipy.stats.kstest(corrected, "uniform").pvalue > 0.01
    assert 0.04 < (corrected < 0.05).mean() < 0.06
    assert (plain < 0.05).mean() > 0.10


def test_tests_of_equal_differences_are_defined() -> None:
    assert paired_t([0.0, 0.0, 0.0]).p == 1
    assert paired_t([0.0, 0.0]).interval == (0, 0)
    assert paired_t([0.5, 0.5]).p == 0
    assert paired_t([-0.5, -0.5]).t == -math.inf


@pytest.mark.parametrize("differences", [[0.1], [], [0.1, math.nan], [[0.1, 0.2]]])
def test_tests_refuse_what_they_cannot_test(differences: Any) -> None:
    with pytest.raises(InputError, match="two or more finite differences"):
        paired_t(differences)


@pytest.mark.parametrize("ratio", [0.0, -1.0, math.nan])
def test_the_correction_refuses_a_ratio_that_is_none(ratio: float) -> None:
    with pytest.raises(InputError, match="ratio of test to training"):
        corrected_resampled_t([0.1, 0.2], ratio=ratio)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # the usual textbook example
        ([0.2], [0.2]),
        ([0.6, 0.9], [1.0, 1.0]),
        ([0.04, None, 0.01], [0.04, None, 0.02]),
        ([None], [None]),
        ([], []),
    ],
)
def test_holm(given: list[float | None], expected: list[float | None]) -> None:
    assert holm(given) == pytest.approx(expected)


def test_holm_lies_between_no_correction_and_bonferroni() -> None:
    given = np.random.default_rng(3).uniform(0, 0.3, 7).tolist()

    corrected = np.array(holm(given), dtype=float)

    assert (corrected >= given).all()
    assert (corrected <= np.minimum(1, 7 * np.array(given)) + 1e-12).all()
    assert (np.diff(corrected[np.argsort(given)]) >= 0).all()


def test_two_clusters_give_the_interval_between_their_means() -> None:
    # the resampled mean is that of one cluster, of the other, or of both
    interval = clustered_interval([1.0, 3.0, 5.0, 7.0], ["a", "a", "b", "b"])

    assert interval == (2, 6)


def test_single_images_as_clusters_give_the_bootstrap_over_images() -> None:
    values = draw(50)

    assert clustered_interval(values, range(50), seed=4) == pytest.approx(bootstrap_interval(values, seed=4))


def test_clusters_of_like_values_give_a_wider_interval() -> None:
    values = np.repeat(draw(10), 20)

    by_cluster = clustered_interval(values, np.repeat(range(10), 20).tolist())
    by_value = clustered_interval(values, range(200))

    assert by_cluster[1] - by_cluster[0] > 3 * (by_value[1] - by_value[0])


def test_as_many_clusters_as_values_are_needed() -> None:
    with pytest.raises(InputError, match="2 clusters"):
        clustered_interval([1.0, 2.0, 3.0], ["a", "b"])


def scores(folds: int, images: int, shift: float = 0.0) -> dict[tuple[int, str], float]:
    rng = np.random.default_rng(1)
    return {(fold, f"{fold}-{image}"): rng.uniform() + shift * fold for fold in range(folds) for image in range(images)}


def test_comparison_pairs_images_and_folds() -> None:
    baseline, variant = scores(3, 4), scores(3, 4, shift=0.1)

    found = compare(variant, baseline, ratio=0.5)

    assert (found.images, found.folds, found.better, found.worse) == (12, 3, 8, 0)
    assert found.mean == pytest.approx(0.1)
    assert found.fold_differences == pytest.approx({0: 0, 1: 0.1, 2: 0.2})
    assert found.interval_folds == pytest.approx((0.0, 0.2), abs=0.04)
    assert found.corrected is not None
    assert found.uncorrected is not None
    assert found.corrected.p == pytest.approx(corrected_resampled_t([0, 0.1, 0.2], ratio=0.5).p)
    assert found.uncorrected.p < found.corrected.p


def test_comparison_uses_what_both_have_and_leaves_undefined_scores_out() -> None:
    baseline, variant = scores(3, 4), scores(2, 4, shift=0.1)
    variant[0, "0-0"] = math.nan

    found = compare(variant, baseline, ratio=0.5)

    assert (found.images, found.folds) == (7, 2)


def test_one_common_fold_is_described_and_not_tested() -> None:
    found = compare(scores(1, 4), scores(3, 4), ratio=0.5)

    assert (found.folds, found.corrected, found.uncorrected) == (1, None, None)


def test_groups_are_drawn_together() -> None:
    baseline = dict.fromkeys(scores(2, 10), 0.0)
    variant = {(fold, name): float(name.split("-")[1] < "5") for fold, name in baseline}
    groups: dict[str, str | None] = {name: f"patient {name.split('-')[1] < '5'}" for _, name in baseline}

    by_group = compare(variant, baseline, ratio=0.5, groups=groups)
    by_image = compare(variant, baseline, ratio=0.5)

    assert by_group.interval_images == (0, 1)
    assert by_image.interval_images[0] > 0.2


def test_nothing_in_common_is_refused() -> None:
    with pytest.raises(InputError, match="no image in common"):
        compare({(0, "a"): 1.0}, {(0, "b"): 1.0}, ratio=0.5)
