"""Overlap scores, averages and distances against scikit-learn, MONAI and SciPy."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric, compute_dice, compute_iou
from scipy.spatial.distance import directed_hausdorff
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score, precision_score, recall_score

from msrf_monai.errors import InputError
from msrf_monai.metrics import (
    Confusion,
    confusion,
    dice,
    hausdorff95,
    iou,
    iou_from_dice,
    macro_dsc,
    pooled_dice,
    pooled_iou,
    pooled_precision,
    pooled_recall,
    precision,
    recall,
)

EMPTY, FULL = torch.zeros(1, 3, 5), torch.ones(1, 3, 5)


def _masks(count: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    label = torch.rand(count, 16, 24, generator=generator) > torch.linspace(0.2, 0.9, count)[:, None, None]
    return label ^ (torch.rand(count, 16, 24, generator=generator) > 0.7), label


def test_counts_and_scores_equal_scikit_learns() -> None:
    pred, label = _masks()
    counts = confusion(pred, label)
    scores = {dice: f1_score, iou: jaccard_score, precision: precision_score, recall: recall_score}
    for index in range(len(pred)):
        one, other = label[index].flatten().numpy(), pred[index].flatten().numpy()
        tn, fp, fn, tp = confusion_matrix(one, other).ravel()
        assert [int(count[index]) for count in counts] == [tp, fp, fn, tn]
        for ours, theirs in scores.items():
            assert float(ours(counts)[index]) == pytest.approx(theirs(one, other), abs=1e-12)


def test_dice_and_iou_equal_monais() -> None:
    pred, label = _masks()
    counts = confusion(pred, label)
    kwargs = {"include_background": True, "ignore_empty": False}
    torch.testing.assert_close(dice(counts).float(), compute_dice(pred[:, None], label[:, None], **kwargs)[:, 0])
    torch.testing.assert_close(iou(counts).float(), compute_iou(pred[:, None], label[:, None], **kwargs)[:, 0])


def test_pooled_averages_equal_scikit_learn_on_all_pixels() -> None:
    pred, label = _masks()
    counts = confusion(pred, label)
    one, other = label.flatten().numpy(), pred.flatten().numpy()
    assert float(pooled_dice(counts)) == pytest.approx(f1_score(one, other))
    assert float(pooled_iou(counts)) == pytest.approx(jaccard_score(one, other))
    assert float(pooled_precision(counts)) == pytest.approx(precision_score(one, other))
    assert float(pooled_recall(counts)) == pytest.approx(recall_score(one, other))
    assert float(macro_dsc(counts)) == pytest.approx(
        DiceMetric(ignore_empty=False)(pred[:, None], label[:, None]).mean()
    )


def test_the_identity_between_f1_and_iou_holds_pooled_and_not_for_macro_averages() -> None:
    counts = confusion(*_masks())
    assert float(iou_from_dice(pooled_dice(counts))) == pytest.approx(float(pooled_iou(counts)), abs=1e-12)
    assert abs(float(iou_from_dice(macro_dsc(counts))) - float(pooled_iou(counts))) > 1e-3


def test_the_papers_printed_figures_agree_with_the_identity() -> None:
    recall_printed, precision_printed, iou_printed = 0.9198, 0.9666, 0.8914  # Kvasir-SEG
    f1 = 2 * recall_printed * precision_printed / (recall_printed + precision_printed)
    assert iou_from_dice(f1) == pytest.approx(iou_printed, abs=3e-4)


@pytest.mark.parametrize(
    ("pred", "label", "expected"),
    [
        (EMPTY, EMPTY, (1.0, 1.0, 1.0, 1.0)),  # nothing there, nothing found
        (FULL, EMPTY, (0.0, 0.0, 0.0, 0.0)),  # only the truth is empty
        (EMPTY, FULL, (0.0, 0.0, 0.0, 0.0)),  # only the prediction is empty
        (FULL, FULL, (1.0, 1.0, 1.0, 1.0)),
    ],
)
def test_empty_masks_follow_the_convention(
    pred: torch.Tensor, label: torch.Tensor, expected: tuple[float, ...]
) -> None:
    counts = confusion(pred, label)
    assert tuple(float(score(counts)) for score in (dice, iou, precision, recall)) == expected


def test_pixels_outside_the_region_do_not_count() -> None:
    pred, label = _masks()
    region = torch.zeros_like(label)
    region[:, 2:9, 5:20] = True
    inside = confusion(pred[:, 2:9, 5:20], label[:, 2:9, 5:20])
    for one, other in zip(confusion(pred, label, region=region), inside, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("pred", "label", "message"),
    [
        (torch.zeros(1, 3, 4), torch.zeros(1, 4, 3), "pred has shape"),
        (torch.tensor(1.0), torch.tensor(1.0), "has shape"),
        (torch.full((1, 2, 3), 0.4), torch.zeros(1, 2, 3), "pred must be a decided mask"),
        (torch.zeros(1, 2, 3), torch.full((1, 2, 3), 255), "label must be a decided mask"),
    ],
)
def test_wrong_masks_are_refused(pred: torch.Tensor, label: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        confusion(pred, label)


def test_averages_over_no_image_are_refused() -> None:
    nothing = Confusion(*(torch.zeros(0, dtype=torch.long) for _ in range(4)))
    with pytest.raises(InputError, match="no image to average"):
        macro_dsc(nothing)


def test_the_distance_of_two_points_is_the_distance() -> None:
    pred, label = torch.zeros(1, 16, 24), torch.zeros(1, 16, 24)
    pred[0, 3, 4] = 1
    label[0, 6, 8] = 1
    assert hausdorff95(pred, label).tolist() == [5.0]
    assert hausdorff95(pred, label, spacing=(2.0, 0.5)).tolist() == pytest.approx([np.hypot(6, 2)])


def test_the_distance_is_at_most_scipys_maximum_and_symmetric() -> None:
    pred, label = torch.zeros(2, 16, 24), torch.zeros(2, 16, 24)
    pred[:, 2:9, 3:17] = 1
    label[:, 4:12, 5:22] = 1
    found = hausdorff95(pred, label)
    points = [np.argwhere(mask.numpy() > 0) for mask in (pred[0], label[0])]
    largest = max(directed_hausdorff(*points)[0], directed_hausdorff(*points[::-1])[0])
    assert 0 < float(found[0]) <= largest
    assert torch.equal(found, hausdorff95(label, pred))


def test_distances_of_empty_masks_follow_the_convention_without_a_warning() -> None:
    pred = torch.cat([EMPTY, FULL, EMPTY, FULL])
    label = torch.cat([EMPTY, EMPTY, FULL, FULL])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = hausdorff95(pred, label)
    assert found[[0, 3]].tolist() == [0.0, 0.0]
    assert torch.isnan(found[1:3]).all()


def test_distances_need_two_masks_of_one_shape() -> None:
    with pytest.raises(InputError, match="expected two masks"):
        hausdorff95(torch.zeros(3, 4), torch.zeros(3, 4))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int64, torch.float32])
def test_hausdorff_takes_masks_of_any_type(dtype: torch.dtype) -> None:
    pred, label = torch.zeros(2, 9, 12, dtype=dtype), torch.zeros(2, 9, 12, dtype=dtype)
    pred[0, 2, 3], label[0, 2, 7] = 1, 1

    assert hausdorff95(pred, label).tolist() == [4.0, 0.0]
