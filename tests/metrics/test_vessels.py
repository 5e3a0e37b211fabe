"""Vessel scores inside a field of view against scikit-learn, and at the edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    matthews_corrcoef,
    precision_score,
    roc_auc_score,
)

from msrf_monai.errors import InputError
from msrf_monai.metrics import (
    VESSEL_MASK_SCORES,
    VESSEL_PIXEL_SCORES,
    VESSEL_POOLED_SCORES,
    VESSEL_SCORES,
    VESSEL_TOPOLOGY_SCORES,
    Confusion,
    average_precision,
    betti_errors,
    calibration_bins,
    centreline_dice,
    choose_threshold,
    confusion,
    exact_auc,
    expected_calibration_error,
    mask_scores,
    matthews,
    npv,
    pixels_inside,
    pooled_vessel_scores,
    vessel_pixel_scores,
    vessel_scores,
)
from support.vessel_truth import scikit_learn

SHAPE = (33, 47)


def case(seed: int = 0, shape: tuple[int, int] = SHAPE) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Probabilities with ties that are right more often than not, the truth, and a round field of view."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.rand(shape, generator=generator) < 0.2
    logits = 2 * torch.randn(shape, generator=generator) + torch.where(label, 1.5, -2.0)
    probability = torch.sigmoid(logits).mul(50).round().div(50)
    y, x = torch.meshgrid(torch.linspace(-1, 1, shape[0]), torch.linspace(-1, 1, shape[1]), indexing="ij")
    return probability, label, y**2 + x**2 < 0.9


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("threshold", [0.3, 0.5])
@pytest.mark.parametrize("masked", [True, False])
def test_pixel_scores_equal_scikit_learns(seed: int, threshold: float, masked: bool) -> None:
    probability, label, fov = case(seed)
    region = fov if masked else torch.ones_like(fov)
    expected = scikit_learn(probability[region].numpy(), label[region].numpy(), threshold)

    found = vessel_scores(probability, label, fov if masked else None, threshold=threshold, topology=False)

    assert tuple(found) == VESSEL_POOLED_SCORES
    assert found == pytest.approx(expected, abs=1e-6)


def test_all_scores_come_in_the_documented_order_with_the_topology_of_the_decided_mask() -> None:
    probability, label, fov = case()
    pred = probability >= 0.6
    whole, specks = betti_errors(pred, label, fov), betti_errors(pred, label, fov, min_size=20)

    found = vessel_scores(probability, label, fov, threshold=0.6)

    assert tuple(found) == VESSEL_SCORES
    assert all(type(value) is float for value in found.values())
    assert [found[name] for name in VESSEL_TOPOLOGY_SCORES] == [
        centreline_dice(pred, label, fov),
        whole.betti0,
        whole.betti1,
        whole.patch_betti0,
        whole.patch_betti1,
        specks.betti0,
        specks.betti1,
    ]
    assert whole != specks


def test_a_mask_is_scored_as_the_probabilities_that_decide_it() -> None:
    probability, label, fov = case()
    scores = vessel_scores(probability, label, fov)
    found = mask_scores(probability >= 0.5, label, fov)
    assert tuple(found) == VESSEL_MASK_SCORES
    assert found == {name: scores[name] for name in VESSEL_MASK_SCORES}
    assert tuple(mask_scores(probability >= 0.5, label, fov, topology=False)) == VESSEL_PIXEL_SCORES


def test_what_is_predicted_outside_the_field_of_view_changes_nothing() -> None:
    probability, label, fov = case()
    other = torch.where(fov, probability, 1 - probability)
    assert vessel_scores(other, label, fov) == vessel_scores(probability, label, fov)
    assert vessel_scores(other, label) != vessel_scores(probability, label)


def test_tensors_of_a_monai_chain_are_scored_as_plain_ones() -> None:
    probability, label, fov = case()
    monai = (MetaTensor(probability[None]), MetaTensor(label[None].float()), MetaTensor(fov[None].to(torch.uint8)))
    assert vessel_scores(*monai) == vessel_scores(probability, label, fov)
    assert mask_scores(MetaTensor((probability >= 0.5)[None]), *monai[1:]) == mask_scores(
        probability >= 0.5, label, fov
    )


NAN = float("nan")
ONES, ZEROS = torch.ones(SHAPE), torch.zeros(SHAPE)
DOT = torch.zeros(SHAPE)
DOT[9, 9] = 1
REST = ONES.numel() - 1


@pytest.mark.parametrize(
    ("pred", "label", "fov", "expected"),  # sensitivity, specificity, ppv, npv, f1, accuracy, mcc
    [
        (ZEROS, ZEROS, None, (NAN, 1, NAN, 1, NAN, 1, NAN)),  # nothing there, nothing found
        (ONES, ZEROS, None, (NAN, 0, 0, NAN, 0, 0, NAN)),
        (ZEROS, ONES, None, (0, NAN, NAN, 0, 0, 0, NAN)),
        (ONES, ONES, None, (1, NAN, 1, NAN, 1, 1, NAN)),
        (DOT, DOT, None, (1, 1, 1, 1, 1, 1, 1)),
        (1 - DOT, DOT, None, (0, 0, 0, 0, 0, 0, -1)),
        (ZEROS, DOT, None, (0, 1, NAN, REST / (REST + 1), 0, REST / (REST + 1), NAN)),
        (DOT, ZEROS, None, (NAN, REST / (REST + 1), 0, 1, 0, REST / (REST + 1), NAN)),
        (DOT, ONES, DOT, (1, NAN, 1, NAN, 1, 1, NAN)),  # a field of view of one pixel
        (DOT, DOT, 1 - DOT, (NAN, 1, NAN, 1, NAN, 1, NAN)),  # a field of view without a vessel
        (DOT, ONES, ZEROS, (NAN,) * 7),  # no field of view
    ],
)
def test_scores_that_divide_0_by_0_are_nan(
    pred: torch.Tensor, label: torch.Tensor, fov: torch.Tensor | None, expected: tuple[float, ...]
) -> None:
    found = mask_scores(pred, label, fov, topology=False)
    assert tuple(found.values()) == pytest.approx(expected, nan_ok=True)


def test_areas_and_calibration_are_nan_where_they_do_not_exist() -> None:
    probability, label, fov = case()
    nothing = torch.zeros_like(label)
    no_vessel = vessel_scores(probability, nothing, fov)
    assert np.isnan([no_vessel["auc_roc"], no_vessel["auc_pr"], no_vessel["sensitivity"]]).all()
    assert no_vessel["f1"] == 0.0
    assert no_vessel["ece"] == pytest.approx(float(probability[fov].mean()), abs=1e-6)
    only_vessel = vessel_scores(probability, label, fov & label)
    assert np.isnan(only_vessel["auc_roc"])
    assert only_vessel["auc_pr"] == 1.0
    assert all(np.isnan(value) for value in vessel_scores(probability, label, nothing).values())


@pytest.mark.parametrize("seed", range(3))
def test_npv_and_matthews_equal_scikit_learns(seed: int) -> None:
    probability, label, _ = case(seed)
    pred = probability >= 0.4
    counts = confusion(pred, label)  # every row is an image
    for row in range(len(pred)):
        one, other = label[row].numpy(), pred[row].numpy()
        assert float(npv(counts)[row]) == pytest.approx(precision_score(one, other, pos_label=0), abs=1e-12)
        assert float(matthews(counts)[row]) == pytest.approx(matthews_corrcoef(one, other), abs=1e-12)


def test_npv_and_matthews_of_empty_and_full_masks_follow_the_convention_of_the_overlaps() -> None:
    for pred, label, expected in (
        (ZEROS, ZEROS, (1, 1)),
        (ONES, ONES, (1, 1)),
        (ONES, ZEROS, (0, 0)),
        (ZEROS, ONES, (0, 0)),
        (ZEROS, DOT, (REST / (REST + 1), 0)),
    ):
        counts = confusion(pred[None], label[None])
        assert (float(npv(counts)), float(matthews(counts))) == pytest.approx(expected)


def test_matthews_does_not_overflow_on_many_pixels() -> None:
    counts = [torch.tensor([n]) for n in (4_000_000_000, 1_000_000_000, 1_000_000_000, 4_000_000_000)]
    assert float(matthews(Confusion(*counts))) == pytest.approx(0.6)
    assert float(vessel_pixel_scores(Confusion(*counts))["mcc"]) == pytest.approx(0.6)


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_equals_scikit_learns_also_with_ties(seed: int) -> None:
    probability, label, _ = case(seed)
    expected = average_precision_score(label.flatten().numpy(), probability.flatten().numpy())
    assert float(average_precision(probability, label)) == pytest.approx(expected, abs=1e-12)
    logits = torch.logit(probability, eps=1e-3)
    assert float(average_precision(logits, label)) == pytest.approx(
        average_precision_score(label.flatten().numpy(), logits.flatten().numpy()), abs=1e-12
    )


def test_a_blind_guess_has_the_share_of_the_object_as_average_precision() -> None:
    label = torch.tensor([1, 0, 0, 1, 0])
    assert float(average_precision(torch.full((5,), 0.3), label)) == pytest.approx(0.4)
    assert float(average_precision(label.float(), label)) == 1.0
    assert np.isnan(float(average_precision(torch.rand(5), torch.zeros(5))))
    with pytest.raises(InputError, match="scores hold NaN"):
        average_precision(torch.tensor([0.1, torch.nan]), torch.tensor([0, 1]))


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_bins_equal_scikit_learns_calibration_curve(bins: int) -> None:
    probability, label, fov = case()
    found = calibration_bins(probability, label, fov, bins=bins)
    filled = [index for index, count in enumerate(found.counts) if count]
    frequency, confidence = calibration_curve(label[fov].numpy(), probability[fov].double().numpy(), n_bins=bins)
    assert sum(found.counts) == int(fov.sum())
    assert [found.frequency[index] for index in filled] == pytest.approx(list(frequency))
    assert [found.confidence[index] for index in filled] == pytest.approx(list(confidence))
    assert len(found.edges) == bins + 1


def test_calibration_of_known_cases() -> None:
    label = torch.tensor([1.0, 0, 0, 0, 1, 1, 1, 0])
    said = torch.tensor([0.25, 0.25, 0.25, 0.25, 0.75, 0.75, 0.75, 0.75])
    assert expected_calibration_error(said, label) == 0.0
    assert expected_calibration_error(1 - said, label) == pytest.approx(0.5)
    assert expected_calibration_error(label, label) == 0.0
    assert expected_calibration_error(torch.full((8,), 0.9), label) == pytest.approx(0.4, abs=1e-6)
    edges = calibration_bins(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([0, 1, 1]), bins=2)
    assert edges.counts == (2, 1)  # a bin holds its upper edge
    empty = calibration_bins(torch.tensor([0.9]), torch.tensor([1]), bins=2)
    assert empty.counts == (0, 1)
    assert np.isnan([empty.confidence[0], empty.frequency[0]]).all()


def test_pooled_scores_are_those_of_all_pixels_in_one_array() -> None:
    images = [case(seed, shape) for seed, shape in ((1, (20, 31)), (2, (44, 17)), (3, (9, 9)))]
    probabilities, labels, fovs = map(list, zip(*images, strict=True))
    said = np.concatenate([p[m].numpy() for p, _, m in images])
    true = np.concatenate([y[m].numpy() for _, y, m in images])

    found = pooled_vessel_scores(probabilities, labels, fovs, threshold=0.4)

    assert tuple(found) == VESSEL_POOLED_SCORES
    assert found == pytest.approx(scikit_learn(said, true, 0.4), abs=1e-6)
    whole = pooled_vessel_scores(probabilities, labels)
    assert whole["f1"] != pytest.approx(pooled_vessel_scores(probabilities, labels, fovs)["f1"], abs=1e-6)


def test_the_whole_image_lifts_accuracy_and_auc_and_leaves_f1() -> None:
    probability, label, fov = case(shape=(80, 90))
    probability, label = probability.where(fov, torch.tensor(0.01)), label & fov
    primary, legacy = vessel_scores(probability, label, fov), vessel_scores(probability, label)
    assert legacy["f1"] == primary["f1"]
    assert legacy["auc_pr"] == pytest.approx(primary["auc_pr"], abs=2e-3)
    assert legacy["accuracy"] > primary["accuracy"] + 0.02
    assert legacy["auc_roc"] > primary["auc_roc"] + 0.01


@pytest.mark.parametrize("steps", [2, 10, 100])
def test_the_threshold_has_the_best_dice_of_all_candidates(steps: int) -> None:
    images = [case(seed, shape) for seed, shape in ((1, (20, 31)), (2, (44, 17)))]
    probabilities, labels, fovs = map(list, zip(*images, strict=True))

    found = choose_threshold(probabilities, labels, fovs, steps=steps)

    said = torch.cat([p[m] for p, _, m in images])
    true = torch.cat([y[m] for _, y, m in images])
    candidates = [step / steps for step in range(1, steps)]
    scores = [f1_score(true.numpy(), (said >= candidate).numpy()) for candidate in candidates]
    assert found in candidates
    assert scores[candidates.index(found)] == pytest.approx(max(scores), abs=1e-12)
    assert pooled_vessel_scores(probabilities, labels, fovs, threshold=found)["f1"] == pytest.approx(max(scores))


def test_of_equally_good_thresholds_the_one_nearest_to_a_half_is_taken() -> None:
    label = torch.tensor([0.0, 0, 1, 1])
    assert choose_threshold([torch.tensor([0.1, 0.2, 0.8, 0.9])], [label]) == 0.5
    assert choose_threshold([torch.tensor([0.1, 0.2, 0.3, 0.9])], [label], steps=100) == pytest.approx(0.3)
    assert choose_threshold([torch.tensor([0.1, 0.7, 0.8, 0.9])], [label], steps=100) == pytest.approx(0.71)


def test_pixels_outside_the_field_of_view_do_not_move_the_threshold() -> None:
    probability, label, fov = case()
    other = torch.where(fov, probability, 1 - probability)
    assert choose_threshold([other], [label], [fov]) == choose_threshold([probability], [label], [fov])


LABEL = torch.zeros(4, 5)


@pytest.mark.parametrize(
    ("function", "arguments", "options", "message"),
    [
        (vessel_scores, (torch.zeros(5, 4), LABEL), {}, r"probability has shape \(5, 4\), expected .* \(4, 5\)"),
        (vessel_scores, (LABEL, LABEL, torch.ones(5, 4)), {}, r"fov has shape \(5, 4\)"),
        (vessel_scores, (LABEL + 3, LABEL), {}, r"probabilities must be in \[0, 1\], .*: logits want a sigmoid"),
        (vessel_scores, (LABEL, LABEL, LABEL + 255), {}, "fov must be a decided mask of 0 and 1"),
        (vessel_scores, (LABEL, LABEL + 0.5), {}, "label must be a decided mask of 0 and 1"),
        (vessel_scores, (LABEL, LABEL), {"threshold": 1.5}, "threshold is 1.5"),
        (mask_scores, (LABEL + 0.5, LABEL), {}, "pred_mask must be a decided mask"),
        (mask_scores, (torch.zeros(5, 4), LABEL), {}, "pred_mask has shape"),
        (pooled_vessel_scores, ([], []), {}, "got 0, 0 and 0"),
        (pooled_vessel_scores, ([LABEL], [LABEL, LABEL]), {}, "got 1, 2 and 2"),
        (pooled_vessel_scores, ([LABEL], [LABEL], []), {}, "got 1, 1 and 0"),
        (pooled_vessel_scores, ([LABEL], [LABEL]), {"threshold": -1.0}, "threshold is -1.0"),
        (choose_threshold, ([LABEL], [LABEL]), {"steps": 1}, "steps is 1"),
        (choose_threshold, ([LABEL], [LABEL]), {}, "no pixel of the truth is a vessel"),
        (choose_threshold, ([LABEL - 1], [LABEL + 1]), {}, r"probabilities must be in \[0, 1\]"),
        (calibration_bins, (LABEL, LABEL), {"bins": 0}, "bins is 0"),
        (calibration_bins, (LABEL * torch.nan, LABEL), {}, r"probabilities must be in \[0, 1\]"),
    ],
)
def test_wrong_arguments_are_refused(
    function: Any, arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        function(*arguments, **options)


def test_pixels_inside_keep_their_values_and_lose_their_place() -> None:
    probability, label, fov = case()
    said, true = pixels_inside(probability, label, fov)
    assert torch.equal(said, probability[fov])
    assert torch.equal(true, label[fov])
    assert float(exact_auc(said, true)) == pytest.approx(roc_auc_score(true.numpy(), said.numpy()))
