"""The consistency of published scores: the specification's cases, exact tables of counts, and impossible rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from msrf_monai.errors import InputError
from msrf_monai.metrics import (
    Confusion,
    accuracy_and_f1_at,
    published_scores_consistency,
    vessel_pixel_scores,
)


@pytest.mark.parametrize(
    ("printed", "shares", "derived"),
    [  # Se, "Sp", F1, Acc | p by accuracy, by F1 | p, specificity, NPV, precision, MCC without the printed specificity
        ((0.8634, 0.9869, 0.8347, 0.9707), (0.131, 0.060), (0.0857, 0.9808, 0.9871, 0.808, 0.819)),  # STARE
        ((0.8575, 0.9860, 0.7977, 0.9621), (0.186, 0.046), (0.0871, 0.9721, 0.9862, 0.746, 0.779)),  # DRIVE
        ((0.8048, 0.9867, 0.7894, 0.9730), (0.075, 0.054), (0.0629, 0.9843, 0.9869, 0.775, 0.775)),  # CHASE_DB1
    ],
)
def test_the_rows_of_imff_net_print_npv_as_specificity(
    printed: tuple[float, ...], shares: tuple[float, ...], derived: tuple[float, ...]
) -> None:
    row = published_scores_consistency(*printed)
    assert not row.agree
    assert row.specificity_is_npv
    assert (row.prevalence_from_accuracy, row.prevalence_from_f1) == pytest.approx(shares, abs=5.1e-4)
    assert (row.prevalence, row.specificity, row.npv) == pytest.approx(derived[:3], abs=5.1e-5)
    assert (row.ppv, row.mcc) == pytest.approx(derived[3:], abs=5.1e-4)
    assert abs(row.npv - printed[1]) <= 2.5e-4
    assert "cannot be of the same pixels" in row.verdict
    assert "is the negative predictive value" in row.verdict


def test_the_chase_row_of_rv_gan_is_impossible_for_another_reason() -> None:
    row = published_scores_consistency(0.8199, 0.9806, 0.8957, 0.9697)
    assert not row.agree
    assert not row.specificity_is_npv
    assert row.f1_from_accuracy == pytest.approx(0.786, abs=5e-4)
    assert "the other three mean 0.7859" in row.verdict


def test_a_row_of_the_anchor_agrees_and_yields_the_share_of_vessels_in_the_field_of_view() -> None:
    row = published_scores_consistency(0.8475, 0.9710, 0.8283, 0.9553)  # Little W-Net on DRIVE, pooled inside the FOV
    assert row.agree
    assert row.prevalence_from_accuracy == pytest.approx(0.1273, abs=1e-3)
    assert row.prevalence == pytest.approx(0.1273, abs=2e-3)
    assert row.specificity == pytest.approx(0.9710, abs=5e-4)
    assert row.mcc == pytest.approx(0.8029, abs=1e-3)
    assert row.verdict.startswith("The four scores agree")


def test_the_true_share_of_drive_would_make_the_printed_row_better_than_any_method() -> None:
    assert accuracy_and_f1_at(0.0876, 0.8575, 0.9860) == pytest.approx((0.975, 0.856), abs=5e-4)
    assert math.isnan(accuracy_and_f1_at(0.0, 0.5, 1.0)[1])


def test_scores_of_any_table_of_counts_agree_and_are_derived_exactly() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        tp, fp, fn, tn = (int(count) for count in generator.integers(1, [3000, 1000, 1000, 90_000]))
        true = {
            name: float(score)
            for name, score in vessel_pixel_scores(Confusion(*(torch.tensor(n) for n in (tp, fp, fn, tn)))).items()
        }
        four = [true[name] for name in ("sensitivity", "specificity", "f1", "accuracy")]

        exact = published_scores_consistency(*four, tolerance=0.0, decimals=12)
        rounded = published_scores_consistency(*(round(value, 4) for value in four), tolerance=0.0)

        assert exact.agree
        assert rounded.agree
        assert not exact.specificity_is_npv
        assert exact.prevalence == pytest.approx((tp + fn) / (tp + fp + fn + tn), rel=1e-6)
        for name in ("specificity", "npv", "ppv", "mcc"):
            assert getattr(exact, name) == pytest.approx(true[name], abs=1e-6)
        assert exact.f1_from_accuracy == pytest.approx(true["f1"], abs=1e-5)


@pytest.mark.parametrize(
    ("printed", "agree"),
    [
        ((1.0, 1.0, 1.0, 1.0), True),  # perfect, with any share of positives
        ((0.9, 0.9, 0.9, 0.9), True),  # half of the pixels
        ((0.9, 0.9, 0.9, 0.5), False),  # accuracy lies between sensitivity and specificity
        ((0.5, 0.95, 0.9, 0.9), False),  # no share makes F1 so high
        ((0.8, 0.97, 0.8, 0.99), False),  # accuracy above both
        ((0.0, 1.0, 0.0, 0.9), True),  # nothing is found
        ((0.8, 1.0, 0.8889, 0.98), True),  # no false positive: F1 says nothing about the share
        ((0.0, 0.9, 0.5, 0.9), False),  # nothing right is found, so F1 is 0
    ],
)
def test_limits(printed: tuple[float, ...], agree: bool) -> None:
    row = published_scores_consistency(*printed)
    assert row.agree is agree
    assert row.verdict.startswith("The four scores agree" if agree else "The four scores cannot be of the same pixels")


def test_a_row_of_which_three_are_impossible_already_has_nothing_to_derive() -> None:
    row = published_scores_consistency(0.5, 0.95, 0.9, 0.9)
    assert np.isnan([row.prevalence, row.specificity, row.npv, row.ppv, row.mcc]).all()
    assert "alone cannot be either" in row.verdict


def test_the_tolerance_decides() -> None:
    printed = (0.8048, 0.9867, 0.7894, 0.9730)  # shares of .075 and .054
    assert published_scores_consistency(*printed, tolerance=0.025).agree
    assert not published_scores_consistency(*printed, tolerance=0.015).agree
    assert published_scores_consistency(0.80, 0.99, 0.79, 0.97, decimals=2).agree  # two digits leave room


@pytest.mark.parametrize(
    ("printed", "options", "message"),
    [
        ((85.75, 0.98, 0.79, 0.96), {}, "sensitivity is 85.75; .* divide per cent by 100"),
        ((0.8, 0.98, math.nan, 0.96), {}, "f1 is nan"),
        ((0.8, 0.98, 0.79, 0.96), {"tolerance": -1}, "tolerance must be"),
        ((0.8, 0.98, 0.79, 0.96), {"decimals": 0}, "decimals 1 or more"),
    ],
)
def test_wrong_arguments_are_refused(printed: tuple[float, ...], options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        published_scores_consistency(*printed, **options)
